"""What a site says of its GPUs, and what a launched command is told of its plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents import offer
from agents.clock import SystemClock
from agents.config import parse
from agents.drivers.base import Phase
from agents.drivers.environment import job_environment
from agents.drivers.process import ProcessDriver
from agents.errors import ConfigError
from agents.orders import refusal, task
from agents.protocol import (
    PLANS,
    LeaseOrder,
    PoolOffer,
    canonical,
    decode,
    encode,
    reads,
    told_version,
)
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import (
    AgentProcess,
    a_config,
    a_lease,
    a_task,
    kill_guard,
    settings,
    steps_until_told,
    until,
)

POOL = {"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20"}
SAID: dict[str, Any] = {
    "memory_gb": 80,
    "peak_tflops": 312,
    "intra_gbit_s": 2400.5,
    "inter_gbit_s": 200,
    "gpus_per_node": 2,
}
PLAN = {
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "PET_NNODES": "1",
    "PET_NPROC_PER_NODE": "2",
    "HANSE_PLAN": '{"format":"hanse.plan/1","gpus":2}',
}


def environment(**changes: Any) -> dict[str, str]:
    site_env = changes.pop("site_env", {})
    return job_environment(
        a_task(**changes),
        site="birch",
        site_env=site_env,
        work=Path("/w"),
        progress=Path("/p"),
        threads_per_gpu=None,
    )


def test_a_pool_tells_what_its_site_says_of_its_gpus(tmp_path: Path) -> None:
    config = a_config(tmp_path, pools=[{**POOL, **SAID}])

    [pool] = offer.document(config, ()).pools

    assert pool == PoolOffer("a100", "A100", 2, "1.20", 80.0, 312.0, 2400.5, 200.0, 2)
    assert encode(pool) == {**POOL, **SAID}


def test_a_part_may_be_left_to_the_brokers_data_sheets(tmp_path: Path) -> None:
    config = a_config(tmp_path, pools=[{**POOL, "gpus_per_node": 4}])

    [pool] = offer.document(config, ()).pools

    assert encode(pool) == {**POOL, "gpus_per_node": 4}


def test_an_offer_that_says_nothing_of_its_gpus_keeps_its_digest(tmp_path: Path) -> None:
    document = offer.document(a_config(tmp_path), ())
    first_release = {
        "pools": [{"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20"}],
        "affinities": [
            {
                "pool": "a100",
                "job_class": "resnet50",
                "samples_per_s": 100.0,
                "gpus": 1,
                "source": "declared",
            }
        ],
        "valid_from": None,
        "valid_until": None,
        "note": "",
    }

    assert document.digest() == hashlib.sha256(canonical(first_release)).hexdigest()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("memory_gb", 0, "more than zero"),
        ("memory_gb", "80", "a number"),
        ("peak_tflops", -1, "at least 0"),
        ("intra_gbit_s", True, "a number"),
        ("inter_gbit_s", None, "a number"),
        ("gpus_per_node", 1.5, "whole number"),
        ("gpus_per_node", 0, "at least 1"),
        ("gpus_per_node", 10**9, "at most 10000"),
        ("memory", 80, "unknown key"),
    ],
)
def test_a_figure_that_no_gpu_has_is_named(
    tmp_path: Path, key: str, value: object, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(settings(pools=[{**POOL, key: value}]), folder=tmp_path)
    assert caught.value.path == f"pools[0].{key}"
    assert why in str(caught.value)


def test_an_order_brings_its_plan_to_the_task(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    order = decode(LeaseOrder, encode(a_lease(gpus=2, plan=PLAN)))
    pool = config.pool("a100")
    assert pool is not None

    assert refusal(order, config) is None
    made = task(order, config, pool, slots=(0, 1), fence_at=1.0)

    assert made.plan == PLAN
    plain = task(a_lease(gpus=2), config, pool, slots=(0, 1), fence_at=1.0)
    assert plain.plan == {}
    assert "plan" not in encode(a_lease())


def test_a_plan_sets_nothing_but_its_own_names(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    order = a_lease(plan={**PLAN, "LD_PRELOAD": "/evil.so", "PATH": "/evil"})
    pool = config.pool("a100")
    assert pool is not None

    made = task(order, config, pool, slots=(0,), fence_at=1.0)

    assert made.plan == PLAN


def test_the_plan_is_in_the_environment() -> None:
    found = environment(plan=PLAN)

    assert {name: found[name] for name in PLAN} == PLAN
    assert not set(PLAN) & set(environment())


def test_of_torchruns_names_the_tenants_and_the_sites_stand_above_the_plans() -> None:
    found = environment(plan=PLAN, env={"PET_NPROC_PER_NODE": "1"}, site_env={"PET_NNODES": "1:2"})

    assert found["PET_NPROC_PER_NODE"] == "1"
    assert found["PET_NNODES"] == "1:2"
    assert found["WORLD_SIZE"] == "2"


def test_nobody_overrides_the_plan_itself() -> None:
    other = {"HANSE_PLAN": "{}"}

    found = environment(plan=PLAN, env=other, site_env=other)

    assert found["HANSE_PLAN"] == PLAN["HANSE_PLAN"]
    order = a_lease(env=other)
    assert "HANSE_PLAN is the site's to set" in (refusal(order, a_config(Path("/x"))) or "")


def test_an_agent_says_in_its_version_that_it_reads_plans() -> None:
    assert reads(told_version("0.1.0"), PLANS)
    assert not any(reads(version, PLANS) for version in ("0.1.0", "", "0.1.0+planet", "plan"))
    assert reads("1.2.0+later.plan", PLANS)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[ProcessDriver]:
    root = tmp_path / "attempts"
    made = ProcessDriver(
        root=root, site="birch", settings=a_config(tmp_path).driver, clock=SystemClock()
    )
    yield made
    for folder in root.iterdir():
        kill_guard(folder)


def test_a_launched_script_reads_its_plan(driver: ProcessDriver) -> None:
    script = 'echo "$WORLD_SIZE $PET_NNODES $PET_NPROC_PER_NODE"; echo "$HANSE_PLAN"'
    quoted = {**PLAN, "HANSE_PLAN": json.dumps({"why": 'it\'s $HOME `x` "quoted"'})}

    handle = driver.start(replace(a_task(command=script, gpus=2), plan=quoted))
    until(lambda: driver.poll(handle).phase is Phase.OVER)

    lines = driver.logs("a1", 0, 10_000).data.decode().splitlines()
    assert lines[0] == "2 1 2"
    assert json.loads(lines[1]) == json.loads(quoted["HANSE_PLAN"])


def test_a_plan_waits_in_the_journal_with_its_order(
    broker: FakeBroker, make_agent: Callable[..., AgentProcess]
) -> None:
    agent = make_agent()
    agent.start()
    holds = a_lease("a1", gpus=2, command=steps_until_told())
    waits = a_lease("a2", gpus=2, plan=PLAN, command='echo "$WORLD_SIZE $HANSE_PLAN"')
    broker.lease(holds)
    until(lambda: broker.of("a1"))
    broker.lease(waits)
    until(lambda: any(status.attempt == "a2" for status in broker.syncs[-1].attempts))

    agent.kill()
    agent.start()
    agent.finish("job-a1")

    until(lambda: broker.end("a2"))
    assert broker.log("a2").decode().strip() == f"2 {PLAN['HANSE_PLAN']}"
    assert reads(broker.syncs[-1].agent_version, PLANS)
