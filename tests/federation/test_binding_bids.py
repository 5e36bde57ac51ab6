"""After the gate a bid is binding; earnest money is held from submission to the first contract."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from federation.decision import decide
from federation.errors import Refused
from federation.models import Contract, Event, Job, Lease, Round, Rules
from federation.selectors.accounts import funds_micro, trial_balance
from federation.selectors.contracts import recompute
from federation.services import rounds
from federation.services.jobs import (
    binding_cancels,
    cancels_carry_out,
    earnests_release,
    job_cancel,
)
from federation.services.leases import Ending, revoke_ask
from federation.services.records import records_refit
from federation.snapshot import book_build
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
ROUND_COST = 10_000_000  #: 1 GPU for 10 s at a reserve of 3,600 credits per GPU-hour, micro


def gate(now):
    """Close the round; nothing is decided yet."""
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    [closed] = rounds.rounds_close(now=now)
    return Round.objects.get(pk=closed)


def decide_round(now):
    for round_id in rounds.rounds_due(now=now):
        claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=now)
        rounds.round_record(claim=claim, decision=decide(claim.book), solve_s=0.1, now=now)


def cancel(job, now):
    return job_cancel(job=Job.objects.get(pk=job.pk), actor="user:ann", now=now)


@pytest.fixture
def market(db):
    site = a_site("north", gpus=1, reserve="3600", speeds={"cnn": 1000.0})
    tenant = a_tenant("ann")
    return site, tenant


def test_before_the_gate_a_waiting_job_is_cancelled_at_once(market):
    _, tenant = market
    job = cancel(a_job(tenant), later(1))
    assert (job.state, job.reason_code, job.cancel_asked_at) == ("cancelled", "cancelled", None)


def test_a_bid_that_is_awarded_after_its_cancellation_costs_the_reserve_price(market):
    site, tenant = market
    rich = a_job(tenant, value="20000", samples=10**6)
    before = funds_micro(tenant, a_venue())
    gate(later(20))
    asked = cancel(rich, later(21))
    assert (asked.state, asked.reason_code) == ("pending", "cancel_after_gate")
    assert "is cancelled when that round is published" in asked.reason
    decide_round(later(22))
    rounds.rounds_publish(now=later(22))
    rich.refresh_from_db()
    assert (rich.state, rich.reason_code) == ("cancelled", "cancel_after_gate")
    lease = Lease.objects.get(job=rich)
    assert (lease.state, lease.started_at, lease.delivered_at) == ("revoked", None, None)
    assert SimAgent(site).sync(later(23)).wanted == ()  # the site is never asked to run it
    pay(later(24))
    contract = Contract.objects.get(lease=lease)
    assert (contract.state, contract.paid_micro, contract.delivered) == ("settled", ROUND_COST, 0)
    assert contract.penalty_micro in (0, None)
    rich.refresh_from_db()
    assert (rich.spent_micro, rich.held_micro) == (ROUND_COST, 0)
    assert before - funds_micro(tenant, a_venue()) == ROUND_COST
    assert trial_balance().holds


def test_a_price_above_the_reserve_is_not_what_the_cancelled_round_costs(market):
    _, tenant = market
    jobs = [a_job(tenant, value=value, samples=10**6) for value in ("20000", "19000")]
    gate(later(20))
    for job in jobs:
        cancel(job, later(21))
    decide_round(later(22))
    rounds.rounds_publish(now=later(22))
    pay(later(23))
    contract = Contract.objects.get()
    assert contract.price_micro > contract.reserve_micro == 3_600_000_000
    assert contract.payment_micro > contract.paid_micro == ROUND_COST
    assert set(Job.objects.values_list("state", flat=True)) == {"cancelled"}
    assert trial_balance().holds


def test_a_bid_that_is_not_awarded_is_cancelled_with_the_round_and_costs_nothing(market):
    _, tenant = market
    a_job(tenant, value="20000", samples=10**6)
    poor = a_job(tenant, value="4000", samples=10**6)
    gate(later(20))
    assert cancel(poor, later(21)).state == "pending"
    decide_round(later(22))
    rounds.rounds_publish(now=later(22))
    poor.refresh_from_db()
    assert (poor.state, poor.spent_micro, poor.held_micro) == ("cancelled", 0, 0)
    assert not Lease.objects.filter(job=poor).exists()


def test_a_job_that_the_book_does_not_hold_is_not_bound_by_it(market):
    _, tenant = market
    a_job(tenant, value="20000")
    gate(later(20))
    late = a_job(tenant, now=later(21))
    assert cancel(late, later(22)).state == "cancelled"


def test_a_repeat_changes_nothing_and_is_told_once(market):
    _, tenant = market
    job = a_job(tenant, value="20000")
    gate(later(20))
    first = cancel(job, later(21))
    again = cancel(job, later(25))
    assert again.cancel_asked_at == first.cancel_asked_at == later(21)
    assert Event.objects.filter(subject_id=str(job.pk), event="cancel_ask").count() == 1


def test_a_void_round_frees_its_bids_and_no_later_book_holds_them(market):
    _, tenant = market
    job = a_job(tenant, value="20000")
    round = gate(later(20))
    cancel(job, later(21))
    assert cancels_carry_out(now=later(22)) == []  # the round still holds it
    rounds.round_void(round=round, code="test", why="a test", now=later(23))
    keeps_the_gate_open = a_job(tenant, value="20000", now=later(23))
    rounds.round_ensure_open(venue=a_venue(), now=later(24))
    [closed] = rounds.rounds_close(now=later(40))
    claim = rounds.round_claim(round_id=closed, token=uuid.uuid4(), now=later(40))
    assert [row["id"] for row in claim.book["jobs"]] == [str(keeps_the_gate_open.pk)]
    assert cancels_carry_out(now=later(41)) == [job.pk]
    job.refresh_from_db()
    assert (job.state, job.spent_micro) == ("cancelled", 0)


def test_a_running_job_is_stopped_with_grace_as_before(market):
    site, tenant = market
    job = a_job(tenant, value="20000", samples=10**6)
    a_round(later(20))
    agent = SimAgent(site)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(live_lease(job), later(22), samples=100)
    assert cancel(job, later(23)).state == "cancelling"


def test_carrying_out_twice_is_carrying_out_once(market):
    _, tenant = market
    job = a_job(tenant, value="20000", samples=10**6)
    gate(later(20))
    cancel(job, later(21))
    decide_round(later(22))
    rounds.rounds_publish(now=later(22))
    round = Round.objects.get(state="published")
    assert binding_cancels(round=round, now=later(23)) == []
    pay(later(24))
    assert Contract.objects.get().paid_micro == ROUND_COST
    [record] = records_refit(now=later(25))
    assert (record.contracts, record.non_starts) == (0, 0)  # it says nothing of the site


@pytest.mark.parametrize("start", [0, 1])
def test_a_cancellation_and_a_gate_at_once_end_in_one_of_the_two_orders(
    ledger_may_be_flushed, start
):
    """Either the book does not hold the bid, or the job waits for the round: never neither."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer: the two cannot overlap")
    a_site("north", gpus=1, reserve="3600", speeds={"cnn": 1000.0})
    tenant = a_tenant("ann")
    job, _ = a_job(tenant, value="20000"), a_job(tenant, value="19000")
    rounds.round_ensure_open(venue=a_venue(), now=later(0))

    def closing():
        try:
            return rounds.rounds_close(now=later(20))
        finally:
            connection.close()

    def cancelling():
        try:
            return cancel(job, later(20))
        finally:
            connection.close()

    steps = [closing, cancelling] if start == 0 else [cancelling, closing]
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(step) for step in steps]:
            future.result()
    claim = rounds.round_claim(
        round_id=rounds.rounds_due(now=later(21))[0], token=uuid.uuid4(), now=later(21)
    )
    bids = {row["id"] for row in claim.book["jobs"]}
    job.refresh_from_db()
    assert (str(job.pk) in bids) == (job.state == "pending")
    assert (job.cancel_asked_at is not None) == (job.state == "pending")


# earnest money


def with_earnest(ppm):
    Rules.objects.create(
        venue=a_venue(), version=1, actor="test", why="a test", earnest_ppm=ppm, created_at=later(0)
    )


def test_no_earnest_money_is_held_by_default(market):
    _, tenant = market
    assert a_job(tenant).earnest_micro == 0


def test_earnest_money_is_held_at_submission_and_part_of_the_first_price(market):
    _, tenant = market
    with_earnest(100_000)
    job = a_job(tenant, value="20000", samples=10**6, max_cost="1000")
    job.refresh_from_db()
    assert job.earnest_micro == 100_000_000
    assert funds_micro(tenant, a_venue()) == 9_900_000_000
    a_round(later(20))
    job.refresh_from_db()
    contract = Contract.objects.get()
    assert (job.earnest_micro, job.held_micro) == (0, contract.payment_micro)
    assert funds_micro(tenant, a_venue()) == 10_000_000_000 - contract.payment_micro
    assert trial_balance().holds


def test_a_tenant_whose_funds_are_all_earnest_money_can_still_bid_with_it(market):
    tenant = a_tenant("bob", credits=100)
    with_earnest(1_000_000)
    job = a_job(tenant, value="20000", samples=10**6, max_cost="100")
    assert funds_micro(tenant, a_venue()) == 0
    a_round(later(20))
    assert live_lease(job).gpus == 1
    assert trial_balance().holds


def test_a_bid_may_spend_its_own_earnest_money_and_what_is_free_but_nobody_elses(market):
    tenant = a_tenant("bob", credits=110)
    with_earnest(500_000)
    dear = a_job(tenant, value="20000", samples=10**6, max_cost="100")
    cheap = a_job(tenant, value="19000", samples=10**6, max_cost="100")
    book = json.loads(book_build(venue=a_venue(), now=later(1)).text)
    budgets = {row["id"]: row["budget"] for row in book["jobs"]}
    # fifty of each are held already; the ten that are free go to the dearer bid
    assert budgets == {str(dear.pk): 60, str(cheap.pk): 50}


def test_a_tenant_without_the_earnest_money_cannot_submit(market):
    tenant = a_tenant("bob", credits=50)
    with_earnest(100_000)
    with pytest.raises(Refused) as refusal:
        a_job(tenant, max_cost="1000")
    assert refusal.value.code == "insufficient_funds"
    assert not Job.objects.filter(tenant=tenant).exists()
    assert trial_balance().holds


def test_a_job_that_ends_without_a_contract_gets_its_earnest_money_back(market):
    _, tenant = market
    with_earnest(100_000)
    job = a_job(tenant)
    cancel(job, later(1))
    assert earnests_release(now=later(2)) == [job.pk]
    assert earnests_release(now=later(3)) == []
    assert funds_micro(tenant, a_venue()) == 10_000_000_000
    assert trial_balance().holds


# after the publication, before the start


@pytest.mark.parametrize("taken", [False, True])
def test_a_cancellation_after_publication_and_before_the_start_costs_the_reserve_too(market, taken):
    site, tenant = market
    before = funds_micro(tenant, a_venue())
    job = a_job(tenant, value="20000", samples=10**6)
    a_round(later(20))
    lease, agent = live_lease(job), SimAgent(site)
    if taken:
        agent.sync(later(21))
    cancel(job, later(22))
    if taken:
        lease.refresh_from_db()
        agent.report(lease, later(23), samples=0, ending=Ending("never_started"))
    pay(later(24))
    contract = Contract.objects.get()
    assert (contract.state, contract.cause, contract.paid_micro) == (
        "settled",
        "tenant",
        ROUND_COST,
    )
    assert contract.penalty_micro == 0
    assert before - funds_micro(tenant, a_venue()) == ROUND_COST
    assert recompute(contract).differences == ()
    story = Event.objects.get(subject_id=str(contract.pk), event="measure")
    assert story.code == "cancel_before_start"
    assert trial_balance().holds


def test_one_that_is_outbid_before_the_start_costs_its_tenant_nothing(market):
    _, tenant = market
    job = a_job(tenant, value="20000", samples=10**6)
    a_round(later(20))
    revoke_ask(lease=live_lease(job), code="outbid", why="outbid", now=later(22))
    pay(later(24))
    assert Contract.objects.get().state == "voided"
    assert funds_micro(tenant, a_venue()) == 10_000_000_000
