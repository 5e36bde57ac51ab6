"""Reports: any order, any repetition, the same end."""

from __future__ import annotations

import itertools
import random

import pytest

from federation.models import Contract, Job, Report
from federation.selectors.accounts import trial_balance
from federation.selectors.jobs import job_log
from federation.services.leases import Ending
from federation.services.reports import LogPiece, ReportIn, reports_accept
from tests.support.world import SimAgent, a_job, a_round, a_site, a_tenant, later, live_lease, pay

pytestmark = pytest.mark.django_db


@pytest.fixture
def attempt(db):
    job = a_job(a_tenant("ann"), samples=8_000)
    agent = SimAgent(a_site("north"))
    a_round(later(20))
    agent.sync(later(21))
    agent.sync(later(21))
    return job, live_lease(job), agent


def outcome(job, lease):
    job.refresh_from_db()
    lease.refresh_from_db()
    [contract] = Contract.objects.filter(lease=lease)
    return (
        job.state,
        job.samples_done,
        lease.state,
        lease.samples,
        contract.delivered,
        contract.paid_micro,
        contract.refunded_micro,
        job.spent_micro,
        job.held_micro,
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_permutation_and_repetition_of_reports_ends_the_same(attempt, seed):
    job, lease, agent = attempt
    reports = [
        agent.make_report(lease, samples=0),
        agent.make_report(lease, samples=2_000, speed=900.0),
        agent.make_report(lease, samples=5_000, speed=950.0),
        agent.make_report(lease, samples=7_900, speed=960.0),
        agent.make_report(lease, samples=8_000, speed=960.0, ending=Ending("exited", 0)),
    ]
    shuffled = reports * 2
    random.Random(seed).shuffle(shuffled)
    for report in shuffled:
        reports_accept(site=agent.site, reports=[report], now=later(25))
        pay(later(25))
    reports_accept(site=agent.site, reports=reports, now=later(26))
    pay(later(27))
    [contract] = Contract.objects.filter(lease=lease)
    paid = contract.payment_micro
    assert outcome(job, lease) == (
        *("succeeded", 8_000, "done", 8_000, 8_000),
        *(paid, 0, paid, 0),
    )
    assert Report.objects.filter(lease=lease).count() == 5
    assert trial_balance().holds


def test_money_waits_until_every_report_before_the_last_is_there(attempt):
    _job, lease, agent = attempt
    first = agent.make_report(lease, samples=6_000)
    last = agent.make_report(lease, samples=6_000, ending=Ending("exited", 1))
    reports_accept(site=agent.site, reports=[last], now=later(25))
    pay(later(25))
    assert Contract.objects.get(lease=lease).state == "running"
    reports_accept(site=agent.site, reports=[first], now=later(26))
    pay(later(26))
    assert Contract.objects.get(lease=lease).state == "settled"


def test_reports_that_never_come_do_not_keep_money_for_ever(attempt):
    _job, lease, agent = attempt
    agent.make_report(lease, samples=6_000)  # lost with the site's disk
    agent.report(lease, later(25), samples=6_500, ending=Ending("exited", 0))
    pay(later(26))
    assert Contract.objects.get(lease=lease).state == "running"
    pay(later(26 + 86_401))
    contract = Contract.objects.get(lease=lease)
    assert (contract.state, contract.delivered) == ("settled", 6_500)
    assert trial_balance().holds


def test_more_than_was_contracted_is_not_paid(attempt):
    _job, lease, agent = attempt
    contract = Contract.objects.get(lease=lease)
    agent.report(lease, later(25), samples=contract.contracted * 3, ending=Ending("exited", 0))
    pay(later(26))
    contract.refresh_from_db()
    assert contract.paid_micro == contract.payment_micro
    assert contract.refunded_micro == 0


def test_what_was_not_delivered_is_refunded(attempt):
    job, lease, agent = attempt
    agent.report(lease, later(25), samples=2_000, ending=Ending("exited", 9))
    pay(later(26))
    contract = Contract.objects.get(lease=lease)
    assert contract.paid_micro == contract.payment_micro * 2_000 // contract.contracted
    assert contract.paid_micro + contract.refunded_micro == contract.payment_micro
    job.refresh_from_db()
    assert (job.state, job.reason_code) == ("failed", "exit_9")


def test_another_site_s_reports_are_refused(attempt):
    job, lease, agent = attempt
    thief = a_site("south")
    report = agent.make_report(lease, samples=8_000)
    accepted = reports_accept(site=thief, reports=[report], now=later(25))
    assert [(r.accepted, r.code) for r in accepted.receipts] == [(False, "unknown_attempt")]
    job.refresh_from_db()
    assert job.samples_done == 0


@pytest.mark.parametrize(
    ("reason", "state"),
    [("driver_failed", "pending"), ("lost", "pending"), ("declined", "pending")],
)
def test_what_is_the_site_s_fault_puts_the_job_back_in_the_queue(attempt, reason, state):
    job, lease, agent = attempt
    agent.report(lease, later(25), samples=0, ending=Ending(reason, message="no such partition"))
    job.refresh_from_db()
    assert (job.state, job.site_failures) == (state, 1)


def test_a_job_that_sites_keep_losing_is_given_up_with_a_reason(attempt):
    job, _, agent = attempt
    now = 25.0
    while not Job.objects.get(pk=job.pk).ended_at:
        lease = live_lease(job)
        agent.report(lease, later(now), samples=0, ending=Ending("lost", message="gone"))
        now += 3_700  # past the hour in which the pool is not asked again
        agent.sync(later(now))
        a_round(later(now))
        agent.sync(later(now))
    job.refresh_from_db()
    assert (job.state, job.reason_code) == ("failed", "site_failures")
    assert job.attempts == 5


def test_a_site_that_declined_is_not_asked_again_soon(attempt):
    job, lease, agent = attempt
    agent.report(lease, later(25), samples=0, ending=Ending("declined", message="policy"))
    agent.sync(later(30))
    a_round(later(36))
    job.refresh_from_db()
    assert (job.state, job.outcome_code) == ("pending", "no_feasible_pool")


def test_logs_are_read_by_byte_offset_up_to_the_first_gap(attempt):
    job, lease, agent = attempt
    pieces = [LogPiece(0, b"hello ", False), LogPiece(11, b"!", True), LogPiece(6, b"world", False)]
    for seq, piece in enumerate(pieces[:2], start=1):
        send_log(agent, lease, seq, piece)
    page = job_log(job, attempt=None, offset=0, limit=100)
    assert (page.data, page.next_offset, page.truncated) == (b"hello ", 6, True)
    send_log(agent, lease, 3, pieces[2])
    assert job_log(job, attempt=None, offset=0, limit=100).data == b"hello world!"
    assert job_log(job, attempt=1, offset=8, limit=3).data == b"rld"
    for offset, limit in itertools.product(range(13), (1, 4, 100)):
        page = job_log(job, attempt=1, offset=offset, limit=limit)
        assert page.data == b"hello world!"[offset : offset + limit]


def send_log(agent, lease, seq, piece):
    report = ReportIn(lease.pk, seq, "log", None, None, piece, None, {})
    reports_accept(site=agent.site, reports=[report], now=later(22))
