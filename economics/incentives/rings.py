"""Trade with oneself: payments that go round, trades within one owner, prices off the market.

Payments are the edges of a directed graph of owners. Sites that buy from each other make circles in
the ordinary way, so a circle is no proof: what tells a wash trade is money that goes round *and*
next to no other trade of those it goes through. A ring's `tightness` is that (economics.md,
section 5; the accounts come from a ledger, amounts are whole micro-credits).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise

LONGEST = 4  # owners in a ring that is looked for
TIGHT = 0.8  # a ring at least this tight is suspect
OFF_MARKET = 0.1  # relative distance from the market's price that is flagged

Flows = Mapping[str, Mapping[str, int]]  # {payer: {payee: micro-credits}}, owners


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment for GPU time. Raises ValueError for a negative amount."""

    payer: str  # site or tenant
    payee: str  # site
    amount_micro: int
    contract: str = ""

    def __post_init__(self) -> None:
        if self.amount_micro < 0:
            raise ValueError(f"amount_micro is negative: {self.amount_micro}")


@dataclass(frozen=True, slots=True)
class Ring:
    """Owners whose payments come back to them."""

    owners: tuple[str, ...]  # each pays the next and the last the first; the first by name leads
    amount_micro: int  # what goes all the way round: the smallest payment of the ring
    tightness: float  # that, over the most any of them pays or is paid in all; 1 = nothing else
    suspect: bool


@dataclass(frozen=True, slots=True)
class RingReport:
    """What goes round among the payments of a period, micro-credits."""

    gross_micro: int  # paid between different owners
    net_micro: int  # that would settle the same balances
    circular_micro: int  # the most of the gross that can be cancelled without changing a balance
    rings: tuple[Ring, ...]  # the tightest first
    within_owner: tuple[Payment, ...]  # one owner on both sides: earns no reputation and no credits


@dataclass(frozen=True, slots=True)
class Trade:
    """A price that was paid, and the market's."""

    contract: str
    price_micro: int  # per GPU-hour
    market_micro: int  # per GPU-hour, of the pool in that round


@dataclass(frozen=True, slots=True)
class OffMarket:
    """A trade far from the market's price."""

    contract: str
    price_micro: int
    market_micro: int
    off: float | None  # relative, + = dearer; None: the market's price is 0


def ring_report(
    payments: Iterable[Payment],
    *,
    owners: Mapping[str, str] | None = None,
    longest: int = LONGEST,
    least_micro: int = 1,
    tight: float = TIGHT,
) -> RingReport:
    """Rings of up to `longest` owners whose money goes round, and how much does in all.

    `owners` names the beneficial owner of a site or tenant; one not named is its own. Payments
    between two owners that sum to less than `least_micro` are left out of the search for rings.
    """
    within, flows = [], defaultdict[str, dict[str, int]](dict)
    named = owners or {}
    for payment in payments:
        payer, payee = (named.get(who, who) for who in (payment.payer, payment.payee))
        if payer == payee:
            within.append(payment)
        elif payment.amount_micro:
            flows[payer][payee] = flows[payer].get(payee, 0) + payment.amount_micro
    paid, received = _totals(flows)
    return RingReport(
        gross_micro=sum(paid.values()),
        net_micro=sum(max(paid[owner] - received[owner], 0) for owner in paid),
        circular_micro=_circular(flows),
        rings=_rings(flows, longest=longest, least=max(least_micro, 1), tight=tight),
        within_owner=tuple(
            sorted(within, key=lambda row: (row.payer, row.payee, row.contract, row.amount_micro))
        ),
    )


def off_market(trades: Iterable[Trade], *, threshold: float = OFF_MARKET) -> tuple[OffMarket, ...]:
    """Trades whose price is further than `threshold`, relative, from the market's, by contract."""
    found = []
    for trade in sorted(trades, key=lambda trade: trade.contract):
        apart = trade.price_micro - trade.market_micro
        if abs(apart) > threshold * trade.market_micro:
            off = apart / trade.market_micro if trade.market_micro else None
            found.append(OffMarket(trade.contract, trade.price_micro, trade.market_micro, off))
    return tuple(found)


def _totals(flows: Flows) -> tuple[dict[str, int], dict[str, int]]:
    """What each owner pays and receives in all."""
    paid: dict[str, int] = defaultdict(int)
    received: dict[str, int] = defaultdict(int)
    for payer, payees in flows.items():
        for payee, amount in payees.items():
            paid[payer] += amount
            received[payee] += amount
    return paid, received


def _rings(flows: Flows, *, longest: int, least: int, tight: float) -> tuple[Ring, ...]:
    paid, received = _totals(flows)
    found = []
    for owners in _circles(flows, longest, least):
        following = (*owners[1:], owners[0])
        amount = min(flows[one][other] for one, other in zip(owners, following, strict=True))
        tightness = amount / max(max(paid[owner], received[owner]) for owner in owners)
        found.append(Ring(owners, amount, tightness, tightness >= tight))
    return tuple(sorted(found, key=lambda ring: (-ring.tightness, -ring.amount_micro, ring.owners)))


def _circles(flows: Flows, longest: int, least: int) -> Iterator[tuple[str, ...]]:
    """Simple circles of at most `longest` owners, each once, led by the first by name."""
    towards = {
        payer: sorted(payee for payee, amount in payees.items() if amount >= least)
        for payer, payees in flows.items()
    }
    for first in sorted(towards):
        paths: list[tuple[str, ...]] = [(first,)]
        while paths:
            path = paths.pop()
            for payee in towards.get(path[-1], ()):
                if payee == first:
                    yield path
                elif payee > first and payee not in path and len(path) < longest:
                    paths.append((*path, payee))


def _circular(flows: Flows) -> int:
    """The largest circulation within the payments: maximise its sum, as much in as out everywhere.

    The programme's matrix is that of a network, so its optimum is whole; a solver has it to about
    1e-9 of the largest payment.
    """
    edges = [(payer, payee) for payer in sorted(flows) for payee in sorted(flows[payer])]
    if not edges:
        return 0
    number = {name: at for at, name in enumerate(sorted({name for edge in edges for name in edge}))}
    amount = np.array([flows[payer][payee] for payer, payee in edges], dtype=float)
    at = np.arange(len(edges))
    ends = [np.array([number[edge[end]] for edge in edges], dtype=np.int64) for end in (0, 1)]
    signs = np.concatenate([np.ones(at.size), -np.ones(at.size)])
    matrix = csr_array(
        (signs, (np.concatenate(ends), np.tile(at, 2))), shape=(len(number), at.size)
    )
    size = float(amount.max())
    solved = minimise(
        Linear(
            cost=-np.ones(at.size),
            matrix=matrix,
            low=np.zeros(len(number)),
            high=np.zeros(len(number)),
            least=np.zeros(at.size),
            most=amount / size,
        )
    )
    return round(-solved.objective * size)
