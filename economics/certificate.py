"""Re-check a clearing against its book without the solver that made it. numpy only.

What it proves: the award fits, nobody trades at a loss, money adds up to the last micro-credit,
and (weak duality) no award whatever is worth more than the welfare plus the regret at the
published prices. What it cannot re-derive is recorded by the round: that a branch and bound was
optimal within its gap, and what coalitions could make alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book, document_sha256, read_book
from economics.errors import BadBook
from economics.market import Array
from economics.memory import no_cycles
from economics.published import Published, read_published
from economics.reasons import unplaced

RELATIVE = 1e-6  # tolerance of solver quantities, times max(1, welfare)
WRITTEN = 1e-8  # tolerance of numbers that only rounding to 9 decimals can change
# What the round records and numpy alone cannot redo.
RECORDED = ("core", "core_searched", "standalone", "path_reference", "path_tiers")


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about a clearing, and by how much it is missed."""

    check: str
    residual: float
    tolerance: float
    holds: bool
    detail: str = ""

    def row(self) -> dict[str, Any]:
        """As written in a clearing."""
        return {
            "check": self.check,
            "residual": round(self.residual, 9) + 0.0,
            "tolerance": round(self.tolerance, 9),
            "holds": self.holds,
        }


def measured(check: str, residual: float, tolerance: float, detail: str = "") -> Check:
    """A check that holds when the residual is within the tolerance; NaN never is."""
    residual = max(float(residual), 0.0) if math.isfinite(residual) else 1e300
    return Check(check, residual, tolerance, residual <= tolerance, detail)


def verify(book_document: object, clearing_document: object) -> tuple[Check, ...]:
    """Every check, by name. Raises BadBook when the *book* is none."""
    return verify_against(read_book(book_document), clearing_document)


def verify_against(book: Book, clearing_document: object) -> tuple[Check, ...]:
    """Every check, by name, against a book that was read already."""
    with no_cycles():
        return _verify(book, clearing_document)


def _verify(book: Book, clearing_document: object) -> tuple[Check, ...]:
    try:
        published = read_published(book, clearing_document)
    except BadBook as refused:
        return (measured("format", len(refused.problems), 0.0, str(refused)),)
    assert isinstance(clearing_document, Mapping)  # noqa: S101 read_published saw to it
    redone = recompute(book, published)
    checks = (
        measured("format", 0.0, 0.0),
        *redone,
        *_documents(book, published, clearing_document, redone),
    )
    return tuple(sorted(checks, key=lambda check: check.check))


def recompute(book: Book, published: Published) -> tuple[Check, ...]:
    """Every check that needs the book and the published numbers only, by name."""
    with np.errstate(all="ignore"):
        checks = [
            *_award(book, published),
            *_money(book, published),
            *_prices(book, published),
            *_optimality(book, published),
        ]
    return tuple(sorted(checks, key=lambda check: check.check))


def _award(book: Book, published: Published) -> Iterator[Check]:
    market, share = book.market, published.share
    over = accounts.used_hours(market, share) - market.capacity
    yield measured("capacity", _worst(over / np.maximum(market.capacity, 1.0)), RELATIVE)

    given = accounts.delivered(market, share)
    width = np.bincount(market.job, market.gpu_hours * share, market.jobs)
    over_demand = np.where(np.isinf(market.demand), 0.0, given - market.demand)
    over_width = np.where(np.isinf(market.width), 0.0, width - market.width)
    missed = _worst(
        np.concatenate(
            [
                (over_demand / np.maximum(1.0, market.demand))[~market.gang],
                over_width / np.maximum(1.0, market.width),
                (market.floor - given) / np.maximum(1.0, market.floor),
            ]
        )
    )
    yield measured("demand", missed, RELATIVE)

    broken = int(np.count_nonzero(market.gang[market.job] & (share != 0) & (share != 1)))
    served = np.bincount(market.job[share > 0], minlength=market.jobs)[market.gang]
    twice = int(np.count_nonzero(served > 1))
    yield measured("gangs", broken + twice, 0.0)
    yield measured("permitted", published.strangers, 0.0)
    yield measured("msamples", published.msamples_off, RELATIVE)


def _money(book: Book, published: Published) -> Iterator[Check]:
    market, tolerance = book.market, _tolerance(published)
    gain = accounts.job_gain(market, published.share)
    rent = published.price - market.reserve
    lost = accounts.job_rent(market, published.share, rent) - gain
    yield measured("no_loss", _worst(lost[market.floor == 0]), tolerance)

    off = [
        abs(line.payment_micro - due)
        for line, due in zip(published.lines, published.due, strict=True)
    ]
    yield measured("payments", max(off, default=0), 0.0)
    yield measured("budget", published.overspent_micro, 0.0)

    payoff = accounts.site_payoffs(market, published.share, published.paid)
    payoff = payoff + np.array(published.transfer_micro, dtype=float) / accounts.MICRO
    yield measured("payoffs", _worst(np.abs(payoff - published.payoff)), tolerance)
    balance = abs(float(published.payoff.sum()) - published.welfare)
    yield measured("balance", balance, tolerance)
    yield measured("transfers", abs(sum(published.transfer_micro)), 0.0)


def _prices(book: Book, published: Published) -> Iterator[Check]:
    market = book.market
    rent = published.price - market.reserve
    size = np.maximum(1.0, market.reserve)
    idle = np.bincount(market.pool, minlength=market.pools) == 0
    off = np.concatenate(
        [-rent / size, (rent - market.ceiling) / size, (np.abs(rent) / size)[idle]]
    )
    yield measured("prices", _worst(off), WRITTEN)
    explained = unplaced(book, published.share, published.price)
    yield measured("unplaced", float(explained != list(published.unplaced)), 0.0)


def _optimality(book: Book, published: Published) -> Iterator[Check]:
    market, tolerance = book.market, _tolerance(published)
    rent = np.maximum(published.price - market.reserve, 0.0)
    welfare = accounts.welfare(market, published.share)
    regret = accounts.regret(market, published.share, rent)
    yield measured("welfare", abs(welfare - published.welfare), tolerance)
    yield measured("regret", abs(regret - published.regret), tolerance)
    ladder = (welfare, published.bound, published.lp_bound, welfare + regret)
    steps = [low - high for low, high in pairwise(ladder)]
    yield measured("bound", max(steps), tolerance)
    best = book.rules.policy == "surplus"
    if best and market.divisible and not np.isfinite(market.ceiling).any():
        yield measured("support", regret - book.rules.epsilon * welfare, tolerance)
    gap = (published.bound - published.welfare) / max(published.bound, 1e-12)
    yield measured("gap", abs(gap - published.gap), WRITTEN / max(published.bound, WRITTEN) + 1e-9)
    yield measured("status", float(published.status != status_of(published)), 0.0)


def status_of(published: Published) -> str:
    """`empty`, `optimal` (bound met to the tolerance of money) or `within_gap`."""
    if not published.lines:
        return "empty"
    met = published.bound - published.welfare <= _tolerance(published)
    return "optimal" if met else "within_gap"


def _documents(
    book: Book, published: Published, clearing: Mapping[str, Any], redone: tuple[Check, ...]
) -> Iterator[Check]:
    yield measured("book_sha256", float(clearing["book_sha256"] != book.sha256), 0.0)
    try:
        digest = document_sha256(clearing)
    except ValueError as error:
        digest = str(error)
    yield measured("sha256", float(clearing["sha256"] != digest), 0.0)
    recorded = {row.check: row for row in published.certificate}
    wrong = sum(
        not (row.holds and 0.0 <= row.residual <= row.tolerance) for row in published.certificate
    )
    for check in redone:
        row = recorded.get(check.check)
        same = row is not None and abs(row.tolerance - check.tolerance) <= WRITTEN
        wrong += not (same and row is not None and _alike(row.residual, check.residual))
    known = {check.check for check in redone} | set(RECORDED)
    wrong += len(set(recorded) - known)
    yield measured("certificate", wrong, 0.0)


def _alike(recorded: float, recomputed: float) -> bool:
    """Residuals are rounding noise: equal up to a little more of it."""
    return abs(recorded - recomputed) <= WRITTEN * max(1.0, recomputed)


def _tolerance(published: Published) -> float:
    return RELATIVE * max(1.0, published.welfare)


def _worst(amounts: Array) -> float:
    return float(np.max(amounts, initial=0.0)) if not np.isnan(amounts).any() else float("nan")
