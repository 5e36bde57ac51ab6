"""Reads of the whole ledger: does it hold, and its groups as a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import connection, transaction

from federation import ledger_guard
from federation.bulk import uncollected
from federation.ledger_chain import digest_of
from federation.ledger_rows import (
    NEVER_NEGATIVE,
    Purse,
    StoredGroup,
    groups_read,
    heads_read,
    loose_read,
    purses_read,
)

SHOWN = 20  #: findings that are spelt out


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a currency's chain."""

    currency: str
    position: int
    digest: str


@dataclass(slots=True)
class Verified:
    """What a pass over the whole ledger found."""

    groups: int = 0
    entries: int = 0
    problems: int = 0
    findings: list[str] = field(default_factory=list)  #: the first of the problems, in words
    heads: list[Head] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.problems

    def note(self, finding: str) -> None:
        self.problems += 1
        if len(self.findings) < SHOWN:
            self.findings.append(finding)


def verify() -> Verified:
    """Check every group, sum, balance and link of the ledger in one pass over its entries.

    Holds if each group sums to zero in its currency and follows the one before it in the chain,
    each purse holds the sum of its entries, no tenant or bond was ever below zero in the order of
    the chain, the chains end at their heads, and the database's guards are in place.
    """
    found = Verified()
    if lost := ledger_guard.missing(connection):
        found.note(f"the database has lost guards: {', '.join(lost)}")
    with one_moment(), uncollected():
        purses = purses_read(connection)
        heads = heads_read(connection)
        ends = _walk(found, purses)
    for currency in sorted({*heads, *ends}):
        if heads.get(currency) != ends.get(currency):
            found.note(f"the chain of {currency} does not end at its head")
    found.heads = [Head(currency, *end) for currency, end in sorted(ends.items())]
    return found


@contextmanager
def one_moment() -> Iterator[None]:
    """Several reads of one state of the database, where this is the outermost transaction."""
    outermost = not connection.in_atomic_block
    with transaction.atomic():
        if outermost and connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def _walk(found: Verified, purses: dict[str, Purse]) -> dict[str, tuple[int, str]]:
    """Follow the chains group by group; where each of them ends."""
    ends: dict[str, tuple[int, str]] = {}
    balances: dict[str, int] = defaultdict(int)
    for group in groups_read(connection):
        if not _sums(found, group, purses, balances):
            continue
        position, last = ends.get(group.chain, (0, ""))
        digest = digest_of(last, group.linked(position + 1, purses))
        if group[:3] != (group.currency, position + 1, digest):
            found.note(f"the chain of {group.chain} breaks at {group.position}: {group.fields[1]}")
        ends[group.chain] = (group.position, group.digest)
    for group in loose_read(connection):
        found.note(f"group {group.fields[1]} is not linked")
        _sums(found, group, purses, balances)
    for account, purse in purses.items():
        if purse.balance_micro != balances[account]:
            found.note(f"purse {account} does not hold the sum of its entries")
    if sum(purse.balance_micro for purse in purses.values()):
        found.note("all purses together do not hold zero")
    return ends


def _sums(
    found: Verified, group: StoredGroup, purses: dict[str, Purse], balances: dict[str, int]
) -> bool:
    """Add a group's entries up. False when one of its purses is gone."""
    found.groups += 1
    found.entries += len(group.entries)
    total, key, currency = 0, group.fields[1], group.currency
    for account, _, amount in group.entries:
        purse = purses.get(account)
        if purse is None:
            found.note(f"group {key} moves a purse that does not exist")
            return False
        total += amount
        balance = balances[account] = balances[account] + amount
        if purse.currency != currency:
            found.note(f"group {key} moves another currency")
        if purse.kind == "rounding":
            found.note(f"group {key} leaves something to rounding")
        if balance < 0 and amount < 0 and purse.kind in NEVER_NEGATIVE:
            found.note(f"group {key} takes from {purse.kind} {account} what it has not")
    if total or not group.entries:
        found.note(f"group {key} does not sum to zero")
    return True
