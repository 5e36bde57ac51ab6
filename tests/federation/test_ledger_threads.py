"""Many writers of one ledger, with real connections and real commits: one chain, no deadlock."""

from __future__ import annotations

import random
import threading

import pytest
from django.db import connection, transaction

from federation.errors import Refused
from federation.models import Account, EntryGroup, Link, Round
from federation.selectors.accounts import trial_balance
from federation.selectors.ledger import verify
from federation.services import ledger
from federation.services.entries import Posting
from tests.support.together import together
from tests.support.world import NOW, a_tenant, a_venue, later

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
MANY, EACH = 8, 25


def purses(currency="cash", count=4, funds=10**9):
    found = []
    for at in range(count):
        tenant = a_tenant(f"{currency}{at}", credits=0)
        cash, escrow, source = (
            ledger.account(kind, currency, now=NOW, tenant=owner)
            for kind, owner in (
                (Account.Kind.TENANT_CASH, tenant),
                (Account.Kind.TENANT_ESCROW, tenant),
                (Account.Kind.ISSUANCE, None),
            )
        )
        given = [(source, -funds), (cash, funds)]
        key = f"given:{currency}:{at}"
        ledger.post(key=key, kind="deposit", currency=currency, entries=given, now=NOW)
        found += [cash, escrow]
    return found


def posting(key, first, second, amount, **fields):
    moved = [(first, -amount), (second, amount)]
    return Posting(key, "hold", first.currency, moved, **fields)


def test_eight_writers_of_the_same_purses_make_one_chain():
    by_currency = [purses("cash"), purses("credits")]

    def write(number):
        draw, done = random.Random(number), 0
        for at in range(EACH):
            some = by_currency[draw.randrange(2)]
            batch = []
            for part in range(draw.randrange(1, 4)):
                # half of the keys are those of another writer too
                writer = number if draw.random() < 0.5 else number ^ 1
                first, second = draw.sample(some, 2)
                if first.kind == Account.Kind.TENANT_ESCROW:
                    first, second = second, first
                batch.append(posting(f"{writer}:{at}:{part}", first, second, draw.randrange(1, 9)))
            if all(p.entries[0][0].kind == Account.Kind.TENANT_CASH for p in batch):
                done += ledger.post_all(batch, now=later(at))
        return done

    done = sum(together(MANY, write))
    assert EntryGroup.objects.filter(kind="hold").count() == done > MANY
    assert Link.objects.count() == EntryGroup.objects.count()
    assert verify().findings == []
    assert trial_balance().holds


def test_one_key_posted_by_all_at_once_is_posted_once():
    cash, escrow, *others = purses()

    def write(number):
        # half of them from other purses, so that no lock makes them wait for each other
        pair = (cash, escrow) if number % 2 else (others[0], others[1])
        return ledger.post_all([posting("same", *pair, 5)], now=NOW)

    assert sum(together(MANY, write)) == 1
    assert EntryGroup.objects.filter(key="same").count() == 1
    assert verify().findings == []


def test_one_group_taken_back_by_all_at_once_is_taken_back_once():
    purses(count=1)
    group = EntryGroup.objects.get()

    def write(number):
        named = {"memo": "wrong", "actor": "t", "now": NOW}
        try:
            return ledger.reverse(group=group, key=f"reversal:{number}", **named)
        except Refused as refused:
            return refused.code

    assert sorted(together(MANY, write), key=str) == [True, *["already_reversed"] * (MANY - 1)]
    assert EntryGroup.objects.count() == 2
    assert verify().findings == []


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite locks no rows")
def test_who_commits_holds_the_chain_only_when_it_waits_for_nothing_else():
    """One has a round locked and has yet to commit; the other's commit must check that round.

    Were the chain taken for the other's first group before the round of its second is checked,
    each would wait for the other.
    """
    one, two, three, four = purses(count=2)
    venue = a_venue()
    first, second = (
        Round.objects.create(
            venue=venue, number=number, state="settled", closes_at=NOW, created_at=NOW
        ).pk
        for number in (901, 902)
    )
    locked = threading.Event()

    def write(number):
        if number == 0:
            with transaction.atomic():
                Round.objects.select_for_update().get(pk=first)
                ledger.post_all([posting("a", one, two, 1)], now=NOW)
                locked.set()
                assert somebody_waits()
            return True
        assert locked.wait(timeout=30)
        with transaction.atomic():
            ledger.post_all([posting("b", three, four, 1, round_id=second)], now=NOW)
            ledger.post_all([posting("c", three, four, 1, round_id=first)], now=NOW)
        return True

    assert together(2, write) == [True, True]
    assert EntryGroup.objects.filter(kind="hold").count() == 3
    assert verify().findings == []


def somebody_waits():
    """True once another connection waits for a lock."""
    for _ in range(100_000):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return True
    return False
