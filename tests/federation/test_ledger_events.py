"""Ten thousand random events with repeats, in any order, with crashes between their statements."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from economics.settlement import split
from federation.errors import Refused
from federation.models import Account, EntryGroup, Link
from federation.selectors.accounts import trial_balance
from federation.selectors.ledger import verify
from federation.services import ledger
from federation.services.entries import Floor, Posting
from tests.federation.ledger_scene import committed
from tests.support.world import NOW, a_member, a_tenant, later

EVENTS = 10_000
CREDIT = 2000  #: how far a member's earnings may fall for its bonds
KINDS = Account.Kind


class Crash(Exception):
    """The process dies here."""


@contextmanager
def crash_at(statement: int) -> Iterator[None]:
    """Die before the database sees the statement of this number.

    Statements about savepoints do not count: a dead process says nothing, least of all those.
    """
    left = [statement]

    def wrapper(execute: Any, sql: str, *arguments: Any) -> Any:
        if "SAVEPOINT" not in sql:
            left[0] -= 1
        if left[0] < 0 and "SAVEPOINT" not in sql:
            raise Crash
        return execute(sql, *arguments)

    with connection.execute_wrapper(wrapper):
        yield


@dataclass
class Market:
    """Purses, and events about them drawn at random."""

    draw: random.Random
    rich: bool
    purses: dict[tuple[str, int], Account] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)  #: key -> key that comes before it

    def __post_init__(self) -> None:
        tenants = [a_tenant(f"t{at}", credits=0) for at in range(4)]
        members = [a_member(f"m{at}") for at in range(3)]
        for at, tenant in enumerate(tenants):
            for kind in (KINDS.TENANT_CASH, KINDS.TENANT_ESCROW):
                self.purses[kind, at] = ledger.account(kind, "cash", now=NOW, tenant=tenant)
        for at, member in enumerate(members):
            for kind in (KINDS.MEMBER_EARNINGS, KINDS.MEMBER_BOND):
                self.purses[kind, at] = ledger.account(kind, "cash", now=NOW, member=member)
        self.purses[KINDS.ISSUANCE, 0] = ledger.account(KINDS.ISSUANCE, "cash", now=NOW)
        if self.rich:
            given = [self._deposit(f"rich{at}", at, 10**12) for at in range(4)]
            assert ledger.post_all(given, now=NOW) == 4

    def events(self, count: int) -> list[Posting]:
        made: list[Posting] = []
        while len(made) < count:
            made += self._story(len(made))
        return made[:count]

    def _story(self, number: int) -> list[Posting]:
        draw, tenant, member = self.draw, self.draw.randrange(4), self.draw.randrange(3)
        kinds = ["contract", "deposit", "dividend", "earnest", "payout"]
        kind = draw.choices(kinds, [6, 4, 1, 1, 0 if self.rich else 2])[0]
        if kind == "deposit":
            return [self._deposit(f"deposit{number}", tenant, draw.randrange(1, 3000))]
        if kind == "dividend":
            first = draw.randrange(-500, 500)
            moved = {0: first, 1: -first // 2, 2: -(first + -first // 2)}
            earnings = {at: self.purses[KINDS.MEMBER_EARNINGS, at] for at in moved}
            entries = [(earnings[at], amount) for at, amount in moved.items()]
            return [Posting(f"dividend{number}", "dividend", "cash", entries)]
        if kind == "payout":
            return [self._payout(f"payout{number}", member, draw.randrange(1, 2000))]
        if kind == "earnest":
            amount = draw.randrange(1, 300)
            held = self._between(f"earnest{number}", "earnest", tenant, amount)
            back = self._between(f"release{number}", "release", tenant, -amount)
            return [held, self._after(held, back)]
        return self._contract(number, tenant, member)

    def _contract(self, number: int, tenant: int, member: int) -> list[Posting]:
        """Hold and settlement."""
        draw, price = self.draw, self.draw.randrange(1, 2000)
        bond = price // 5
        purse = self.purses
        earnings = purse[KINDS.MEMBER_EARNINGS, member]
        floor = {} if self.rich else {earnings.pk: Floor(-CREDIT, "bond_not_covered", "credit")}
        hold = Posting(
            f"hold{number}",
            "hold",
            "cash",
            [
                (purse[KINDS.TENANT_CASH, tenant], -price),
                (purse[KINDS.TENANT_ESCROW, tenant], price),
                (earnings, -bond),
                (purse[KINDS.MEMBER_BOND, member], bond),
            ],
            facts={"price": price},
            floors=floor,
        )
        pay, refund = split(price, [draw.randrange(1, 50), draw.randrange(50)])
        penalty = draw.randrange(bond + 1)
        entries = [
            (purse[KINDS.TENANT_ESCROW, tenant], -price),
            (earnings, pay + bond - penalty),
            (purse[KINDS.TENANT_CASH, tenant], refund + penalty),
            (purse[KINDS.MEMBER_BOND, member], -bond),
        ]
        settled = self._after(hold, Posting(f"settle{number}", "settle", "cash", entries))
        return [hold, settled]

    def _between(self, key: str, kind: str, tenant: int, amount: int) -> Posting:
        cash, escrow = (
            self.purses[name, tenant] for name in (KINDS.TENANT_CASH, KINDS.TENANT_ESCROW)
        )
        return Posting(key, kind, "cash", [(cash, -amount), (escrow, amount)])

    def _deposit(self, key: str, tenant: int, amount: int) -> Posting:
        source, cash = self.purses[KINDS.ISSUANCE, 0], self.purses[KINDS.TENANT_CASH, tenant]
        return Posting(key, "deposit", "cash", [(source, -amount), (cash, amount)])

    def _payout(self, key: str, member: int, amount: int) -> Posting:
        earnings, source = (
            self.purses[KINDS.MEMBER_EARNINGS, member],
            self.purses[KINDS.ISSUANCE, 0],
        )
        entries = [(earnings, -amount), (source, amount)]
        floor = Floor(0, "insufficient_funds", "it has not earned so much")
        return Posting(key, "withdrawal", "cash", entries, floors={earnings.pk: floor})

    def _after(self, first: Posting, second: Posting) -> Posting:
        self.needs[second.key] = first.key
        return second


def stored() -> dict[Any, int]:
    """Purses that hold something."""
    rows = Account.objects.values_list("pk", "balance_micro")
    return {pk: amount for pk, amount in rows if amount}


@dataclass
class Desk:
    """Delivers events as a queue does: at least once, in any order, by workers that may die."""

    market: Market
    model: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    posted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    crashes: int = 0

    def __post_init__(self) -> None:
        self.model.update(stored())

    def deliver(self, events: list[Posting], *, crashing: float) -> None:
        draw = self.market.draw
        twice = [*events, *draw.sample(events, len(events) // 6)]
        ahead = [(at % len(events) + draw.randrange(200), event) for at, event in enumerate(twice)]
        queue = [event for _, event in sorted(ahead, key=lambda pair: pair[0])]
        while queue:
            size = draw.randrange(1, 30)
            some, queue = queue[:size], queue[size:]
            early = [event for event in some if self._needs(event) == "later"]
            ready = [event for event in some if self._needs(event) == "posted"]
            queue += early + self._post(ready, draw.random() < crashing)

    def _needs(self, event: Posting) -> str:
        """Whether what an event follows from is "posted", comes "later", or "never" came."""
        first = self.market.needs.get(event.key)
        if first is None or first in self.posted:
            return "posted"
        return "never" if first in self.refused else "later"

    def _post(self, ready: list[Posting], crashing: bool) -> list[Posting]:
        """What must be sent again."""
        try:
            with crash_at(self.market.draw.randrange(4) if crashing else 10**9):
                ledger.post_all(ready, now=later(len(self.posted)))
        except Crash:
            self.crashes += 1
            return ready
        except Refused:
            for event in ready:
                self._single(event)
        else:
            for event in ready:
                self._note(event)
        committed()
        return []

    def _single(self, event: Posting) -> None:
        short = event.key not in self.posted and self._short(event)
        try:
            ledger.post_all([event], now=later(len(self.posted)))
        except Refused as refusal:
            assert short, event.key
            self.refused.add(event.key)
            self.refusals[refusal.code] += 1
        else:
            assert not short, event.key
            self._note(event)

    def _short(self, event: Posting) -> bool:
        return any(
            amount < 0 and self.model[purse.pk] + amount < self._floor(event, purse)
            for purse, amount in event.moves()
        )

    def _floor(self, event: Posting, purse: Account) -> int:
        floor = event.floors.get(purse.pk)
        if floor is not None:
            return floor.micro
        unbound = purse.kind in (KINDS.MEMBER_EARNINGS, KINDS.ISSUANCE)
        return -(10**18) if unbound else 0

    def _note(self, event: Posting) -> None:
        if event.key in self.posted:
            return
        self.posted.add(event.key)
        self.refused.discard(event.key)
        for purse, amount in event.moves():
            self.model[purse.pk] += amount


@pytest.mark.usefixtures("ledger_may_be_flushed")
def test_ten_thousand_events_leave_what_the_model_says():
    market = Market(random.Random(4), rich=False)
    desk = Desk(market)
    desk.deliver(market.events(EVENTS), crashing=0.15)
    assert len(desk.posted) + len(desk.refused) > EVENTS * 0.6
    assert desk.crashes > 40
    assert desk.refusals["insufficient_funds"] > 50
    assert desk.refusals["bond_not_covered"] > 50
    assert stored() == {pk: amount for pk, amount in desk.model.items() if amount}
    assert EntryGroup.objects.count() == Link.objects.count() == len(desk.posted)
    found = verify()  # sums, chain, no purse below zero at any place of it
    assert found.findings == []
    assert found.groups == len(desk.posted)
    assert trial_balance().holds


@pytest.mark.django_db
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_any_order_of_the_same_events_leaves_the_same_balances(seed, other):
    left = []
    for shuffle in (seed, other):
        with transaction.atomic():
            market = Market(random.Random(seed), rich=True)
            events = market.events(40)
            market.draw = random.Random(shuffle)
            Desk(market).deliver(events, crashing=0.3)
            named = {place: purse.pk for place, purse in market.purses.items()}
            found = stored()
            left.append({place: found.get(pk, 0) for place, pk in named.items()})
            transaction.set_rollback(True)
    assert left[0] == left[1]
    assert sum(left[0].values()) == 0
