"""A site's rules over the wire: published, kept to, refused by, read by tenants and operators."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from agents.protocol import OfferDocument, SyncReply, decode, told_version
from federation.models import Job, Offer, SiteRefusal
from tests.broker.api_world import (
    Caller,
    a_batch,
    a_caller,
    a_report,
    a_site_now,
    a_sync,
    an_agent_of,
    an_offer_document,
    problem,
)
from tests.broker.console_world import operator
from tests.support import world

pytestmark = pytest.mark.django_db
NEW = told_version("0.1.0")
WHY = "this site takes no jobs of ann"


@pytest.fixture
def site():
    return a_site_now("north", gpus=8, speeds={"cnn": 2000.0})


@pytest.fixture
def agent(site) -> Caller:
    return an_agent_of(site)


@pytest.fixture
def ann():
    return world.a_tenant("ann")


def awarded(ann) -> Job:
    now = timezone.now()
    job = world.a_job(ann, now=now)
    world.a_round(now + timedelta(seconds=10))
    return job


def order_of(agent: Caller, **changes: object) -> dict:
    answer = agent.post("/sync", a_sync(**changes))
    assert answer.status_code == 200, answer.content
    [order] = answer.json()["leases"]
    decode(SyncReply, answer.json())
    return order


def decline(agent: Caller, job: Job, **more: object) -> None:
    lease = world.live_lease(job)
    end = {"reason": "declined", "exit_code": None, "message": WHY, **more}
    answer = agent.post("/reports", a_batch(a_report(lease, 1, "ended", end=end)))
    assert answer.status_code == 200, answer.content
    assert answer.json()["receipts"][0]["accepted"]
    job.refresh_from_db()


def test_a_tenant_is_named_to_agents_that_read_it_alone(agent, ann):
    awarded(ann)
    assert order_of(agent, agent_version=NEW)["spec"]["tenant"] == "ann"
    for version in ("0.1.0", "0.1.0+plan"):
        assert "tenant" not in order_of(agent, agent_version=version)["spec"]


def test_the_code_of_a_refusal_reaches_the_tenant_and_the_operator(site, agent, ann):
    job = awarded(ann)
    order_of(agent, agent_version=NEW)
    decline(agent, job, code="tenant_not_admitted")

    assert (job.state, job.reason_code, job.reason) == ("pending", "tenant_not_admitted", WHY)
    why = a_caller(ann).get(f"/jobs/{job.pk}/why").json()
    [refusal] = why["refusals"]
    assert (refusal["site"], refusal["code"], refusal["why"]) == (
        "north",
        "tenant_not_admitted",
        WHY,
    )
    browser = Client()
    browser.force_login(operator())
    page = browser.get(reverse("console-site", args=["north"])).content.decode()
    assert "Refused by its own rules" in page
    assert WHY in page


def test_the_end_of_an_agent_of_before_is_read_as_it_was(agent, ann):
    job = awarded(ann)
    order_of(agent, agent_version="0.1.0")
    decline(agent, job)
    assert (job.reason_code, job.site_failures) == ("declined", 1)
    assert not SiteRefusal.objects.exists()


def test_a_repeated_report_refuses_once(agent, ann):
    job = awarded(ann)
    order_of(agent, agent_version=NEW)
    lease = world.live_lease(job)
    end = {"reason": "declined", "message": WHY, "code": "tenant_not_admitted"}
    batch = a_batch(a_report(lease, 1, "ended", end=end))
    for _ in range(2):
        assert agent.post("/reports", batch).json()["receipts"][0]["accepted"]
    assert SiteRefusal.objects.count() == 1


POLICY = {
    "digest": "d" * 64,
    "tenants_allow": [],
    "tenants_deny": ["ann"],
    "classes_allow": [],
    "classes_deny": [],
    "max_gpus": 4,
    "max_runtime_s": 3600.0,
    "hours": ["mon-fri 18:00-08:00"],
    "time_zone": "Europe/Berlin",
}


def test_published_rules_are_stored_and_shown_to_operators(site, agent):
    document = an_offer_document(policy=POLICY)
    digest = decode(OfferDocument, document).digest()
    answer = agent.post("/sync", a_sync(offer=document, offer_digest=digest, agent_version=NEW))
    assert answer.status_code == 200, answer.content
    offer = Offer.objects.get(site=site, state="active")
    assert offer.rules == {name: value for name, value in POLICY.items() if value != []}
    browser = Client()
    browser.force_login(operator())
    page = browser.get(reverse("console-offer", args=[offer.pk])).content.decode()
    assert "mon-fri 18:00-08:00" in page


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"digest": ""}, "offer.policy.digest"),
        ({"max_gpus": 0}, "offer.policy.max_gpus"),
        ({"max_runtime_s": -1.0}, "offer.policy.max_runtime_s"),
        ({"tenants_deny": ["x" * 65]}, "offer.policy.tenants_deny"),
        ({"tenants_deny": "ann"}, "offer.policy.tenants_deny"),
        ({"nobody": True}, "offer.policy.nobody"),
    ],
)
def test_rules_that_make_no_sense_are_refused_by_their_path(agent, change, field):
    document = an_offer_document(policy={**POLICY, **change})
    answer = agent.post("/sync", a_sync(offer=document, offer_digest="0" * 64))
    problem(answer, 422, answer.json()["code"], field)
