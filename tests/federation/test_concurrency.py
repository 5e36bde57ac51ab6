"""Many at once, with real connections and real commits: each thing happens once."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest

from federation.decision import decide
from federation.machines.lease import LIVE
from federation.models import (
    Assignment,
    Contract,
    EntryGroup,
    Job,
    Lease,
    Report,
    Round,
    Snapshot,
)
from federation.selectors.accounts import funds_micro, trial_balance
from federation.services import contracts, ledger, orders, rounds, syncs
from federation.services.jobs import JobDraft, job_cancel, job_submit
from federation.services.leases import Ending
from federation.services.reports import reports_accept
from tests.support.together import together
from tests.support.world import (
    HELLO,
    SimAgent,
    a_class,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
)

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
MANY = 8


def test_a_gate_closes_once_with_one_snapshot():
    a_job(a_tenant("ann"))
    a_site("north")
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    closed = together(MANY, lambda _: rounds.rounds_close(now=later(20)))
    assert sum(len(ids) for ids in closed) == 1
    assert Snapshot.objects.count() == 1


def test_one_open_round_for_each_venue():
    venue = a_venue()
    together(MANY, lambda _: rounds.round_ensure_open(venue=venue, now=later(0)))
    assert Round.objects.count() == 1


def test_two_workers_clear_one_round_with_one_result():
    for name in ("a", "b", "c"):
        a_job(a_tenant(name))
    a_site("north", gpus=2)
    a_site("south", gpus=2)
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    [round_id] = rounds.rounds_close(now=later(20))

    def work(_):
        claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=later(21))
        if claim is None:
            return False
        decision = decide(claim.book)
        return rounds.round_record(claim=claim, decision=decision, solve_s=1, now=later(22))

    assert sorted(together(MANY, work)) == [False] * (MANY - 1) + [True]
    together(MANY, lambda _: rounds.rounds_publish(now=later(23)))
    assert Assignment.objects.count() == 3
    assert Lease.objects.count() == Contract.objects.count() == 3
    assert EntryGroup.objects.filter(kind="hold").count() == 3
    assert trial_balance().holds


def test_two_agents_that_sync_at_once_do_not_both_get_a_lease():
    a_job(a_tenant("ann"))
    site = a_site("north")
    a_round(later(20))

    def look(number):
        return orders.orders_for_site(
            site=site, boot=f"journal-{number}.1", attempts=[], offer_digest="", now=later(21)
        ).wanted

    answers = together(MANY, look)
    assert sum(len(wanted) for wanted in answers) == 1


def test_twenty_submissions_with_one_key_are_one_job():
    tenant, venue = a_tenant("ann"), a_venue()
    a_class("cnn")
    draft = JobDraft(
        name="j",
        job_class="cnn",
        command="true",
        gpus=(1,),
        samples=1000,
        value=Decimal("5"),
        max_cost=Decimal("5"),
    )

    def submit(_):
        return job_submit(
            tenant=tenant, venue=venue, draft=draft, key="same", actor="t", now=later(0)
        )

    answers = together(20, submit)
    assert len({a.job.pk for a in answers}) == 1
    assert sum(a.created for a in answers) == 1
    assert Job.objects.count() == 1


def test_one_deposit_for_each_key():
    tenant, venue = a_tenant("ann", credits=0), a_venue()
    ledger.account("tenant_cash", "cash", now=later(0), tenant=tenant)

    def pay_in(_):
        return ledger.deposit(
            tenant=tenant, venue=venue, amount_micro=7, key="k", actor="t", now=later(0)
        )

    assert sum(together(MANY, pay_in)) == 1
    assert funds_micro(tenant, venue) == 7


def started(name="north"):
    job = a_job(a_tenant("ann"), samples=8_000)
    agent = SimAgent(a_site(name))
    a_round(later(20))
    agent.sync(later(21))
    agent.sync(later(21))
    return job, live_lease(job), agent


def test_a_batch_that_arrives_many_times_at_once_counts_once():
    job, lease, agent = started()
    batch = [
        agent.make_report(lease, samples=3_000),
        agent.make_report(lease, samples=8_000, ending=Ending("exited", 0)),
    ]
    together(MANY, lambda _: reports_accept(site=agent.site, reports=batch, now=later(25)))
    job.refresh_from_db()
    lease.refresh_from_db()
    assert (job.state, job.samples_done, lease.samples) == ("succeeded", 8_000, 8_000)
    assert (Report.objects.count(), lease.reports_stored) == (2, 2)

    together(MANY, lambda _: contracts.contracts_measure(now=later(26)))
    together(MANY, lambda _: contracts.contracts_settle(now=later(26)))
    job.refresh_from_db()
    [contract] = Contract.objects.all()
    assert (job.held_micro, job.spent_micro) == (0, contract.paid_micro)
    assert EntryGroup.objects.filter(kind="settle").count() == 1
    assert trial_balance().holds


def test_the_end_and_the_fence_at_the_same_moment_end_the_lease_once():
    job, lease, agent = started()
    report = agent.make_report(lease, samples=8_000, ending=Ending("exited", 0))
    for name in (syncs.GATEWAY, syncs.TICKS):
        syncs.pulse(name=name, now=later(0), gap_s=1e9)
        syncs.pulse(name=name, now=later(100), gap_s=1e9)

    def act(number):
        if number % 2:
            return syncs.leases_fence(now=later(100), gap_s=20)
        return reports_accept(site=agent.site, reports=[report], now=later(100)).ended

    facts = [fact for facts in together(MANY, act) for fact in facts]
    assert len(facts) == 1
    job.refresh_from_db()
    lease.refresh_from_db()
    assert (job.state, lease.state) in {("succeeded", "done"), ("pending", "fenced")}


def test_a_cancel_and_an_award_at_the_same_moment_leave_one_truth():
    tenant = a_tenant("ann")
    site = a_site("north")
    job = a_job(tenant)
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    [round_id] = rounds.rounds_close(now=later(20))
    claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=later(21))
    rounds.round_record(claim=claim, decision=decide(claim.book), solve_s=1, now=later(22))

    def act(number):
        if number % 2:
            return rounds.rounds_publish(now=later(23))
        return job_cancel(job=Job.objects.get(pk=job.pk), actor="t", now=later(23)).state

    together(2, act)
    syncs.site_synced(site=site, hello=HELLO, attempts=[], now=later(24))
    job.refresh_from_db()
    live = Lease.objects.filter(job=job, state__in=sorted(LIVE))
    assert job.state == "cancelled"
    assert not live.exists()
    for act_again in (contracts.contracts_measure, contracts.contracts_settle):
        act_again(now=later(25))
    assert trial_balance().holds
    job.refresh_from_db()
    assert job.held_micro == 0
