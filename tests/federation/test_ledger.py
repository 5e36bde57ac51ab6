"""The ledger: balanced, append-only, and nobody spends what is not there."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError, IntegrityError

from federation.errors import Refused
from federation.ledger_rows import link
from federation.models import (
    Account,
    Consent,
    Contract,
    Count,
    Dispute,
    Entry,
    EntryGroup,
    Event,
    Evidence,
    Rules,
)
from federation.selectors.accounts import funds_micro, trial_balance
from federation.services import ledger
from tests.federation.ledger_scene import committed, some_history
from tests.support.world import NOW, a_member, a_tenant, a_venue

pytestmark = pytest.mark.django_db


def purses(tenant):
    cash = ledger.account(Account.Kind.TENANT_CASH, "cash", now=NOW, tenant=tenant)
    escrow = ledger.account(Account.Kind.TENANT_ESCROW, "cash", now=NOW, tenant=tenant)
    return cash, escrow


def test_a_deposit_is_posted_once_for_each_key_and_leaves_an_audit_entry():
    tenant = a_tenant(credits=0)
    for _ in range(3):
        ledger.deposit(
            tenant=tenant, venue=a_venue(), amount_micro=5, key="k", actor="user:op", now=NOW
        )
    assert funds_micro(tenant, a_venue()) == 5
    assert Event.objects.filter(subject="tenant", event="deposit", actor="user:op").count() == 1
    assert trial_balance().holds


@pytest.mark.parametrize("amount", [0, -1, 10**16])
def test_an_absurd_deposit_is_refused(amount):
    tenant = a_tenant(credits=0)
    with pytest.raises(Refused, match="positive sum"):
        ledger.deposit(
            tenant=tenant, venue=a_venue(), amount_micro=amount, key="k", actor="t", now=NOW
        )
    assert not EntryGroup.objects.exists()


def test_a_group_that_does_not_balance_is_refused_before_it_is_written():
    cash, escrow = purses(a_tenant())
    with pytest.raises(ValueError, match="sum to zero"):
        ledger.post(
            key="x", kind="hold", currency="cash", entries=[(cash, -5), (escrow, 4)], now=NOW
        )
    assert not EntryGroup.objects.filter(key="x").exists()


def test_a_tenant_cannot_promise_more_than_it_has_and_nothing_is_half_written():
    tenant = a_tenant(credits=1)
    cash, escrow = purses(tenant)
    with pytest.raises(Refused) as refusal:
        ledger.post(
            key="x",
            kind="hold",
            currency="cash",
            entries=[(cash, -1_000_001), (escrow, 1_000_001)],
            now=NOW,
        )
    assert refusal.value.code == "insufficient_funds"
    assert not EntryGroup.objects.filter(key="x").exists()
    assert trial_balance().holds


def test_the_database_itself_refuses_a_negative_purse():
    cash, _ = purses(a_tenant(credits=1))
    with pytest.raises(IntegrityError), transaction.atomic():
        Account.objects.filter(pk=cash.pk).update(balance_micro=-1)


COLUMNS = {
    "federation_entry": "amount_micro = 7",
    "federation_entrygroup": "memo = 'x'",
    "federation_link": "digest = 'x'",
    "federation_rules": "alpha_ppm = 7",
    "federation_consent": "actor = 'x'",
    "federation_evidence": "text = 'x'",
    "federation_count": "samples = 7",
}


def one_row_of_each():
    """A row in every table whose rows nobody changes."""
    some_history()
    rules = Rules.objects.create(venue=a_venue(), version=99, actor="t", why="t", created_at=NOW)
    Consent.objects.create(rules=rules, member=a_member("alder"), actor="t", created_at=NOW)
    contract = Contract.objects.get()
    dispute = Dispute.objects.create(
        contract=contract, by="tenant", actor="t", code="c", why="w", created_at=NOW
    )
    Evidence.objects.create(dispute=dispute, actor="t", text="t", created_at=NOW)
    Count.objects.create(contract=contract, seq=1, samples=1, actor="t", created_at=NOW)


@pytest.mark.parametrize("table", list(COLUMNS))
@pytest.mark.parametrize("verb", ["UPDATE {} SET {}", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_or_delete_what_is_on_record(table, verb):
    one_row_of_each()
    before = rows(table)
    assert before
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(verb.format(table, COLUMNS[table]))
    assert rows(table) == before


def rows(table):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY 1")
        return cursor.fetchall()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no TRUNCATE")
@pytest.mark.parametrize("table", [*COLUMNS, "federation_chainhead"])
def test_postgresql_refuses_to_empty_a_table_of_records(table):
    connection.check_constraints()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE federation_chainhead SET digest = 'x'",
        "UPDATE federation_chainhead SET position = position - 1",
        "UPDATE federation_chainhead SET position = position + 1, currency = 'other'",
        "DELETE FROM federation_chainhead",
    ],
)
def test_the_head_of_a_chain_only_advances(statement):
    some_history()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(statement)


def test_a_group_that_is_linked_takes_no_more_entries():
    some_history()
    cash, escrow = purses(a_tenant())
    group = EntryGroup.objects.filter(kind="hold").get()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Entry.objects.bulk_create(
            Entry(group=group, account=purse, amount_micro=amount)
            for purse, amount in ((cash, -1), (escrow, 1))
        )


@pytest.mark.parametrize(("moves", "why"), [((3,), "sum to zero"), ((), "no entries|sum to zero")])
def test_the_database_links_no_group_that_does_not_balance(moves, why):
    cash, _ = purses(a_tenant(credits=1))
    committed()
    group = EntryGroup.objects.create(key="raw", kind="hold", currency="cash", created_at=NOW)
    for amount in moves:
        Entry.objects.create(group=group, account=cash, amount_micro=amount)
    with pytest.raises(DatabaseError, match=why), transaction.atomic():
        link_now(group)
    Entry.objects.bulk_create(  # so that the test's own transaction can end
        Entry(group=group, account=purse, amount_micro=amount)
        for purse, amount in zip(purses(a_tenant()), (1 - sum(moves), -1), strict=True)
    )


@pytest.mark.parametrize("currencies", [("cash", "credits"), ("credits", "credits")])
def test_the_database_links_no_group_of_another_currency(currencies):
    tenant = a_tenant()
    committed()
    group = EntryGroup.objects.create(key="raw", kind="hold", currency="cash", created_at=NOW)
    accounts = [
        Account.objects.create(kind=kind, currency=currency, tenant=tenant, created_at=NOW)
        for kind, currency in zip(("a", "b"), currencies, strict=True)
    ]
    with pytest.raises(DatabaseError, match="two currencies"), transaction.atomic():
        linked_with(group, accounts)
    for account, amount in zip(purses(a_tenant()), (-3, 3), strict=True):
        Entry.objects.create(group=group, account=account, amount_micro=amount)


def linked_with(group, accounts):
    for account, amount in zip(accounts, (-3, 3), strict=True):
        Entry.objects.create(group=group, account=account, amount_micro=amount)
    link_now(group)


def link_now(group):
    if connection.vendor == "sqlite":
        link(connection, [group.pk.hex])
    committed()


def test_a_wrong_balance_is_seen_by_the_trial_balance():
    cash, _ = purses(a_tenant(credits=1))
    Account.objects.filter(pk=cash.pk).update(balance_micro=5)
    assert not trial_balance().holds
