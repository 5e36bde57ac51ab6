"""Decide one round: allocate, price, repair, certify. Same book, same bytes.

Every figure that is published is computed from the other published figures, as rounded, so that
anybody can recompute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from economics import accounts, pricing
from economics.book import MICRO, Book, document_sha256
from economics.certificate import RELATIVE, Check, measured, recompute, status_of
from economics.clearing.paths import AUTOMATIC, REFERENCE, TIERS, Award, award
from economics.clearing.program import program_of
from economics.clearing.tiers.allocation import EXACT_COLUMNS
from economics.errors import BadBook, NotCertified, NotCleared, Problem
from economics.market import Array, Market
from economics.published import CLEARING_FORMAT, Published, read_published
from economics.reasons import unplaced
from economics.rows import POLICIES
from economics.sharing.coalitions import coalition_value

DECIMALS = 9
WELFARE = POLICIES[0]  # the default: largest surplus
STILL = 1e-7  # excess below this, times max(1, welfare), is solver rounding and moves no money


@dataclass(frozen=True, slots=True)
class Transfers:
    """The zero-sum core repair, and the checks only a solver can make."""

    micro: tuple[int, ...]  # (N,)
    checks: tuple[Check, ...]


def decide(book: Book, *, path: str = AUTOMATIC) -> dict[str, Any]:
    """The complete `hanse.clearing/1` document of a book.

    `path` is one of `economics.clearing.paths`: tests compare the two. Raises NotCleared when a
    solver proves nothing, NotCertified when a check does not hold.
    """
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        found = _allocated(book, path)
        try:
            return _settled(book, found)
        except (NotCleared, NotCertified):
            if found.path != TIERS or book.market.columns > EXACT_COLUMNS:
                raise
        # An award a little short of the best can be too little for the sites to share.
        return _settled(book, _allocated(book, REFERENCE))


def _settled(book: Book, found: Award) -> dict[str, Any]:
    """Prices, money and proof for who trains where."""
    market = book.market
    # 1. At which price.
    rent = found.rents(_wish(book))
    # 2. As it will be written.
    price, share = _written_prices(market, rent), _written_shares(market, found.share)
    lines, paid = _lines(book, share, price)
    payoff = accounts.site_payoffs(market, share, paid)
    # 3. What keeps everybody in.
    transfers = _transfers(book, found, share, price, payoff)
    # 4. The document, and its proof.
    document = _document(book, found, share, price, lines, payoff, transfers)
    return _certified(book, document, transfers)


def _allocated(book: Book, path: str) -> Award:
    try:
        found = award(book.market, nodes=book.rules.nodes, path=path)
        if book.rules.policy == WELFARE:
            return found
        return found.chosen_otherwise(_chosen(book))
    except NotCleared as reason:
        if not book.market.floor.any():
            raise
        raise _impossible_floors(book) or reason from None


def _chosen(book: Book) -> Array:
    """The award of another policy than welfare, share of each column, (K,)."""
    from economics.policies import policy_of  # noqa: PLC0415 the default needs none of them
    from economics.policies.question import question_of  # noqa: PLC0415

    return policy_of(book.rules.policy)(question_of(book))


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
    left: dict[int, int | None] = {}  # what is left of the budgets, micro-credits
    taken = np.flatnonzero(share > 0)
    hours = np.round(market.gpu_hours[taken] * share[taken], DECIMALS)
    due = accounts.payments_micro(price[market.pool[taken]], hours)
    for column, gpu_hours, amount in zip(taken.tolist(), hours.tolist(), due, strict=True):
        job, pool = int(market.job[column]), int(market.pool[column])
        purse = left.setdefault(job, book.budget_micro(job))
        pays = amount if purse is None else min(amount, purse)
        left[job] = None if purse is None else purse - pays
        paid[column] = pays / MICRO
        lines.append(
            {
                "job": book.jobs[job].id,
                "pool": book.pools[pool].id,
                "gpu_hours": gpu_hours + 0.0,
                "msamples": _number(market.msamples[column] * share[column]),
                "payment_micro": pays,
            }
        )
    return lines, paid


def _transfers(book: Book, found: Award, share: Array, price: Array, payoff: Array) -> Transfers:
    """None where prices alone keep the core: then no coalition can gain more than the regret."""
    market, none = book.market, (0,) * len(book.sites)
    path = measured(f"path_{found.path}", 0.0, 0.0)
    if not book.rules.core_repair or not found.best:
        return Transfers(none, (path,))
    size = max(1.0, found.welfare)
    rent = np.maximum(price - market.reserve, 0.0)
    regret = accounts.regret(market, share, rent)
    if regret <= RELATIVE * size / 2:
        return Transfers(none, (path,))
    if pricing.keeps_core(market):
        searched = () if found.sees_all else (measured("core_searched", 0.0, RELATIVE * size),)
        return Transfers(none, (path, *searched))
    mended = found.repair(payoff, rent, STILL * size)
    micro = _micro_parts(mended.transfer)
    kept = payoff + np.array(micro, dtype=float) / MICRO
    return Transfers(
        micro,
        (
            path,
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
    found: Award,
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
