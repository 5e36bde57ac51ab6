"""A sync: the site's state up, its orders down."""

from __future__ import annotations

import json
import uuid

import pytest
from django.utils import timezone

from agents.protocol import OfferDocument, SyncReply, decode
from federation.models import Event, Job, Lease, Offer, Site
from federation.services.leases import Ending
from tests.broker.api_world import (
    Caller,
    a_caller,
    a_running_job,
    a_site_now,
    a_sync,
    an_agent_of,
    an_offer_document,
    nothing_stored,
    problem,
)
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    world.a_class("cnn")
    return a_site_now("north")


@pytest.fixture
def agent(site) -> Caller:
    return an_agent_of(site)


def synced(agent: Caller, **changes: object) -> SyncReply:
    answer = agent.post("/sync", a_sync(**changes))
    assert answer.status_code == 200, answer.content
    return decode(SyncReply, answer.json())


def listed(lease: Lease, state: str = "starting") -> dict[str, object]:
    return {"attempt": str(lease.pk), "state": state}


def test_the_first_sync_brings_a_site_online(site, agent):
    Site.objects.update(state="enrolled", last_sync_at=None, boot="")

    reply = synced(agent)

    site.refresh_from_db()
    assert (site.state, site.agent_version, site.boot) == ("online", "0.1.0", "journal.1")
    assert abs(site.clock_skew_s) < 60
    assert (reply.leases, reply.revokes, reply.forget, reply.asks) == ((), (), (), ("offer",))
    assert reply.renew_s == site.venue.renew_s


def test_an_offer_is_put_on_the_market_once(site, agent):
    document = an_offer_document(note="half speed on Sundays")
    digest = decode(OfferDocument, document).digest()

    replies = [synced(agent, offer=document, offer_digest=digest) for _ in range(3)]

    [offer] = Offer.objects.filter(site=site, state="active")
    assert (offer.version, offer.digest, offer.note) == (2, digest, document["note"])
    assert [reply.asks for reply in replies] == [()] * 3
    assert Event.objects.filter(subject="offer", event="submit").count() == 2


def test_an_offer_that_is_not_known_is_asked_for(agent):
    assert synced(agent, offer_digest="0" * 64).asks == ("offer",)


BAD_POOLS = [
    ("name", "a/b", "offer.pools[0].name"),
    ("name", "", "offer.pools[0].name"),
    ("gpu", "A100\n", "offer.pools[0].gpu"),
    ("gpus", -1, "offer.pools[0].gpus"),
    ("gpus", 10**9, "offer.pools[0].gpus"),
    ("gpus", 10**400, "offer.pools[0].gpus"),
    ("gpus", 1.5, "offer.pools[0].gpus"),
    ("gpus", True, "offer.pools[0].gpus"),
    ("reserve", "-1", "offer.pools[0].reserve"),
    ("reserve", "free", "offer.pools[0].reserve"),
    ("reserve", "NaN", "offer.pools[0].reserve"),
    ("reserve", "sNaN", "offer.pools[0].reserve"),
    ("reserve", "Infinity", "offer.pools[0].reserve"),
    ("reserve", "1e30", "offer.pools[0].reserve"),
    ("reserve", "1e999999999", "offer.pools[0].reserve"),
    ("reserve", 5, "offer.pools[0].reserve"),
    ("colour", "red", "offer.pools[0].colour"),
]
BAD_SPEEDS = [
    ("pool", "elsewhere", "offer.affinities[0].pool"),
    ("job_class", "unheard-of", "offer.affinities[0].job_class"),
    ("samples_per_s", 0, "offer.affinities[0].samples_per_s"),
    ("samples_per_s", -1.0, "offer.affinities[0].samples_per_s"),
    ("samples_per_s", 1e300, "offer.affinities[0].samples_per_s"),
    ("samples_per_s", "fast", "offer.affinities[0].samples_per_s"),
    ("gpus", 0, "offer.affinities[0].gpus"),
    ("source", "guessed", "offer.affinities[0].source"),
]


@pytest.mark.parametrize(
    ("part", "name", "value", "path"),
    [("pools", *row) for row in BAD_POOLS] + [("affinities", *row) for row in BAD_SPEEDS],
)
def test_a_bad_offer_is_refused_with_the_field_and_replaces_nothing(
    site, agent, part, name, value, path
):
    document = an_offer_document()
    document[part][0][name] = value
    if (part, name) == ("pools", "name"):
        document["affinities"][0]["pool"] = value
    before = Offer.objects.get(site=site, state="active")

    problem(agent.post("/sync", a_sync(offer=document)), 422, "bad_input", path)

    assert Offer.objects.get(site=site, state="active") == before
    assert Offer.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"pools": [], "affinities": []}, "offer.pools"),
        ({"valid_from": "soon"}, "offer.valid_from"),
        ({"valid_from": "2027-01-01T00:00:00"}, "offer.valid_from"),
        ({"valid_until": "0001-01-01T00:00:00+14:00"}, "offer.valid_until"),
        (
            {"valid_from": "2027-01-02T00:00:00Z", "valid_until": "2027-01-01T00:00:00Z"},
            "offer.valid_until",
        ),
        ({"note": "a\x00b"}, "offer.note"),
        ({"pools": an_offer_document()["pools"] * 2}, "offer.pools[1].name"),
        ({"affinities": an_offer_document()["affinities"] * 2}, "offer.affinities[1]"),
    ],
)
def test_an_offer_that_contradicts_itself_is_refused(agent, changes, path):
    document = an_offer_document(**changes)
    problem(agent.post("/sync", a_sync(offer=document)), 422, "bad_input", path)


def test_a_refused_offer_costs_no_running_job_its_renewal(site, agent):
    lease = a_running_job(world.a_tenant("ann"), site)
    synced(agent)
    Lease.objects.update(renewed_at=world.NOW.replace(year=2020))

    bad = an_offer_document(pools=[], affinities=[])
    answer = agent.post("/sync", a_sync(offer=bad, attempts=[listed(lease, "running")]))

    problem(answer, 422, "bad_input", "offer.pools")
    lease.refresh_from_db()
    assert lease.renewed_at.year > 2020


def test_a_sync_brings_the_lease_with_all_that_the_job_needs(site, agent):
    lease = a_running_job(
        world.a_tenant("ann"), site, env={"A": "1"}, setup="pip install x", command="run ; me"
    )

    [order] = synced(agent).leases

    assert (order.attempt, order.pool, order.gpus) == (str(lease.pk), "gpu", 1)
    assert (order.spec.command, order.spec.setup) == ("run ; me", "pip install x")
    assert (order.spec.env, order.spec.job_class) == ({"A": "1"}, "cnn")
    assert order.contract_samples == lease.contracts.get().contracted
    assert order.fence_s == lease.fence_s


def test_a_listed_lease_is_renewed_and_its_job_moves_on(site, agent):
    lease = a_running_job(world.a_tenant("ann"), site)
    first = synced(agent)

    second = synced(agent, attempts=[listed(lease)], orders_seen=first.orders)

    lease.refresh_from_db()
    assert (lease.state, lease.job.state) == ("active", "dispatched")
    assert second.orders == first.orders


def test_an_ended_attempt_is_forgotten_once_its_reports_are_all_there(site, agent):
    lease = a_running_job(world.a_tenant("ann"), site)
    synced(agent)
    sim = world.SimAgent(site)
    sim.report(lease, timezone.now(), ending=Ending("exited", 0))

    assert synced(agent, attempts=[listed(lease, "ended")]).forget == (str(lease.pk),)


def test_an_agent_sees_and_renews_its_own_sites_leases_only(site, agent):
    lease = a_running_job(world.a_tenant("ann"), site, env={"SECRET": "xyzzy"})
    synced(agent)
    other = an_agent_of(a_site_now("south", speeds={}))
    Lease.objects.update(renewed_at=world.NOW.replace(year=2020))

    answer = other.post("/sync", a_sync(boot="south.1", attempts=[listed(lease, "running")]))

    assert answer.json()["leases"] == []
    assert "xyzzy" not in answer.content.decode()
    [revoke] = answer.json()["revokes"]
    assert (revoke["attempt"], revoke["code"]) == (str(lease.pk), "superseded")
    lease.refresh_from_db()
    assert (lease.renewed_at.year, lease.site) == (2020, site)
    assert Job.objects.get(pk=lease.job_id).state != "running"


def test_an_attempt_that_never_was_is_called_back_and_then_forgotten(agent):
    ghost = str(uuid.uuid4())

    running = synced(agent, attempts=[{"attempt": ghost, "state": "running"}])
    ended = synced(agent, attempts=[{"attempt": ghost, "state": "ended"}])

    assert [revoke.attempt for revoke in running.revokes] == [ghost]
    assert ended.forget == (ghost,)


def test_a_superseded_agent_is_refused_and_changes_nothing(site, agent):
    synced(agent, boot="old.1")
    synced(agent, boot="new.1")

    with nothing_stored():
        document = an_offer_document()
        answer = agent.post("/sync", a_sync(boot="old.2", offer=document, offer_digest="x"))
    problem(answer, 409, "superseded_agent")
    assert Offer.objects.get(site=site, state="active").version == 1


@pytest.mark.parametrize("protocol", ["hanse.agent/2", "", "x"])
def test_another_protocol_is_a_mismatch_whatever_else_it_holds(agent, protocol):
    with nothing_stored():
        answer = agent.post("/sync", a_sync(protocol=protocol, invented={"by": "later versions"}))
    body = problem(answer, 409, "protocol_mismatch")
    assert "hanse.agent/1" in body["detail"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"protocol": None}, "protocol"),
        ({"protocol": 1}, "protocol"),
        ({"surprise": 1}, "surprise"),
        ({"\ud800": 1}, "?"),
        ({"boot": ""}, "boot"),
        ({"boot": "x" * 65}, "boot"),
        ({"boot": "a\x00"}, "boot"),
        ({"agent_version": 1}, "agent_version"),
        ({"agent_version": "x" * 5000}, "agent_version"),
        ({"sent_at": "yesterday"}, "sent_at"),
        ({"sent_at": "2026-01-01T00:00:00"}, "sent_at"),
        ({"sent_at": "0001-01-01T00:00:00+14:00"}, "sent_at"),
        ({"wait_s": "1"}, "wait_s"),
        ({"wait_s": True}, "wait_s"),
        ({"wait_s": 10**400}, "wait_s"),
        ({"attempts": {}}, "attempts"),
        ({"attempts": [5]}, "attempts[0]"),
        ({"attempts": [{"attempt": "x", "state": "running"}]}, "attempts[0].attempt"),
        ({"attempts": [{"state": "running"}]}, "attempts[0].attempt"),
        (
            {"attempts": [{"attempt": str(uuid.UUID(int=1)), "state": "flying"}]},
            "attempts[0].state",
        ),
        (
            {"attempts": [{"attempt": str(uuid.UUID(int=1)), "state": "ended", "contract": "x"}]},
            "attempts[0].contract",
        ),
        ({"offer": []}, "offer"),
        ({"offer": {"pools": []}}, "offer.affinities"),
    ],
)
def test_a_sync_that_does_not_fit_is_refused_with_the_path(agent, changes, path):
    with nothing_stored():
        problem(agent.post("/sync", a_sync(**changes)), 422, "bad_input", path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"protocol": NaN}',
        b'{"wait_s": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"[" * 100_000,
        b"\xff\xfe{\x00}\x00",
        b'{"wait_s": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_sync_that_is_not_json_is_refused(agent, raw):
    with nothing_stored():
        problem(agent.post("/sync", raw), 400, "not_json")


def test_a_sync_over_the_limit_is_too_large(agent):
    body = json.dumps(a_sync()).encode()
    with nothing_stored():
        problem(agent.post("/sync", body + b" " * 4 * 2**20), 413, "too_large")


def test_a_list_is_no_sync(agent):
    with nothing_stored():
        problem(agent.post("/sync", b"[]"), 422, "bad_input", "body")


def test_a_tenant_sees_what_the_agent_said(site, agent):
    tenant = world.a_tenant("ann")
    lease = a_running_job(tenant, site)
    synced(agent)
    synced(agent, attempts=[listed(lease)])

    assert a_caller(tenant).get(f"/jobs/{lease.job_id}").json()["state"] == "DISPATCHED"
