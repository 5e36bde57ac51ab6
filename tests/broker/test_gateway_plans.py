"""A plan goes from a round to the agent that starts the job; old agents are not told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from agents.clock import SystemClock
from agents.drivers.base import Phase
from agents.drivers.process import ProcessDriver
from agents.orders import refusal, task
from agents.protocol import OfferDocument, SyncReply, decode, told_version
from federation.models import OfferPool
from tests.agents.making import a_config, kill_guard, until
from tests.broker.api_world import (
    Caller,
    a_site_now,
    a_sync,
    an_agent_of,
    an_offer_document,
    problem,
)
from tests.federation.planned_scene import SMALL, WIDE
from tests.support import world

pytestmark = pytest.mark.django_db
NEW = told_version("0.1.0")


@pytest.fixture
def site():
    return a_site_now("north", gpu="A100-80", gpus=8, reserve="1", speeds={"cnn": 6.0})


@pytest.fixture
def agent(site) -> Caller:
    return an_agent_of(site)


def awarded(**fields):
    """A job with a model, awarded in a real round."""
    now = timezone.now()
    wanted = {"model": SMALL, "gpus": [], "samples": 10_000, "value": "90000", **fields}
    job = world.a_job(world.a_tenant(), now=now, **wanted)
    world.a_round(now + timedelta(seconds=10))
    return world.live_lease(job)


def synced(agent: Caller, **changes: object) -> SyncReply:
    answer = agent.post("/sync", a_sync(**changes))
    assert answer.status_code == 200, answer.content
    return decode(SyncReply, answer.json())


def test_what_a_site_says_of_its_gpus_is_stored_with_its_offer(site, agent):
    document = an_offer_document()
    document["pools"][0] |= {**WIDE, "gpus_per_node": 4}
    synced(agent, offer=document, offer_digest=decode(OfferDocument, document).digest())

    line = OfferPool.objects.get(offer__site=site, offer__state="active")
    assert line.device == {**WIDE, "gpus_per_node": 4}


def test_an_offer_of_before_has_no_device(site, agent):
    document = an_offer_document()
    synced(agent, offer=document, offer_digest=decode(OfferDocument, document).digest())

    assert OfferPool.objects.get(offer__site=site, offer__state="active").device == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_gb", 0),
        ("memory_gb", 1e300),
        ("memory_gb", "80"),
        ("peak_tflops", -1.0),
        ("intra_gbit_s", True),
        ("inter_gbit_s", 0),
        ("gpus_per_node", 0),
        ("gpus_per_node", 1.5),
        ("gpus_per_node", 10**8),
    ],
)
def test_a_figure_that_no_gpu_has_is_refused_by_its_path(agent, name, value):
    document = an_offer_document()
    document["pools"][0][name] = value
    answer = agent.post("/sync", a_sync(offer=document, offer_digest="0" * 64))
    problem(answer, 422, answer.json()["code"], f"offer.pools[0].{name}")


def test_an_order_holds_the_plan_for_an_agent_that_reads_it(agent):
    lease = awarded()

    [order] = synced(agent, agent_version=NEW).leases

    assert order.plan is not None
    said = json.loads(order.plan["HANSE_PLAN"])
    assert said == {name: v for name, v in lease.plan.items() if name != "environment"}
    assert order.plan["WORLD_SIZE"] == str(lease.gpus)
    assert not any(name.startswith("HANSE_") for name in order.spec.env)


def test_an_agent_of_before_is_sent_no_field_that_it_would_refuse(agent):
    awarded()

    answer = agent.post("/sync", a_sync(agent_version="0.1.0")).json()

    [order] = answer["leases"]
    assert "plan" not in order
    assert decode(SyncReply, answer).leases[0].plan is None


def test_a_job_without_a_model_has_no_plan(agent):
    awarded(model=None, gpus=[1])

    [order] = agent.post("/sync", a_sync(agent_version=NEW)).json()["leases"]

    assert "plan" not in order


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[ProcessDriver]:
    root = tmp_path / "attempts"
    made = ProcessDriver(
        root=root, site="north", settings=a_config(tmp_path).driver, clock=SystemClock()
    )
    yield made
    for folder in root.iterdir():
        kill_guard(folder)


def test_the_script_of_an_awarded_job_prints_the_plan_of_its_lease(
    agent, tmp_path, driver: ProcessDriver
):
    lease = awarded(command='echo "$WORLD_SIZE"; echo "$HANSE_PLAN"')
    [order] = synced(agent, agent_version=NEW).leases
    pools = [{"name": "gpu", "gpu": "A100-80", "gpus": 8, "reserve": "1.00"}]
    config = a_config(tmp_path, pools=pools, classes={"cnn": {"samples_per_s": {"gpu": 6.0}}})
    pool = config.pool("gpu")
    assert pool is not None
    assert refusal(order, config) is None

    wanted = task(order, config, pool, slots=tuple(range(order.gpus)), fence_at=1e12)
    handle = driver.start(wanted)
    until(lambda: driver.poll(handle).phase is Phase.OVER)

    lines = driver.logs(order.attempt, 0, 100_000).data.decode().splitlines()
    assert lines[0] == str(lease.gpus)
    plan = json.loads(lines[1])
    assert plan["format"] == "hanse.plan/1"
    assert plan["tensor"] * plan["pipeline"] * plan["data"] == lease.gpus
    assert plan == {name: v for name, v in lease.plan.items() if name != "environment"}
