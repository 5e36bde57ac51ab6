"""What moves money: escrow and bonds, corrections, earnest money, deposits and withdrawals."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from federation.errors import Refused
from federation.models import Account, Contract, EntryGroup, Epoch, Event, Job, Member, Rules
from federation.selectors.accounts import trial_balance
from federation.selectors.ledger import verify
from federation.services import ledger
from federation.services.escrow import Hold, Purses
from federation.services.rules import rules_of
from tests.federation.ledger_scene import (
    MICRO,
    a_contract,
    a_seller,
    balances,
    committed,
    some_history,
    unguarded,
)
from tests.support.world import NOW, a_job, a_member, a_round, a_tenant, a_venue, later

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _holds_at_the_end():
    yield
    committed()
    assert verify().findings == []
    assert trial_balance().holds


def refusal(action, *args, **named):
    with pytest.raises(Refused) as refused:
        action(*args, **named)
    return refused.value.code


def held(*, credits=1, credit_micro=MICRO, bond=20, price=100):
    contract = a_contract(a_tenant("ann", credits=credits), a_seller(credit_micro=credit_micro))
    hold = {"amount_micro": price, "bond_micro": bond, "key": "h", "now": NOW}
    assert ledger.escrow_hold(contract=contract, **hold)
    assert not ledger.escrow_hold(contract=contract, **hold)
    return contract


def settle(contract, pay, penalty, posting=1, price=100, bond=20):
    return ledger.escrow_settle(
        contract=contract,
        pay_micro=pay,
        refund_micro=price - pay,
        penalty_micro=penalty,
        bond_back_micro=bond - penalty,
        posting=posting,
        facts={"posting": posting},
        now=later(posting),
    )


def test_a_hold_moves_price_and_bond_in_one_group():
    held()
    assert balances() == {
        "issuance": -MICRO,
        "tenant_cash ann": MICRO - 100,
        "tenant_escrow ann": 100,
        "member_earnings alder": -20,
        "member_bond alder": 20,
    }
    assert EntryGroup.objects.filter(kind="hold").count() == 1


def test_a_bond_beyond_the_members_credit_is_refused_and_nothing_is_held():
    contract = a_contract(a_tenant("ann", credits=1), a_seller(credit_micro=19))
    before = balances()
    hold = {"contract": contract, "amount_micro": 100, "bond_micro": 20, "key": "h", "now": NOW}
    assert refusal(ledger.escrow_hold, **hold) == "bond_not_covered"
    assert balances() == before
    contract.lease.site.member.credit_micro = 20
    assert ledger.escrow_hold(**hold)


def test_the_credit_is_the_members_own_or_that_of_the_newest_rules():
    venue, member = a_venue(), a_member("birch")
    assert ledger.credit_limit(member, venue) == Rules().member_credit_micro
    rules = rules_of(venue, NOW)
    Rules.objects.create(
        **{"venue": venue, "version": rules.version + 1, "actor": "t", "why": "t"},
        **{"created_at": NOW, "member_credit_micro": 7},
    )
    assert ledger.credit_limit(member, venue) == 7
    member.credit_micro = 0
    assert ledger.credit_limit(member, venue) == 0


def test_a_price_the_tenant_has_not_is_refused():
    contract = a_contract(a_tenant("ann", credits=1), a_seller())
    hold = {"contract": contract, "amount_micro": MICRO + 1, "key": "h", "now": NOW}
    assert refusal(ledger.escrow_hold, **hold) == "insufficient_funds"


def test_a_settlement_divides_escrow_and_bond():
    contract = held()
    assert settle(contract, pay=70, penalty=5)
    assert not settle(contract, pay=70, penalty=5)
    assert balances() == {
        "issuance": -MICRO,
        "tenant_cash ann": MICRO - 65,
        "member_earnings alder": 65,
    }
    group = EntryGroup.objects.get(kind="settle")
    assert (group.key, group.facts) == (f"settle:{contract.pk}", {"posting": 1})


def test_a_later_settlement_moves_the_difference_and_names_what_it_reverses():
    contract = held()
    for posting, (pay, penalty) in enumerate([(70, 5), (40, 12), (100, 0)], start=1):
        assert settle(contract, pay, penalty, posting)
        assert balances().get("member_earnings alder", 0) == pay - penalty
        assert "tenant_escrow ann" not in balances()
        assert "member_bond alder" not in balances()
    first, second, third = EntryGroup.objects.filter(kind="settle").order_by("created_at")
    assert (first.reverses, second.reverses, third.reverses) == (None, first, second)
    assert not settle(contract, 100, 0, 4)  # the same figures again move nothing


def test_a_correction_needs_only_the_difference():
    contract = held(price=MICRO)
    settle(contract, MICRO // 2, 0, price=MICRO)
    ledger.withdraw(
        **{"tenant": contract.lease.job.tenant, "venue": a_venue(), "actor": "t", "now": NOW},
        **{"amount_micro": MICRO // 2 - 10, "key": "w"},
    )
    assert settle(contract, MICRO // 2 + 10, 0, 2, price=MICRO)
    with pytest.raises(Refused) as refused:
        settle(contract, MICRO // 2 + 11, 0, 3, price=MICRO)
    assert refused.value.code == "insufficient_funds"


def test_earnest_money_waits_in_escrow_and_becomes_part_of_the_price():
    tenant = a_tenant("ann", credits=1)
    contract = a_contract(tenant, a_seller())
    job = contract.lease.job
    for first in (True, False):
        assert ledger.earnest_hold(job=job, amount_micro=30, now=NOW) is first
    assert Job.objects.get(pk=job.pk).earnest_micro == 30
    ledger.escrow_hold(contract=contract, amount_micro=100, earnest_micro=30, key="h", now=NOW)
    assert balances()["tenant_escrow ann"] == 100
    small = a_contract(tenant, a_seller("cedar"))
    ledger.earnest_hold(job=small.lease.job, amount_micro=30, now=NOW)
    ledger.escrow_hold(contract=small, amount_micro=10, earnest_micro=30, key="h2", now=NOW)
    assert balances()["tenant_escrow ann"] == 110
    assert balances()["tenant_cash ann"] == MICRO - 110


def test_earnest_money_of_a_job_without_a_contract_is_given_back_once():
    job = a_job(a_tenant("ann", credits=1))
    assert not ledger.earnest_release(job=job, now=NOW)
    ledger.earnest_hold(job=job, amount_micro=30, now=NOW)
    assert [ledger.earnest_release(job=job, now=NOW) for _ in range(2)] == [True, False]
    assert balances() == {"issuance": -MICRO, "tenant_cash ann": MICRO}
    assert Job.objects.get(pk=job.pk).earnest_micro == 0


def test_earnest_money_that_the_tenant_has_not_is_refused():
    job = a_job(a_tenant("ann", credits=1))
    amount = {"amount_micro": MICRO + 1}
    assert refusal(ledger.earnest_hold, job=job, now=NOW, **amount) == "insufficient_funds"
    assert Job.objects.get(pk=job.pk).earnest_micro == 0


@pytest.mark.parametrize("who", ["tenant", "member"])
def test_what_is_withdrawn_leaves_a_line_in_the_audit_log_once(who):
    venue, tenant = a_venue(), a_tenant("ann", credits=1)
    member = a_member("alder")
    owner = {"tenant": tenant} if who == "tenant" else {"member": member}
    out = ledger.withdraw if who == "tenant" else ledger.member_withdraw
    named = {"venue": venue, "actor": "user:op", "now": NOW, **owner}
    if who == "member":
        ledger.member_deposit(amount_micro=MICRO, key="d", **named)
    assert [out(amount_micro=300, key="w", **named) for _ in range(2)] == [True, False]
    assert refusal(out, amount_micro=301, key="w", **named) == "withdrawal_conflict"
    assert refusal(out, amount_micro=MICRO, key="x", **named) == "insufficient_funds"
    for amount, key, code in ((0, "x", "bad_amount"), (-5, "x", "bad_amount"), (5, "", "bad_key")):
        assert refusal(out, amount_micro=amount, key=key, **named) == code
    purse = "tenant_cash ann" if who == "tenant" else "member_earnings alder"
    assert balances()[purse] == MICRO - 300
    assert Event.objects.filter(subject=who, event="withdrawal", actor="user:op").count() == 1


def test_earnings_below_zero_are_not_withdrawn():
    contract = held()
    member = contract.lease.site.member
    named = {"member": member, "venue": a_venue(), "actor": "t", "now": NOW}
    code = refusal(ledger.member_withdraw, amount_micro=1, key="w", **named)
    assert code == "insufficient_funds"


def test_what_a_decision_may_take_back_is_not_withdrawn():
    contract = held(credit_micro=0, bond=0)
    settle(contract, 70, 0, bond=0)
    rows = Contract.objects.filter(pk=contract.pk)
    rows.update(state="settled", paid_micro=70, refunded_micro=30, final_at=later(100))
    tenant, member = contract.lease.job.tenant, contract.lease.site.member
    common = {"venue": a_venue(), "actor": "t"}

    def takes_all(at):
        out = {**common, "now": later(at)}
        yield refusal(ledger.withdraw, tenant=tenant, amount_micro=MICRO - 99, key="w", **out)
        yield refusal(ledger.member_withdraw, member=member, amount_micro=1, key="w", **out)

    assert list(takes_all(50)) == ["not_final", "not_final"]
    rows.update(state="disputed")
    assert list(takes_all(150)) == ["not_final", "not_final"]
    rows.update(state="final")
    late = {**common, "now": later(150)}
    assert ledger.withdraw(tenant=tenant, amount_micro=MICRO - 99, key="w", **late)
    assert ledger.member_withdraw(member=member, amount_micro=70, key="w", **late)


def test_a_dividend_is_posted_once_and_sums_to_zero():
    venue = a_venue()
    epoch = Epoch.objects.create(
        **{"venue": venue, "rules": rules_of(venue, NOW), "number": 1, "starts_at": NOW},
        **{"ends_at": NOW, "rounds": 1, "document": {}, "sha256": "d", "created_at": NOW},
    )
    one, two = a_member("alder"), a_member("birch")
    for first in (True, False):
        done = ledger.dividend_post(epoch=epoch, transfers={one: -9, two: 9}, now=NOW)
        assert done is first
    assert balances() == {"member_earnings alder": -9, "member_earnings birch": 9}
    with pytest.raises(ValueError, match="sum to zero"):
        ledger.dividend_post(epoch=epoch, transfers={one: -9}, now=NOW)


def test_many_holds_are_the_groups_of_single_ones():
    tenant, site = a_tenant("ann", credits=1), a_seller(credit_micro=25)
    contracts = [a_contract(tenant, site) for _ in range(3)]
    member = site.member_id
    a_round(later(20))
    round = site.venue.rounds.order_by("number").first()
    with transaction.atomic():
        purses = Purses({tenant.pk}, round, {member})
        assert purses.take(tenant.pk, MICRO)
        assert not purses.take(tenant.pk, 1)
        assert purses.take(tenant.pk, -MICRO)
        assert [purses.bond(member, 10, 25) for _ in contracts] == [True, True, False]
        assert purses.bond(member, 0, 0)
        purses.hold(
            [Hold(c.pk, tenant.pk, 100, member, 10) for c in contracts[:2]]
            + [Hold(contracts[2].pk, tenant.pk, 0)],
            NOW,
        )
    assert balances()["member_bond alder"] == 20
    assert balances()["member_earnings alder"] == -20
    assert balances()["tenant_escrow ann"] == 200
    keys = set(EntryGroup.objects.filter(kind="hold").values_list("key", flat=True))
    assert keys == {f"hold:{c.pk}" for c in contracts[:2]}


def test_a_group_moves_one_currency():
    tenant = a_tenant("ann", credits=1)
    cash = ledger.account(Account.Kind.TENANT_CASH, "cash", now=NOW, tenant=tenant)
    other = ledger.account(Account.Kind.TENANT_CASH, "credits", now=NOW, tenant=tenant)
    with pytest.raises(ValueError, match="two currencies"):
        ledger.post(
            key="x", kind="hold", currency="cash", entries=[(cash, -1), (other, 1)], now=NOW
        )


def test_a_batch_is_posted_whole_or_not_at_all():
    tenant = a_tenant("ann", credits=1)
    cash, escrow = (
        ledger.account(kind, "cash", now=NOW, tenant=tenant)
        for kind in (Account.Kind.TENANT_CASH, Account.Kind.TENANT_ESCROW)
    )

    def hold(key, amount):
        return ledger.Posting(key, "hold", "cash", [(cash, -amount), (escrow, amount)])

    assert ledger.post_all([hold("a", 1), hold("a", 1), hold("b", 2), hold("c", 0)], now=NOW) == 2
    assert refusal(ledger.post_all, [hold("d", 5), hold("e", MICRO)], now=NOW)
    assert ledger.post_all([hold("a", 1), hold("d", 5)], now=NOW) == 1
    assert balances()["tenant_escrow ann"] == 8


def test_nobodys_purse_is_neither_paid_up_nor_out_and_rounding_stays_empty():
    cash = ledger.account(Account.Kind.ISSUANCE, "cash", now=NOW)
    rounding = ledger.account(Account.Kind.ROUNDING, "cash", now=NOW)
    from django.db import IntegrityError

    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.post(
            **{"key": "x", "kind": "hold", "currency": "cash", "now": NOW},
            entries=[(cash, -1), (rounding, 1)],
        )
    assert not Member.objects.filter(accounts__kind="rounding").exists()


def test_money_in_transit_is_seen_without_the_guards():
    some_history()
    with unguarded(), transaction.atomic():
        connection.cursor().execute(
            "UPDATE federation_account SET balance_micro = balance_micro + 1 "
            "WHERE kind = 'issuance'"
        )
        found = verify().findings
        transaction.set_rollback(True)
    assert any("all purses together" in finding for finding in found)
