"""Decide one round: allocate, price, repair, certify. Same book, same bytes.

Every figure that is published is computed from the other published figures, as rounded, so that
anybody can recompute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from economics import accounts, pricing
from economics.book import MICRO, Book, document_sha256
from economics.certificate import RELATIVE, Check, measured, recompute, status_of
from economics.clearing.allocation import Allocation, allocate
from economics.clearing.program import program_of
from economics.errors import BadBook, NotCertified, NotCleared, Problem
from economics.market import Array, Market
from economics.published import CLEARING_FORMAT, Published, read_published
from economics.reasons import unplaced
from economics.sharing.coalitions import blocking, coalition_value
from economics.sharing.repair import repair

DECIMALS = 9
STILL = 1e-7  # excess below this, times max(1, welfare), is solver rounding and moves no money


@dataclass(frozen=True, slots=True)
class Transfers:
    """The zero-sum core repair, and the checks only a solver can make."""

    micro: tuple[int, ...]  # (N,)
    checks: tuple[Check, ...]


def decide(book: Book) -> dict[str, Any]:
    """The complete `hanse.clearing/1` document of a book.

    Raises NotCleared when a solver proves nothing, NotCertified when a check does not hold.
    """
    market, nodes = book.market, book.rules.nodes
    # 1. Who trains where.
    found = _allocated(book)
    # 2. At which price.
    rent = pricing.rents(market, found, _wish(book), _blocking(found, nodes))
    # 3. As it will be written.
    price, share = _written_prices(market, rent), _written_shares(market, found.share)
    lines, paid = _lines(book, share, price)
    payoff = accounts.site_payoffs(market, share, paid)
    # 4. What keeps everybody in.
    transfers = _transfers(book, found, share, price, payoff)
    # 5. The document, and its proof.
    document = _document(book, found, share, price, lines, payoff, transfers)
    return _certified(book, document, transfers)


def _allocated(book: Book) -> Allocation:
    if not book.market.floor.any():
        return allocate(book.market, nodes=book.rules.nodes)
    try:
        return allocate(book.market, nodes=book.rules.nodes)
    except NotCleared as reason:
        raise _impossible_floors(book) or reason from None


def _impossible_floors(book: Book) -> BadBook | None:
    """Names the sites whose floors do not fit together on their own GPUs."""
    program, problems = program_of(book.market), []
    for site, name in enumerate(book.sites):
        try:
            coalition_value(program, np.arange(len(book.sites)) == site, nodes=book.rules.nodes)
        except NotCleared:
            problems.append(
                Problem("floors", f"those of site {name} are more than it delivers alone")
            )
    return BadBook(tuple(problems)) if problems else None


def _wish(book: Book) -> pricing.Wish:
    return pricing.Wish(
        previous=book.previous - book.market.reserve,
        seller_share=book.rules.seller_share,
        epsilon=book.rules.epsilon,
    )


def _blocking(found: Allocation, nodes: int) -> pricing.Blocking:
    def worst(payoff: Array) -> tuple[Array, float] | None:
        still = STILL * max(1.0, found.welfare)
        coalition = blocking(found.program, payoff, nodes=nodes, tolerance=still)
        if coalition is None:
            return None
        return coalition.members.astype(float), coalition.value

    return worst


def _written_prices(market: Market, rent: Array) -> Array:
    idle = np.bincount(market.pool, minlength=market.pools) == 0
    price: Array = np.round(market.reserve + np.where(idle, 0.0, rent), DECIMALS)
    return price


def _written_shares(market: Market, share: Array) -> Array:
    """Shares of the GPU-hours as written; a gang's stay whole."""
    hours = np.round(share * market.gpu_hours, DECIMALS)
    written: Array = np.where(market.gang[market.job], share, hours / market.gpu_hours)
    return written


def _lines(book: Book, share: Array, price: Array) -> tuple[list[dict[str, Any]], Array]:
    """The award line by line, and what each column pays, (K,) credits."""
    market, paid = book.market, np.zeros(share.shape)
    lines: list[dict[str, Any]] = []
    left = [book.budget_micro(job) for job in range(market.jobs)]
    for column in np.flatnonzero(share > 0):
        job, pool = int(market.job[column]), int(market.pool[column])
        gpu_hours = _number(market.gpu_hours[column] * share[column])
        amount = accounts.payment_micro(float(price[pool]), gpu_hours)
        purse = left[job]
        if purse is not None:
            amount = min(amount, purse)
            left[job] = purse - amount
        paid[column] = amount / MICRO
        lines.append(
            {
                "job": book.jobs[job].id,
                "pool": book.pools[pool].id,
                "gpu_hours": gpu_hours,
                "msamples": _number(market.msamples[column] * share[column]),
                "payment_micro": amount,
            }
        )
    return lines, paid


def _transfers(
    book: Book, found: Allocation, share: Array, price: Array, payoff: Array
) -> Transfers:
    """None where prices alone keep the core: then no coalition can gain more than the regret."""
    market, none = book.market, (0,) * len(book.sites)
    if not book.rules.core_repair:
        return Transfers(none, ())
    size = max(1.0, found.welfare)
    regret = accounts.regret(market, share, np.maximum(price - market.reserve, 0.0))
    if regret <= RELATIVE * size / 2 or pricing.keeps_core(market):
        return Transfers(none, ())
    mended = repair(found.program, payoff, tolerance=STILL * size, nodes=book.rules.nodes)
    micro = _micro_parts(mended.transfer)
    kept = payoff + np.array(micro, dtype=float) / MICRO
    return Transfers(
        micro,
        (
            measured("standalone", float(np.max(mended.alone - kept, initial=0)), RELATIVE * size),
            measured("core" if mended.proved else "core_searched", 0.0, RELATIVE * size),
        ),
    )


def _micro_parts(transfer: Array) -> tuple[int, ...]:
    """Whole micro-credits that sum to zero, each within one of the exact amount."""
    exact = transfer * MICRO
    parts = np.floor(exact).astype(np.int64)
    short = -int(parts.sum())
    order = np.lexsort((np.arange(parts.size), parts - exact))
    for at in range(abs(short)):
        parts[order[at % parts.size]] += 1 if short > 0 else -1
    return tuple(int(part) for part in parts)


def _document(
    book: Book,
    found: Allocation,
    share: Array,
    price: Array,
    lines: list[dict[str, Any]],
    payoff: Array,
    transfers: Transfers,
) -> dict[str, Any]:
    market = book.market
    rent = np.maximum(price - market.reserve, 0.0)
    welfare = accounts.welfare(market, share)
    regret = max(accounts.regret(market, share, rent), 0.0)
    bound = max(min(found.bound, welfare + regret), welfare)
    total = payoff + np.array(transfers.micro, dtype=float) / MICRO
    return {
        "format": CLEARING_FORMAT,
        "book_sha256": book.sha256,
        "status": "empty",
        "welfare": _number(welfare),
        "bound": _number(bound),
        "gap": _number((_number(bound) - _number(welfare)) / max(_number(bound), 1e-12)),
        "lp_bound": _number(max(min(found.lp_bound, welfare + regret), bound)),
        "regret": _number(regret),
        "prices": {row.id: _number(price[at]) for at, row in enumerate(book.pools)},
        "allocation": lines,
        "payoffs": {name: _number(total[at]) for at, name in enumerate(book.sites)},
        "transfers_micro": dict(zip(book.sites, transfers.micro, strict=True)),
        "unplaced": unplaced(book, share, price),
        "certificate": [],
        "sha256": "-",
    }


def _certified(book: Book, document: dict[str, Any], transfers: Transfers) -> dict[str, Any]:
    """The document with its status, certificate and digest."""
    document["status"] = status_of(_published(book, document))
    checks = sorted(
        (*recompute(book, _published(book, document)), *transfers.checks),
        key=lambda check: check.check,
    )
    failures = tuple(
        f"{check.check} is off by {check.residual:.3g} (tolerance {check.tolerance:.3g})"
        for check in checks
        if not check.holds
    )
    if failures:
        raise NotCertified(failures)
    document["certificate"] = [check.row() for check in checks]
    document["sha256"] = document_sha256(document)
    return document


def _published(book: Book, document: dict[str, Any]) -> Published:
    try:
        return read_published(book, document)
    except BadBook as problems:
        raise NotCertified(tuple(map(str, problems.problems))) from None


def _number(amount: float) -> float:
    """As written: at most 9 decimals, and no negative zero."""
    return round(float(amount), DECIMALS) + 0.0
