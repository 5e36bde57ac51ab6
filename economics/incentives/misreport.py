"""What a site could gain by not telling the truth: dearer reserves, fewer GPUs, lower bids.

Uniform prices are not truthful: a site large enough to move them gains by doing so. No mechanism
is efficient, budget balanced, individually rational and truthful at once (Myerson and
Satterthwaite, 1983), so the question is how much there is to gain, and how fast that falls with
the number of sites (economics.md, section 5).

A lie is told in the book; its payoff is reckoned with the true costs and the true values. The best
lie is looked for with hindsight, knowing the books of all others, which no site does: the figures
are the most that these lies bring. Claims of throughput are in `claims.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from economics import accounts
from economics.book import MICRO, Book, read_book
from economics.clearing.allocation import linear_of
from economics.clearing.program import program_of
from economics.clearing.solver import minimise
from economics.errors import BadBook, Problem
from economics.incentives.bootstrap import JOBS, ROUNDS
from economics.incentives.draws import draw
from economics.incentives.intervals import Interval, mean_interval, share_interval
from economics.incentives.variations import resampled
from economics.market import Array, Market
from economics.published import read_published
from economics.rounds import WELFARE, decide

NOTICEABLE = 1e-6  # gain relative to the truthful payoff; below it is rounding
LEAST_PAYOFF = 1e-6  # of the welfare; a site that has less is left out of relative gains
Document = Mapping[str, Any]


class Kind(StrEnum):
    """What is not true."""

    RESERVE = "reserve"  # every reserve of the site, times the factor
    CAPACITY = "capacity"  # the GPUs of every pool of the site, times the factor, rounded down
    VALUE = "value"  # the bid of every tenant of the site, times the factor


@dataclass(frozen=True, slots=True)
class Lie:
    """One thing said that is not so."""

    kind: Kind
    factor: float

    def told(self, document: Document, site: str) -> dict[str, Any]:
        """The book with the lie in it; the caller's is left alone."""
        rows, field = _WHERE[self.kind]
        changed = [
            {**row, field: self._of(row[field])} if row["site"] == site else row
            for row in document[rows]
        ]
        return {**document, rows: changed}

    def _of(self, truth: float) -> float:
        said = truth * self.factor
        # A product that should be whole can come out a last digit short of it.
        return math.floor(said + 1e-9) if self.kind is Kind.CAPACITY else said


_WHERE = {
    Kind.RESERVE: ("pools", "reserve"),
    Kind.CAPACITY: ("pools", "gpus"),
    Kind.VALUE: ("jobs", "value"),
}
LIES = (
    *(Lie(Kind.RESERVE, factor) for factor in (1.1, 1.25, 1.5, 2.0, 3.0)),
    *(Lie(Kind.CAPACITY, factor) for factor in (0.5, 0.7, 0.85, 0.95)),
    *(Lie(Kind.VALUE, factor) for factor in (0.6, 0.75, 0.9, 0.95)),
)


@dataclass(frozen=True, slots=True)
class Struck:
    """A round as decided, on the axes of its own book's market."""

    book: Book
    share: Array  # (K,)
    price: Array  # (P,) credits per GPU-hour
    paid: Array  # (K,) credits
    transfer: Array  # (N,) credits


Clear = Callable[[Document], Struck]


@dataclass(frozen=True, slots=True)
class LieGain:
    """What one lie brings a site, over the rounds looked at."""

    kind: Kind
    factor: float
    gain: Interval | None  # relative to the truthful payoff of the round
    credits: Interval | None  # credits a round


@dataclass(frozen=True, slots=True)
class KindGain:
    """What the best lie of a kind brings, the truth among them: never below zero."""

    kind: Kind
    gain: Interval | None  # relative to the truthful payoff of the round
    gaining: Interval | None  # share of the rounds in which some lie of the kind gains


@dataclass(frozen=True, slots=True)
class MisreportReport:
    """What a site could gain by misreporting."""

    site: str
    rounds: int
    resampled: str  # what the intervals draw again: rounds, or the jobs of a single round
    left_out: int  # rounds with next to no truthful payoff to compare with
    payoff: Interval | None  # truthful, credits a round
    lies: tuple[LieGain, ...]
    best: tuple[KindGain, ...]


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One kind of lie among so many sites."""

    sites: int
    kind: Kind
    gain: Interval | None
    gaining: Interval | None
    left_out: int


def by_round(document: Document) -> Struck:
    """As the venue would decide it, by whatever rules the book has; raises as `decide` does."""
    book = read_book(document)
    published = read_published(book, decide(book))
    transfer = np.array(published.transfer_micro, dtype=float) / MICRO
    return Struck(book, published.share, published.price, published.paid, transfer)


def by_programme(document: Document) -> Struck:
    """Only the linear programme and its duals: quick, for drawn books of divisible jobs.

    On such data optimum and duals are unique, so this is what the round decides at epsilon 0 but
    for the rounding (a test holds it to that). Raises BadBook for other books, NotCleared.
    """
    book = read_book(document)
    if not book.market.divisible or book.rules.price_cap or book.rules.policy != WELFARE:
        why = "duals are prices only of divisible jobs at the largest surplus and without caps"
        raise BadBook((Problem("rules", why),))
    program = program_of(book.market)
    solved = minimise(linear_of(program))
    share = program.shares(solved.values, book.market.columns)
    price = book.market.reserve + np.maximum(-solved.row_dual[: program.pools], 0.0)
    paid = price[book.market.pool] * book.market.gpu_hours * share
    return Struck(book, share, price, paid, np.zeros(book.market.sites))


def true_payoffs(struck: Struck, truth: Book) -> Array:
    """What each site really has from a round, (N,), credits: true reserves and true values."""
    payoff = accounts.site_payoffs(in_truth(struck.book.market, truth), struck.share, struck.paid)
    return payoff + struck.transfer


def in_truth(market: Market, truth: Book) -> Market:
    """The columns of a market that was lied about, with what they really cost and are worth."""
    value = truth.market.bid[market.job] * market.msamples
    return replace(market, reserve=truth.market.reserve, value=value)


def gains(
    document: Document, site: str, lies: Sequence[Lie], clear: Clear
) -> tuple[float, float, Array]:
    """The welfare, the site's truthful payoff, and what each lie adds to it, (L,). Credits.

    Raises BadBook when the book has no such site.
    """
    told = clear(document)
    truth = told.book
    if site not in truth.sites:
        raise BadBook((Problem("pools", f"none is of site {site!r}, and no job either"),))
    at = truth.sites.index(site)
    honest = float(true_payoffs(told, truth)[at])
    lied = [true_payoffs(clear(lie.told(document, site)), truth)[at] for lie in lies]
    return accounts.welfare(truth.market, told.share), honest, np.array(lied, dtype=float) - honest


def misreport(
    books: Document | Sequence[Document],
    site: str,
    *,
    lies: Sequence[Lie] = LIES,
    seed: int = 0,
    draws: int = 0,
    clear: Clear = by_round,
) -> MisreportReport:
    """What a site could gain by each lie, and by the best of each kind, over one book or several.

    Intervals are by bootstrap from `seed`: over the books, or, of a single book, over so many
    draws of its jobs; with neither there are none. Every draw is decided once for the truth and
    once for each lie. Raises BadBook when a book does not know the site, and as `clear` does.
    """
    documents, unit = [books] if isinstance(books, Mapping) else list(books), ROUNDS
    rounds = len(documents)
    if rounds == 1 and draws:
        random, unit = np.random.default_rng(seed), JOBS
        documents += [resampled(documents[0], random) for _ in range(draws)]
    found = [gains(document, site, lies, clear) for document in documents]
    honest = np.array([payoff for _, payoff, _ in found], dtype=float)
    kept = np.array([payoff > LEAST_PAYOFF * welfare for welfare, payoff, _ in found], dtype=bool)
    added = np.array([row for _, _, row in found], dtype=float).reshape(len(found), len(lies))
    compared = unit == ROUNDS or bool(kept[0])  # without the round itself its draws say nothing
    relative = added[kept & compared] / honest[kept & compared, None]
    return MisreportReport(
        site=site,
        rounds=rounds,
        resampled=unit,
        left_out=int(np.count_nonzero(~kept[:rounds])),
        payoff=mean_interval(honest, seed=seed, unit=unit),
        lies=tuple(
            LieGain(
                kind=lie.kind,
                factor=lie.factor,
                gain=mean_interval(relative[:, at], seed=seed, unit=unit),
                credits=mean_interval(added[:, at], seed=seed, unit=unit),
            )
            for at, lie in enumerate(lies)
        ),
        best=_best(relative, lies, seed, unit),
    )


def study(
    sites: Sequence[int], instances: int, seed: int, *, clear: Clear = by_programme
) -> tuple[StudyRow, ...]:
    """The best lie of one site among so many, in as many drawn books (economics.md, section 5)."""
    rows: list[StudyRow] = []
    for count in sites:
        books = [draw(seed + number, sites=count) for number in range(instances)]
        report = misreport(books, books[0]["pools"][0]["site"], seed=seed, clear=clear)
        rows += [
            StudyRow(count, best.kind, best.gain, best.gaining, report.left_out)
            for best in report.best
        ]
    return tuple(rows)


def _best(relative: Array, lies: Sequence[Lie], seed: int, unit: str) -> tuple[KindGain, ...]:
    """By kind; `relative` is what each lie adds in each round, (M, L)."""
    found = []
    for kind in Kind:
        mine = [at for at, lie in enumerate(lies) if lie.kind is kind]
        if not mine:
            continue
        best = np.maximum(relative[:, mine].max(axis=1), 0.0)
        of_rounds = best if unit == ROUNDS else best[:1]
        found.append(
            KindGain(
                kind=kind,
                gain=mean_interval(best, seed=seed, unit=unit),
                gaining=share_interval(
                    int(np.count_nonzero(of_rounds > NOTICEABLE)), of_rounds.size
                ),
            )
        )
    return tuple(found)
