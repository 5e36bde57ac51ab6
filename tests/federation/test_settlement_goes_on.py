"""One contract that cannot be settled holds up no other; one round that did not trade has no
transfers."""

from __future__ import annotations

import logging
import uuid

import pytest
from django.db import DatabaseError

from federation.decision import decide
from federation.errors import Refused
from federation.models import Account, Assignment, Contract, EntryGroup, Event, Round, Site
from federation.selectors.accounts import trial_balance
from federation.services import ledger, rounds, settling
from federation.services.contracts import contracts_finalise, contracts_measure, contracts_settle
from federation.services.leases import Ending
from federation.snapshot import pack, unpack
from tests.federation.contract_scene import WINDOW, a_scene, purse
from tests.support.world import (
    SimAgent,
    a_job,
    a_member,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db
ENDED = Ending("exited", 0)


def two_ended(**first):
    """Two contracts whose programs have ended; the first is of a tenant of its own."""
    scenes = [a_scene(tenant=a_tenant("ann")), a_scene(tenant=a_tenant("bob"))]
    for scene in scenes:
        scene.say(100, 1000, gpu_seconds=10, ending=ENDED)
    return scenes


def states(scenes):
    return [scene.contract.state for scene in scenes]


def test_a_contract_whose_escrow_is_gone_holds_up_no_other_and_is_told_once(caplog):
    scenes = two_ended()
    escrow = Account.objects.get(kind="tenant_escrow", tenant=scenes[0].job.tenant)
    gone = [(escrow, -1), (Account.objects.get(kind="issuance"), 1)]
    ledger.post(key="gone", kind="withdrawal", currency="cash", entries=gone, now=later(200))
    with caplog.at_level(logging.WARNING):
        for second in (300, 301, 302):
            pay(later(second))
    assert states(scenes) == ["measured", "settled"]
    [told] = Event.objects.filter(event="stuck")
    assert (told.subject_id, told.code) == (str(scenes[0].contract.pk), "insufficient_funds")
    assert told.why.startswith("It could not settle: ")
    assert "cannot settle" in caplog.text
    assert trial_balance().holds


@pytest.mark.parametrize(
    ("step", "name", "before"),
    [
        (contracts_measure, "_close", ["running", "running"]),
        (contracts_settle, "_settle", ["measured", "measured"]),
        (contracts_finalise, "_told", ["settled", "settled"]),
    ],
)
@pytest.mark.parametrize("error", [Refused("no", code="why_not"), ValueError("nonsense")])
def test_every_step_goes_on_behind_the_one_that_raises(monkeypatch, step, name, before, error):
    scenes = two_ended()
    if step is not contracts_measure:
        contracts_measure(now=later(200))
    if step is contracts_finalise:
        contracts_settle(now=later(201))
    assert states(scenes) == before
    real, bad = getattr(settling, name), scenes[0].contract.pk

    def raising(of, *rest):
        if getattr(of, "pk", of) == bad:
            raise error
        return real(of, *rest)

    monkeypatch.setattr(settling, name, raising)
    at = 300 + (WINDOW if step is contracts_finalise else 0)
    done = [step(now=later(at + n)) for n in range(2)]
    assert [[c.pk for c in some] for some in done] == [[scenes[1].contract.pk], []]
    assert scenes[0].contract.state == before[0]
    assert Event.objects.filter(event="stuck", subject_id=str(bad)).count() == 1


def test_a_fault_of_the_database_is_everybody_s_and_is_raised(monkeypatch):
    two_ended()
    contracts_measure(now=later(200))

    def away(*_):
        raise DatabaseError("gone")

    monkeypatch.setattr(settling, "_settle", away)
    with pytest.raises(DatabaseError):
        contracts_settle(now=later(201))


# --- stability transfers -----------------------------------------------------------------------


def a_round_with_transfers(gpus=2):
    """A cleared round of two jobs, one GPU each, whose clearing pays 5 from alder to birch."""
    a_member("birch")
    site = a_site("north", gpus=gpus, reserve="3600", speeds={"cnn": 1000.0})
    tenant = a_tenant("ann")
    jobs = [a_job(tenant, value=value, samples=10_000) for value in ("20000", "19000")]
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    rounds.rounds_close(now=later(20))
    [due] = rounds.rounds_due(now=later(20))
    claim = rounds.round_claim(round_id=due, token=uuid.uuid4(), now=later(20))
    rounds.round_record(claim=claim, decision=decide(claim.book), solve_s=0.1, now=later(20))
    clearing = unpack(bytes(Round.objects.get().clearing))
    clearing["transfers_micro"] = {"alder": -5, "birch": 5}
    Round.objects.update(clearing=pack(clearing))
    return site, jobs


def ends(site, jobs, samples):
    """The round is published, and its jobs end after so many samples each."""
    rounds.rounds_publish(now=later(21))
    agent = SimAgent(site)
    agent.sync(later(21))
    agent.sync(later(21))
    for job, done in zip(jobs, samples, strict=True):
        agent.report(live_lease(job), later(22), samples=done, ending=ENDED)
    pay(later(30))
    assert Round.objects.get().state == "settled"


def skipped():
    assert not EntryGroup.objects.filter(kind="stability").exists()
    assert trial_balance().holds
    [line] = Event.objects.filter(subject="round", event="no_transfers")
    assert line.code == "not_traded"
    return line.why


def test_a_round_that_traded_posts_its_transfers():
    site, jobs = a_round_with_transfers()
    ends(site, jobs, (10_000, 9_000))
    group = EntryGroup.objects.get(kind="stability")
    assert sorted(group.entries.values_list("amount_micro", flat=True)) == [-5, 5]
    assert purse("member_earnings", a_member("birch")) == 5
    assert not Event.objects.filter(event="no_transfers").exists()
    assert trial_balance().holds


def test_no_transfers_for_awards_that_were_never_carried_out():
    a_round_with_transfers()
    Site.objects.update(state="silent")
    rounds.rounds_publish(now=later(21))
    assert set(Assignment.objects.values_list("status", flat=True)) == {"dropped"}
    pay(later(30))
    assert Round.objects.get().state == "settled"
    assert "2 of 2 awards were not carried out" in skipped()


def test_no_transfers_when_a_contract_delivered_nothing():
    site, jobs = a_round_with_transfers()
    ends(site, jobs, (10_000, 0))
    assert "nothing was delivered under 1 of 2 contracts" in skipped()


def test_no_transfers_when_too_little_was_paid(monkeypatch):
    site, jobs = a_round_with_transfers()
    rounds.rounds_publish(now=later(21))
    Contract.objects.update(reserve_micro=0)
    ends(site, jobs, (10, 10))
    assert "micro-credits were paid" in skipped()
