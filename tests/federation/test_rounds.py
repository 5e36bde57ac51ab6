"""Rounds: frozen, claimed, decided, published; taken over, void, late results dropped."""

from __future__ import annotations

import uuid

import pytest

from economics.book import document_sha256
from federation.decision import Decision, decide
from federation.machines.round import RoundState
from federation.models import Assignment, Contract, Job, Lease, PoolPrice, Round, Snapshot
from federation.selectors.accounts import trial_balance
from federation.selectors.rounds import book_of, clearing_of
from federation.services import rounds
from federation.services.contracts import END_SLACK_S, contracts_hold_over
from federation.services.leases import Ending
from tests.support.world import (
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db


def closed_round(now=None):
    now = now or later(20)
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    [round_id] = rounds.rounds_close(now=now)
    return Round.objects.get(pk=round_id)


def claim_of(round, now):
    return rounds.round_claim(round_id=round.pk, token=uuid.uuid4(), now=now)


@pytest.fixture
def market(db):
    """Two sites and three jobs that want one GPU each."""
    tenant = a_tenant("ann")
    fast = a_site("fast", gpus=2, speeds={"cnn": 2000.0})
    slow = a_site("slow", gpus=2, speeds={"cnn": 1000.0})
    jobs = [a_job(tenant, name=f"j{i}") for i in range(3)]
    return fast, slow, jobs


def test_a_round_that_nobody_bids_in_stays_open_and_its_gate_moves_on():
    a_site("fast")
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    assert rounds.rounds_close(now=later(11)) == []
    [round] = Round.objects.all()
    assert round.state == RoundState.OPEN
    assert round.closes_at > later(11)


def test_the_snapshot_is_the_book_and_its_hash(market):
    round = closed_round()
    book = book_of(round)
    assert document_sha256(book) == round.snapshot.sha256
    assert {job["id"] for job in book["jobs"]} == {str(j.pk) for j in market[2]}
    assert {pool["id"] for pool in book["pools"]} == {"fast.gpu", "slow.gpu"}
    assert round.offers_used.count() == 2


def test_the_same_snapshot_gives_the_same_clearing(market):
    round = closed_round()
    book = book_of(round)
    first, second = decide(book), decide(dict(reversed(book.items())))
    assert first.clearing == second.clearing
    assert first.clearing["sha256"] == second.clearing["sha256"]


def test_a_claim_is_given_once_until_its_deadline(market):
    round = closed_round()
    assert claim_of(round, later(21)) is not None
    assert claim_of(round, later(22)) is None
    assert rounds.rounds_due(now=later(22)) == []


def test_a_round_of_a_dead_worker_is_taken_over_and_its_late_result_changes_nothing(market):
    round = closed_round()
    dead = claim_of(round, later(21))
    after = later(21 + a_venue().solve_patience_s + 1)
    assert rounds.rounds_due(now=after) == [round.pk]
    heir = claim_of(round, after)
    decision = decide(heir.book)
    assert rounds.round_record(claim=dead, decision=decision, solve_s=9, now=after) is False
    assert not Assignment.objects.exists()
    assert rounds.round_record(claim=heir, decision=decision, solve_s=1, now=after) is True
    count = Assignment.objects.count()
    assert rounds.round_record(claim=dead, decision=decision, solve_s=9, now=after) is False
    assert Assignment.objects.count() == count == 3
    round.refresh_from_db()
    assert (round.state, round.claims, round.certified) == (RoundState.CLEARED, 2, True)


def test_a_round_that_no_worker_brings_home_ends_void_and_the_jobs_stay(market):
    round = closed_round()
    now = 21.0
    for _ in range(rounds.MAX_CLAIMS):
        assert claim_of(round, later(now)) is not None
        now += a_venue().solve_patience_s + 1
    assert claim_of(round, later(now)) is None
    round.refresh_from_db()
    assert (round.state, round.void_code) == (RoundState.VOID, "solver_lost")
    assert Job.objects.filter(state="pending").count() == 3


@pytest.mark.parametrize("status", ["infeasible", "unbounded", "user_limit"])
def test_a_solver_that_fails_voids_the_round_with_its_status(market, status):
    round = closed_round()
    claim = claim_of(round, later(21))
    outcome = Decision(None, "not_cleared", f"The solver ended with status {status}.")
    assert rounds.round_record(claim=claim, decision=outcome, solve_s=1, now=later(22))
    round.refresh_from_db()
    assert round.state == RoundState.VOID
    assert status in round.void_why
    assert not Lease.objects.exists()


def test_a_book_that_is_no_book_voids_the_round(market):
    decision = decide({"format": "hanse.book/1"})
    assert (decision.clearing, decision.void_code) == (None, "bad_book")


def test_publication_offers_leases_and_holds_escrow(market):
    a_round(later(20))
    [round] = Round.objects.filter(state=RoundState.PUBLISHED)
    assert Lease.objects.filter(state="offered").count() == 3
    held = sum(c.payment_micro for c in Contract.objects.all())
    tenant = Job.objects.first().tenant
    assert sum(a.balance_micro for a in tenant.accounts.filter(kind="tenant_escrow")) == held > 0
    assert set(PoolPrice.objects.values_list("pool__site__name", flat=True)) == {"fast", "slow"}
    assert clearing_of(round)["sha256"] == round.clearing_sha256
    assert trial_balance().holds


def test_a_running_job_bids_again_and_is_prolonged_under_a_new_contract(market):
    _fast, _, jobs = market
    a_round(later(20))
    leases = [live_lease(j) for j in jobs]
    agents = {s.pk: SimAgent(s) for s in market[:2]}
    for agent in agents.values():
        agent.sync(later(21))
        agent.sync(later(21))
    for lease in leases:
        agents[lease.site_id].report(lease, later(25), samples=1_000)
    a_round(later(31))
    for lease in leases:
        contracts = list(Contract.objects.filter(lease=lease).order_by("sequence"))
        assert [c.sequence for c in contracts] == [1, 2]
        assert contracts[0].superseded_at == later(31)
    assert Lease.objects.count() == 3


def test_an_outbid_job_is_asked_back_and_waits_again(market):
    fast, _slow, _ = market
    Job.objects.all().delete()
    tenant = a_tenant("rich")
    poor = a_job(tenant, name="poor", gpus=[2], value="300", sites_allow=["fast"])
    a_round(later(20))
    lease = live_lease(poor)
    agent = SimAgent(fast)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(22), samples=100)
    rich = a_job(tenant, name="rich", gpus=[2], value="900", sites_allow=["fast"])
    a_round(later(31))
    poor.refresh_from_db()
    lease.refresh_from_db()
    assert (poor.state, lease.revoke_code) == ("checkpointing", "outbid")
    assert lease.state == "active"  # still the site's until it confirms the stop
    assert live_lease(rich).state == "offered"
    [order] = agent.sync(later(32)).revokes
    assert order.lease_id == lease.pk
    agent.report(lease, later(33), samples=150, ending=Ending("revoked"))
    poor.refresh_from_db()
    assert (poor.state, poor.samples_done) == ("pending", 150)


def test_a_job_with_less_than_a_round_left_finishes_where_it_runs(market):
    fast, _, _ = market
    Job.objects.all().delete()
    tenant = a_tenant("rich")
    nearly = a_job(tenant, name="nearly", gpus=[2], samples=50_000, sites_allow=["fast"])
    a_round(later(20))
    lease = live_lease(nearly)
    agent = SimAgent(fast)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(29), samples=40_000, speed=4000.0)
    rival = a_job(tenant, name="rival", gpus=[2], value="900", sites_allow=["fast"])
    a_round(later(31))
    lease.refresh_from_db()
    rival.refresh_from_db()
    assert lease.revoke_asked_at is None
    assert rival.state == "pending"
    contract = Contract.objects.get(lease=lease)
    assert contract.to_end
    assert contract.contracted >= 50_000
    agent.report(lease, later(33), samples=50_000, ending=Ending("exited", 0))
    pay(later(34))
    contract.refresh_from_db()
    nearly.refresh_from_db()
    assert nearly.state == "succeeded"
    assert contract.paid_micro == contract.payment_micro * 50_000 // contract.contracted
    assert trial_balance().holds


def test_a_job_that_is_not_preemptible_keeps_gpus_and_price_until_it_ends(market):
    fast, _, _ = market
    Job.objects.all().delete()
    tenant = a_tenant("firm")
    firm = a_job(tenant, name="firm", gpus=[2], preemptible=False, sites_allow=["fast"])
    a_round(later(20))
    lease = live_lease(firm)
    agent = SimAgent(fast)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(22), samples=100)
    a_job(tenant, name="rival", gpus=[2], value="900")
    a_round(later(31))
    book = book_of(Round.objects.order_by("-number").first())
    [pool] = [p for p in book["pools"] if p["id"] == "fast.gpu"]
    assert pool["gpus"] == 0
    [contract] = Contract.objects.filter(lease=lease)
    assert (contract.contracted, contract.to_end) == (100_000, True)


def test_a_job_that_has_all_its_samples_and_does_not_end_is_stopped_and_has_succeeded(market):
    fast, _, _ = market
    Job.objects.all().delete()
    job = a_job(a_tenant("lazy"), gpus=[2], samples=10_000, sites_allow=["fast"])
    a_round(later(20))
    lease = live_lease(job)
    agent = SimAgent(fast)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(25), samples=10_000, speed=4000.0)
    a_round(later(31))
    contracts_hold_over(now=later(35))
    lease.refresh_from_db()
    assert lease.revoke_asked_at is None  # it may be writing its results
    now = later(31 + END_SLACK_S + 3 * a_venue().round_s)
    contracts_hold_over(now=now)
    lease.refresh_from_db()
    assert lease.revoke_code == "work_done"
    agent.report(lease, now, samples=10_000, ending=Ending("revoked"))
    job.refresh_from_db()
    assert (job.state, job.reason_code) == ("succeeded", "work_done")
    pay(now)
    assert trial_balance().holds


def test_a_last_lap_that_takes_far_too_long_bids_again(market):
    fast, _, _ = market
    Job.objects.all().delete()
    job = a_job(a_tenant("slow"), gpus=[2], samples=50_000, sites_allow=["fast"])
    a_round(later(20))
    lease = live_lease(job)
    agent = SimAgent(fast)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(29), samples=40_000, speed=4000.0)
    a_round(later(31))
    assert Contract.objects.get(lease=lease).to_end
    contracts_hold_over(now=later(500))
    contract = Contract.objects.get(lease=lease)
    assert not contract.to_end


def test_a_cancelled_round_s_snapshot_is_forgotten_after_its_retention(market):
    closed_round()
    assert rounds.snapshots_forget(now=later(10 * 365 * 86400)) == 1
    [snapshot] = Snapshot.objects.all()
    assert snapshot.body is None
    assert snapshot.sha256


def test_tenants_are_not_sold_more_than_their_funds():
    tenant = a_tenant("poor", credits=3)
    a_site("north", gpus=8, reserve="500", speeds={"cnn": 1000.0})
    for i in range(4):
        a_job(tenant, name=f"p{i}", value="400")
    a_round(later(20))
    held = sum(Contract.objects.values_list("payment_micro", flat=True))
    assert 0 < held <= 3_000_000
    codes = set(Job.objects.filter(state="pending").values_list("outcome_code", flat=True))
    assert codes <= {"no_funds", "budget", "priced_out"}
    assert trial_balance().holds
