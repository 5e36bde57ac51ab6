"""Settlement with faults: workers that die anywhere, and many that do the same at once."""

from __future__ import annotations

import pytest
from django.db import transaction

from federation.errors import InvalidTransition, Refused
from federation.models import Account, Contract, Dispute, EntryGroup, Job, Lease
from federation.selectors.contracts import job_differences, recompute
from federation.services.contracts import (
    contract_open,
    contracts_finalise,
    contracts_measure,
    contracts_settle,
)
from federation.services.counts import count_add
from federation.services.disputes import dispute_decide, dispute_open
from federation.services.leases import Ending
from federation.services.reports import reports_accept
from tests.federation.contract_scene import EXAMPLE, HOUR, a_scene, the_ledger_holds
from tests.federation.crashes import dies_everywhere
from tests.support.together import together
from tests.support.world import later, pay

MANY = 6
SHORT = 2_384_640


def books():
    """Everything about money, without the ids that are drawn anew."""
    return (
        sorted(Account.objects.values_list("kind", "balance_micro")),
        sorted(EntryGroup.objects.values_list("kind", "key")),
        sorted(
            Contract.objects.values_list(
                *("pk", "state", "payment_micro", "bond_micro", "paid_micro", "penalty_micro"),
                "postings",
            )
        ),
        sorted(Job.objects.values_list("pk", "held_micro", "spent_micro")),
    )


def consistent():
    the_ledger_holds()
    for contract in Contract.objects.all():
        assert recompute(contract).differences == ()
        assert job_differences(contract.lease.job) == ()


def a_measured_scene():
    scene = a_scene()
    scene.say(3600, SHORT, gpu_seconds=8 * HOUR)
    scene.next(3660)
    scene.say(3661, 1, total=SHORT + 1)
    contracts_measure(now=later(3700))
    return scene


def an_objection(scene):
    return dispute_open(
        contract=scene.contracts[0],
        by="tenant",
        actor="user:t",
        code="less",
        why="less",
        claimed=1,
        now=later(4000),
    )


def decided(dispute, accepted=1_000_000):
    return dispute_decide(
        dispute=dispute, accepted=accepted, cause="site", why="so", actor="o", now=later(5000)
    )


@pytest.mark.django_db
def test_a_worker_may_die_anywhere_between_hold_and_post():
    """From the opening on: each step dies before its every statement, and is then done again."""
    scene = a_scene()
    scene.say(3600, SHORT, gpu_seconds=8 * HOUR)
    terms = {**EXAMPLE, "ends_at": later(7260), "now": later(3660)}

    def hold():
        with transaction.atomic():
            lease = Lease.objects.get(pk=scene.lease.pk)
            scene.contracts[1:] = [contract_open(lease=lease, round=None, **terms)]

    def open_dispute():
        Dispute.objects.filter(state="open").exists() or an_objection(scene)

    report = None

    def say():
        nonlocal report
        report = report or scene.report(1, total=SHORT + 1)
        reports_accept(site=scene.agent.site, reports=[report], now=later(3661))

    def measure():
        contracts_measure(now=later(3700))

    steps = [
        hold,
        say,
        measure,
        lambda: contracts_settle(now=later(3700)),
        lambda: count_add(
            contract=scene.contracts[0],
            seq=1,
            samples=SHORT - 1000,
            last=True,
            actor="t",
            now=later(3800),
        ),
        open_dispute,
        lambda: decided(Dispute.objects.get()),
        lambda: contracts_finalise(now=later(10**7)),
    ]
    died = 0
    for step in steps:
        before = books()

        def nothing(before=before, step=step):
            consistent()
            if step is not measure:  # it looks for overdue ones when the others are measured
                assert books() == before

        died += dies_everywhere(step, nothing)
        consistent()
        assert books() != before
    assert died > 60
    first = Contract.objects.get(pk=scene.contracts[0].pk)
    assert (first.state, first.postings, first.accepted) == ("final", 3, 1_000_000)
    assert first.penalty_micro == first.bond_micro


@pytest.mark.django_db
def test_reports_that_come_twice_or_in_another_order_end_the_same():
    def ends(order):
        scene = a_scene()
        reports = [
            scene.report(100_000, gpu_seconds=800.0),
            scene.report(700_000, gpu_seconds=5600.0),
            scene.report(1_200_000, gpu_seconds=9000.0),
            scene.report(1_200_000, gpu_seconds=9600.0, ending=Ending("exited", 1)),
        ]
        for at in order:
            reports_accept(site=scene.agent.site, reports=[reports[at]], now=later(1300))
            pay(later(1300))
        consistent()
        contract = scene.contract
        return (
            *(contract.state, contract.cause, contract.paid_micro, contract.penalty_micro),
            contract.refunded_micro,
        )

    found = {
        ends(order) for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 2, 0, 3, 1, 3), (3, 0, 3, 1, 2))
    }
    assert found == {("settled", "tenant", 31_014_814, 0, 35_977_186)}


# --- many at once ----------------------------------------------------------------------------

at_once = pytest.mark.usefixtures("ledger_may_be_flushed")
real_commits = pytest.mark.django_db(transaction=True)


@real_commits
@at_once
def test_workers_that_settle_one_contract_pay_it_once():
    scene = a_measured_scene()
    won = together(MANY, lambda _: contracts_settle(now=later(3700)))
    assert sum(len(settled) for settled in won) == 1
    assert EntryGroup.objects.filter(kind="settle").count() == 1
    consistent()
    assert scene.contracts[0].pk == won[[bool(w) for w in won].index(True)][0].pk


@real_commits
@at_once
def test_an_objection_while_it_is_settled_is_before_it_or_after():
    scene = a_measured_scene()

    def act(number):
        if number % 2:
            return contracts_settle(now=later(3700))
        try:
            return an_objection(scene)
        except Refused as refusal:
            return refusal.code

    answers = together(MANY, act)
    assert sum(isinstance(answer, Dispute) for answer in answers) == 1
    contract = Contract.objects.get(pk=scene.contracts[0].pk)
    assert contract.state == "disputed"
    consistent()
    decided(Dispute.objects.get())
    contract.refresh_from_db()
    assert contract.accepted == 1_000_000
    consistent()


@real_commits
@at_once
def test_a_last_count_while_it_is_settled_counts_either_way():
    scene = a_measured_scene()
    lower = SHORT - 10_000

    def act(number):
        if number % 2:
            return contracts_settle(now=later(3700))
        return count_add(
            contract=scene.contracts[0], seq=1, samples=lower, last=True, actor="t", now=later(3700)
        )

    together(MANY, act)
    contracts_settle(now=later(3701))
    contract = Contract.objects.get(pk=scene.contracts[0].pk)
    assert (contract.state, contract.accepted) == ("settled", lower)
    assert contract.counts.count() == 1
    consistent()


@real_commits
@at_once
def test_two_decisions_at_once_are_one():
    scene = a_measured_scene()
    contracts_settle(now=later(3700))
    dispute = an_objection(scene)

    def act(number):
        try:
            return decided(dispute, accepted=1_000_000 + number).accepted
        except (Refused, InvalidTransition):
            return None

    [accepted] = [answer for answer in together(MANY, act) if answer is not None]
    contract = Contract.objects.get(pk=scene.contracts[0].pk)
    assert (contract.accepted, contract.postings) == (accepted, 2)
    consistent()


@real_commits
@at_once
def test_many_workers_finalise_each_contract_once():
    a_measured_scene()
    contracts_settle(now=later(3700))
    done = together(MANY, lambda _: contracts_finalise(now=later(10**7)))
    assert sum(len(final) for final in done) == 1
