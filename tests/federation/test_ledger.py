"""The ledger: balanced, append-only, and nobody spends what is not there."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError, IntegrityError

from federation.errors import Refused
from federation.models import Account, Entry, EntryGroup, Event
from federation.selectors.accounts import funds_micro, trial_balance
from federation.services import ledger
from tests.support.world import NOW, a_tenant, a_venue

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


@pytest.mark.parametrize("table", ["federation_entry", "federation_entrygroup"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET {}", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_or_delete_an_entry(table, verb):
    a_tenant(credits=1)
    column = "amount_micro = 7" if table.endswith("entry") else "memo = 'x'"
    sql = verb.format(table, column)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(sql)
    assert Entry.objects.count() == 2


@pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="a deferred check exists on PostgreSQL only"
)
def test_postgresql_refuses_to_commit_a_group_that_does_not_balance():
    cash, _ = purses(a_tenant(credits=1))
    group = EntryGroup.objects.create(key="raw", kind="hold", currency="cash", created_at=NOW)
    connection.cursor().execute("SET CONSTRAINTS ALL IMMEDIATE")
    with pytest.raises(DatabaseError, match="does not sum to zero"), transaction.atomic():
        Entry.objects.create(group=group, account=cash, amount_micro=3)


def test_a_wrong_balance_is_seen_by_the_trial_balance():
    cash, _ = purses(a_tenant(credits=1))
    Account.objects.filter(pk=cash.pk).update(balance_micro=5)
    assert not trial_balance().holds
