"""Balanced groups of entries into the ledger: each once, all purses locked in one order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, connection, transaction

from federation.bulk import rows_among, rows_insert, rows_update
from federation.errors import Refused
from federation.ledger_chain import plain_facts
from federation.ledger_rows import NEVER_NEGATIVE, link
from federation.models import Account, Entry, EntryGroup, Member, Tenant
from federation.money import as_text

GROUP = (
    *("id", "key", "kind", "currency", "memo", "facts"),
    *("contract_id", "round_id", "reverses_id", "created_at"),
)
ENTRY = ("group_id", "account_id", "amount_micro")
FEW = 50  #: groups that go in one message; more of them are copied
_LOCK = """SELECT id, balance_micro,
  (SELECT array_agg(key::text) FROM federation_entrygroup WHERE key = ANY(%s))
FROM federation_account WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"""


@dataclass(frozen=True, slots=True)
class Floor:
    """How far one purse may fall in a group, and the refusal when it would fall further."""

    micro: int
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Posting:
    """One group to post. Entries of one account are added up; those that are zero fall away."""

    key: str
    kind: str
    currency: str
    entries: Sequence[tuple[Account, int]]
    memo: str = ""
    contract_id: UUID | None = None
    round_id: UUID | None = None
    reverses_id: UUID | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    floors: Mapping[UUID, Floor] = field(default_factory=dict)

    def moves(self) -> list[tuple[Account, int]]:
        """What each purse receives. Raises ValueError when the sum is not zero."""
        sums: dict[Account, int] = defaultdict(int)
        for purse, amount in self.entries:
            sums[purse] += amount
        if sum(sums.values()):
            raise ValueError(f"entries of {self.key} do not sum to zero")
        if any(purse.currency != self.currency for purse in sums):
            raise ValueError(f"entries of {self.key} are of two currencies")
        return sorted(
            ((purse, amount) for purse, amount in sums.items() if amount), key=lambda m: m[0].pk
        )


def account(
    kind: str,
    currency: str,
    *,
    now: datetime,
    tenant: Tenant | None = None,
    member: Member | None = None,
) -> Account:
    """The one account of its kind and owner, opened when first needed."""
    found, _ = Account.objects.get_or_create(
        kind=kind, currency=currency, tenant=tenant, member=member, defaults={"created_at": now}
    )
    return found


def post_all(postings: Iterable[Posting], *, now: datetime) -> int:
    """Post groups in this order, all or none; returns how many, for a key posted before is free.

    Raises Refused when a purse would fall below zero, or its floor, at any group; nothing is
    written then.
    """
    wanted = [(posting, posting.moves()) for posting in postings]
    wanted = [(posting, moves) for posting, moves in wanted if moves]
    if not wanted:
        return 0
    try:
        with transaction.atomic():
            return _post(wanted, now)
    except IntegrityError:
        # another worker posted one of the keys between the look and the write
        if not _posted([posting.key for posting, _ in wanted]):
            raise
    with transaction.atomic():
        return _post(wanted, now)


def _post(wanted: list[tuple[Posting, list[tuple[Account, int]]]], now: datetime) -> int:
    accounts = {purse.pk for _, moves in wanted for purse, _ in moves}
    balances, seen = _locked(accounts, [posting.key for posting, _ in wanted])
    groups, entries, before = [], [], dict(balances)
    for posting, moves in wanted:
        if posting.key in seen:
            continue
        seen.add(posting.key)
        group = uuid4()
        groups.append(_group(posting, group, now))
        for purse, amount in moves:
            balances[purse.pk] += amount
            if amount < 0:
                _check(posting, purse, amount, balances[purse.pk])
            entries.append((group, purse.pk, amount))
    groups_write(groups, entries, [(pk, new) for pk, new in balances.items() if new != before[pk]])
    return len(groups)


def _locked(accounts: set[UUID], keys: Sequence[str]) -> tuple[dict[UUID, int], set[str]]:
    """Balances of purses, locked in the order of their ids until the transaction ends; and which
    of the keys are posted."""
    if connection.vendor == "postgresql":  # not by the ORM: it takes longer than the database
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, [list(keys), sorted(accounts)])
            rows = cursor.fetchall()
        return {pk: balance for pk, balance, _ in rows}, set(rows[0][2] or ())
    balances = Account.objects.order_by("pk").values_list("pk", "balance_micro")
    return dict(rows_among(balances, "pk", sorted(accounts))), _posted(keys)


def _posted(keys: Sequence[str]) -> set[str]:
    return set(rows_among(EntryGroup.objects.order_by().values_list("key", flat=True), "key", keys))


def _check(posting: Posting, purse: Account, amount: int, left: int) -> None:
    floor = posting.floors.get(purse.pk)
    if floor is not None and left < floor.micro:
        raise Refused(floor.why, code=floor.code)
    if floor is None and purse.kind in NEVER_NEGATIVE and left < 0:
        raise Refused(
            f"{purse} holds less than the {as_text(-amount)} that are needed.",
            code="insufficient_funds",
        )


def _group(posting: Posting, group: UUID, now: datetime) -> tuple[Any, ...]:
    return (
        *(group, posting.key, posting.kind, posting.currency, posting.memo),
        *(plain_facts(posting.facts), posting.contract_id, posting.round_id),
        *(posting.reverses_id, now),
    )


def groups_write(
    groups: Sequence[tuple[Any, ...]],
    entries: Sequence[tuple[UUID, UUID, int]],
    balances: Sequence[tuple[UUID, int]],
) -> None:
    """Insert groups (the columns of `GROUP`) with their entries, set new balances of locked purses.

    On SQLite the groups are linked here, on PostgreSQL when the transaction commits.
    """
    if connection.vendor == "postgresql" and len(groups) <= FEW:
        _write_few(groups, entries, balances)
        return
    rows_insert(EntryGroup, GROUP, groups)
    rows_insert(Entry, ENTRY, entries)
    rows_update(Account, ("balance_micro",), balances)
    if connection.vendor == "sqlite":
        link(connection, [group[0].hex for group in groups])


def _write_few(
    groups: Sequence[tuple[Any, ...]],
    entries: Sequence[tuple[UUID, UUID, int]],
    balances: Sequence[tuple[UUID, int]],
) -> None:
    """The same in one message to the server, of three statements."""
    if not groups:
        return
    texts = [
        tuple(json.dumps(value) if isinstance(value, dict) else value for value in group)
        for group in groups
    ]
    statements = [
        f"INSERT INTO federation_entrygroup ({', '.join(GROUP)}) VALUES {_marks(texts)}",  # noqa: S608
        f"INSERT INTO federation_entry ({', '.join(ENTRY)}) VALUES {_marks(entries)}",  # noqa: S608
        "UPDATE federation_account a SET balance_micro = new.balance "  # noqa: S608
        f"FROM (VALUES {_marks(balances)}) AS new(id, balance) WHERE a.id = new.id",
    ]
    values = chain.from_iterable((*texts, *entries, *balances))
    with connection.cursor() as cursor:
        cursor.execute("; ".join(statements if balances else statements[:2]), list(values))


def _marks(rows: Sequence[Sequence[Any]]) -> str:
    one = f"({', '.join(['%s'] * len(rows[0]))})" if rows else ""
    return ", ".join([one] * len(rows))
