"""The chain of the ledger: both databases spell it alike, and nothing stored can be changed."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from federation import ledger_guard, ledger_rows
from federation.ledger_chain import LinkedGroup, digest_of, group_text, in_order, plain_facts
from federation.models import Account, ChainHead, Entry, EntryGroup, Link
from federation.selectors.ledger import verify
from federation.services import ledger
from tests.federation.ledger_scene import balances, committed, some_history, unguarded
from tests.support.world import NOW, a_tenant, a_venue

db = pytest.mark.django_db


@db
def test_the_chain_of_a_history_holds_and_ends_at_its_head():
    some_history()
    found = verify()
    assert found.findings == []
    assert found.holds
    [head] = found.heads
    stored = ChainHead.objects.get(currency="cash")
    assert (head.position, head.digest) == (stored.position, stored.digest)
    assert head.position == found.groups == EntryGroup.objects.count() == 6
    assert found.entries == Entry.objects.count()


@db
def test_a_digest_is_the_sha256_of_a_text_that_anybody_can_spell():
    ledger.deposit(
        tenant=a_tenant("ann", credits=0),
        venue=a_venue(),
        amount_micro=5,
        key="k",
        actor="Zoë",
        now=datetime(2026, 3, 1, 0, 0, 0, 7, tzinfo=UTC),
    )
    committed()
    group = EntryGroup.objects.get()
    entries = ";".join(
        f"{entry.pk},{purse.pk},{len(purse.kind)}:{purse.kind},{purse.tenant_id or ''},"
        f"{purse.member_id or ''},"
        f"{round(purse.created_at.timestamp() * 10**6)},{entry.amount_micro}"
        for entry in group.entries.select_related("account").order_by("account_id")
        for purse in (entry.account,)
    )
    parts = ["", "1", str(group.pk), group.key, "deposit", "cash", "1772323200000007", "by Zoë"]
    parts += ["", "", "", "{}", entries]
    text = "".join(f"{len(part.encode())}:{part}" for part in parts)
    assert group.link.digest == hashlib.sha256(text.encode()).hexdigest()


TEXTS = st.text(alphabet="a:1é\U0001f600 ", max_size=4)


@given(st.lists(st.tuples(*[TEXTS] * 3), min_size=2, max_size=2, unique=True))
def test_different_groups_never_have_the_same_text(pair):
    one, other = (
        LinkedGroup("1", "g", key, "hold", "cash", "0", memo, "", "", "", facts, "e")
        for key, memo, facts in pair
    )
    assert group_text(one) != group_text(other)
    assert digest_of("", one) != digest_of("", other)
    assert digest_of("a", one) != digest_of("b", one)


FACTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    # PostgreSQL keeps no zero byte and no half of a character
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('abé\U0001f600\n"', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@db
def test_facts_of_every_kind_are_kept_and_linked():
    tenant = a_tenant(credits=1)
    cash, escrow = (
        ledger.account(kind, "cash", now=NOW, tenant=tenant)
        for kind in (Account.Kind.TENANT_CASH, Account.Kind.TENANT_ESCROW)
    )
    number = iter(range(10_000))

    @given(st.dictionaries(st.text('abé\U0001f600\n"', max_size=3), FACTS, max_size=3))
    def posted(facts):
        key = f"x{next(number)}"
        moves = [(cash, -1), (escrow, 1)]
        assert ledger.post(
            key=key, kind="hold", currency="cash", entries=moves, facts=facts, now=NOW
        )
        assert EntryGroup.objects.get(key=key).facts == plain_facts(facts)

    posted()
    committed()
    assert verify().findings == []


def test_facts_keep_no_float_and_nothing_unknown():
    facts = plain_facts({"bb": 0.1, "a": (1, uuid.UUID(int=3)), "c": NOW, "d": True})
    assert facts == {
        "a": [1, "00000000-0000-0000-0000-000000000003"],
        "bb": "0.1",
        "c": "2026-11-21T12:00:00+00:00",
        "d": True,
    }
    assert list(facts) == ["a", "c", "d", "bb"]
    assert in_order({"é": 1, "b": 2, "ab": 3}) == {"b": 2, "ab": 3, "é": 1}
    with pytest.raises(TypeError, match="set"):
        plain_facts({"a": {1}})


def altered(value):
    """Values that differ from a stored one in one byte, or by the least there is."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, datetime):
        return [value + timedelta(microseconds=1)]
    if isinstance(value, uuid.UUID):
        return [uuid.UUID(int=value.int ^ (1 << bit)) for bit in (0, 61, 127)]
    other = {"0": "1", "a": "b", " ": "\t"}
    spots = range(len(value)) if len(value) < 80 else range(0, len(value), 7)
    return [value[:at] + other.get(value[at], "0") + value[at + 1 :] for at in spots]


def stored(table, key, row_id):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} WHERE {key} = %s", [row_id])
        names = [column[0] for column in cursor.description]
        found = cursor.fetchone()
        return dict(zip(names, found, strict=True)) if found else None


def one_row(table, where=""):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} {where} ORDER BY 1 LIMIT 1")
        names = [column[0] for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))


CHANGED = {
    "federation_entrygroup": "WHERE kind = 'settle' AND reverses_id IS NOT NULL",
    "federation_entry": "WHERE amount_micro > 0",
    "federation_link": "WHERE position = 3",
    "federation_chainhead": "",
    "federation_account": "WHERE kind = 'tenant_cash'",
}


@db
@pytest.mark.parametrize("table", list(CHANGED))
def test_any_byte_that_is_changed_behind_the_ledgers_back_is_seen(table):
    some_history()
    row = one_row(table, CHANGED[table])
    key = "currency" if table.endswith("head") else "group_id" if table.endswith("link") else "id"
    seen = 0
    with unguarded():
        for name, value in row.items():
            for other in altered(value):
                if unseen(table, name, key, row, other):
                    pytest.fail(f"{table}.{name}: {value!r} became {other!r} unseen")
                seen += 1
    assert seen > len(row)
    assert verify().holds


def unseen(table, name, key, row, other):
    """True when a changed value is stored and the ledger still seems to hold."""
    row_id = row[key]
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                if connection.vendor == "sqlite":
                    cursor.execute("PRAGMA defer_foreign_keys = ON")
                cursor.execute(f"UPDATE {table} SET {name} = %s WHERE {key} = %s", [other, row_id])
            same = stored(table, key, row_id) == row  # jsonb drops spaces that nobody wrote
            changed = [f for f in verify().findings if "guard" not in f]
            raise _Seen(same or bool(changed))
    except _Seen as seen:
        return not seen.args[0]
    except DatabaseError:
        return False  # its type or a constraint refuses the value: it cannot be stored


class _Seen(Exception):
    pass


@db
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM federation_link WHERE position = (SELECT max(position) FROM federation_link)",
        "DELETE FROM federation_entry WHERE id = (SELECT max(id) FROM federation_entry)",
        "DELETE FROM federation_chainhead",
        "UPDATE federation_link SET position = 11 - position WHERE position IN (5, 6)",
    ],
)
def test_what_is_taken_away_or_swapped_is_seen(statement):
    some_history()
    with unguarded():
        with transaction.atomic():
            if "11 -" in statement:
                swap()
            else:
                connection.cursor().execute(statement)
            found = [f for f in verify().findings if "guard" not in f]
            transaction.set_rollback(True)
        assert found


def swap():
    """Two links change places, digests and all."""
    with connection.cursor() as cursor:
        for old, new in ((5, 99), (6, 5), (99, 6)):
            cursor.execute(
                "UPDATE federation_link SET position = %s WHERE position = %s", [new, old]
            )


@db
def test_a_lost_guard_is_reported_by_name():
    some_history()
    with unguarded():
        missing = ledger_guard.missing(connection)
        assert any("entrygroup" in name for name in missing)
        assert not verify().holds
    assert ledger_guard.missing(connection) == []


@db
def test_what_was_there_before_the_chain_is_linked_in_the_order_of_its_entries():
    some_history()
    before = balances()
    places = list(Link.objects.order_by("position").values_list("group_id", "digest"))
    with unguarded(), connection.cursor() as cursor:
        for table in ("link", "chainhead"):
            cursor.execute(f"DELETE FROM federation_{table}")
    assert not verify().holds
    relink()
    assert verify().findings == []
    assert list(Link.objects.order_by("position").values_list("group_id", "digest")) == places
    assert balances() == before


def relink():
    """What the migration does with the groups of an older database."""
    migration = import_module("federation.migrations.0006_ledger_chain")
    migration.forwards(None, SimpleNamespace(connection=connection))
    committed()


@db
def test_a_group_nobody_linked_is_seen():
    some_history()
    with unguarded():
        group = EntryGroup.objects.create(key="raw", kind="hold", currency="cash", created_at=NOW)
        assert "group raw is not linked" in verify().findings
        EntryGroup.objects.filter(pk=group.pk).delete()
    assert ledger_rows.heads_read(connection)["cash"][0] == Link.objects.count()
