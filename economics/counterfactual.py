"""The round as it would have been: without one tenant, or with one bid more.

A tenant's *marginal contribution* is the largest surplus of the book less the largest surplus
without that tenant's jobs. It is what the tenant would keep under Vickrey-Clarke-Groves payments
(Vickrey 1961, Clarke 1971, Groves 1973). Nobody pays by it here: it is a report. The award must be
optimal for those payments to be truthful, so a figure is `exact` only when both surpluses are
proved to TOLERANCE and no job is whole or nothing; and the payments of all tenants together may
fall short of what sites bid, when sites bid strategically too.

By weak duality at *any* prices, and so at the published ones, without re-clearing:

    contribution >= sum of the best bundles of the tenant's jobs - regret of the round

Documents in, values out. Credits per round unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from economics import accounts
from economics.book import MICRO, Book, read_book
from economics.clearing.allocation import linear_of, solve_whole
from economics.clearing.paths import FEW_COLUMNS, award
from economics.clearing.program import program_of
from economics.clearing.solver import minimise
from economics.clearing.tiers.grouping import group_market, misfits
from economics.clearing.tiers.search import tiers_of
from economics.errors import BadBook, NotCleared, Problem
from economics.market import COLUMN_ARRAYS, Array, Market, Mask
from economics.rounds import decide

TOLERANCE = 1e-6  # of the surplus, to which both sides of a contribution must be proved
NOTICEABLE = 1e-6  # share of its GPU-hours a job may lose and still count as served as before
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tenant has from a round as it was cleared."""

    tenant: str
    jobs: int
    gpu_hours: float
    share: float  # of all GPU-hours traded
    worth: float  # of what is delivered, less transfer, extra and moving
    paid: float
    surplus: float  # worth less paid
    at_least: float  # its marginal contribution is not less: certified at the published prices


@dataclass(frozen=True, slots=True)
class Contribution:
    """What the federation would lose without a tenant."""

    tenant: str
    marginal: float  # surplus with the tenant less surplus without
    low: float  # the true figure lies between these two
    high: float
    would_pay: float  # what Vickrey, Clarke and Groves would charge for the award it has
    exact: bool  # both surpluses are proved to TOLERANCE and every job is divisible


@dataclass(frozen=True, slots=True)
class Displaced:
    """A job that would have had less, GPU-hours."""

    job: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the bid would have run."""

    pool: str
    gpu_hours: float
    msamples: float
    price: float  # credits per GPU-hour
    price_before: float
    payment_micro: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What the round would have said to one bid more."""

    placed: tuple[Placed, ...]  # empty = it would not have run
    reason: str  # as in a clearing; empty when it is served in full
    why: str
    would_run_at: Mapping[str, Any] | None  # pool, and bid in credits per Msample
    displaced: tuple[Displaced, ...]


def tenants(document: Document) -> tuple[str, ...]:
    """Tenants named by the jobs of a book, sorted."""
    return tuple(sorted({job["tenant"] for job in document["jobs"] if job.get("tenant")}))


def without(document: Document, tenant: str) -> dict[str, Any]:
    """The book without a tenant's jobs and their floors. Raises BadBook when it has no job."""
    gone = {job["id"] for job in document["jobs"] if job.get("tenant") == tenant}
    if not gone:
        raise BadBook((Problem("jobs", f"none is of tenant {tenant!r}"),))
    kept = {**document, "jobs": [job for job in document["jobs"] if job["id"] not in gone]}
    if "floors" in document:
        kept["floors"] = [row for row in document["floors"] if row["job"] not in gone]
    return kept


def standings(document: Document, clearing: Document) -> tuple[Standing, ...]:
    """Every tenant's standing in a round, by name; no solver is used. Raises BadBook when the
    clearing is that of another book."""
    book = _read(document, clearing)
    share, paid = _award(book, clearing)
    market = book.market
    rent = _rents(book, clearing)
    best = accounts.best_gain(market, rent)
    regret = max(float(clearing["regret"]), 0.0)
    worth, hours = _worth(market, share), _hours(market, share)
    total = float(hours.sum())
    found = []
    for tenant in tenants(document):
        mine = _of(book, tenant)
        cost = float(paid[mine].sum())
        found.append(
            Standing(
                tenant=tenant,
                jobs=int(np.count_nonzero(mine)),
                gpu_hours=float(hours[mine].sum()),
                share=float(hours[mine].sum()) / total if total else 0.0,
                worth=float(worth[mine].sum()),
                paid=cost,
                surplus=float(worth[mine].sum()) - cost,
                at_least=max(float(best[mine].sum()) - regret, 0.0),
            )
        )
    return tuple(found)


def large(found: Sequence[Standing], share: float) -> tuple[str, ...]:
    """Tenants worth a re-clear: those with at least this share of the GPU-hours traded."""
    return tuple(row.tenant for row in found if row.share > 0 and row.share >= share)


def marginal_contribution(document: Document, clearing: Document, tenant: str) -> Contribution:
    """Re-clear without a tenant's jobs. Raises BadBook when it has none, NotCleared.

    Under another policy than maximum surplus the round itself says nothing of the largest
    surplus, so the book is cleared a second time with everybody.
    """
    book = _read(document, clearing)
    mine = _of(book, tenant)
    if not mine.any():
        raise BadBook((Problem("jobs", f"none is of tenant {tenant!r}"),))
    nodes, rent = book.rules.nodes, _rents(book, clearing)
    if book.rules.policy == "surplus":
        welfare, bound = float(clearing["welfare"]), float(clearing["bound"])
    else:
        welfare, bound = largest_surplus(book.market, nodes=nodes, start=rent)
    rest = _without_jobs(book.market, mine)
    rest_welfare, rest_bound = largest_surplus(rest, nodes=nodes, start=rent)
    share, _ = _award(book, clearing)
    worth = float(_worth(book.market, share)[mine].sum())
    marginal = max(welfare - rest_welfare, 0.0)
    loose = (bound - welfare) + (rest_bound - rest_welfare)
    return Contribution(
        tenant=tenant,
        marginal=marginal,
        low=max(welfare - rest_bound, 0.0),
        high=max(bound - rest_welfare, 0.0),
        would_pay=worth - marginal,
        exact=book.market.divisible and loose <= TOLERANCE * max(1.0, welfare),
    )


def largest_surplus(market: Market, *, nodes: int, start: Array) -> tuple[float, float]:
    """The largest surplus of a market and a proven upper bound on it, credits.

    No tie is settled and no price is made: a surplus needs neither. `start`, rents (P,) of the
    round, saves time and changes nothing. Raises NotCleared.
    """
    if not market.columns:
        return 0.0, 0.0
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        return _largest(market, nodes, start)


def _largest(market: Market, nodes: int, start: Array) -> tuple[float, float]:
    if market.columns <= FEW_COLUMNS or misfits(market).any():
        return _by_programme(market, nodes)
    if market.gang[market.job].any():
        found = award(market, nodes=nodes)
        return found.welfare, found.bound
    try:
        tiers = tiers_of(
            group_market(market).demand, market.capacity, tolerance=TOLERANCE / 10, start=start
        )
    except NotCleared:
        return _by_programme(market, nodes)
    return tiers.value, max(tiers.bound, tiers.value)


def _by_programme(market: Market, nodes: int) -> tuple[float, float]:
    program = program_of(market)
    linear = linear_of(program)
    solved = solve_whole(program, nodes=nodes) if program.integral else minimise(linear)
    return -solved.objective, max(-solved.bound, -solved.objective)


def with_bid(document: Document, bid: Document, speeds: Sequence[Document]) -> dict[str, Any]:
    """The book with one job more, and `speeds` (affinity rows) where the book has none.

    Raises BadBook when a job of this id is there already.
    """
    if any(job["id"] == bid["id"] for job in document["jobs"]):
        raise BadBook((Problem("jobs", f"{bid['id']!r} is in the book already"),))
    known = {_cell(row) for row in document["affinity"]}
    pools = {row["id"] for row in document["pools"]}
    more = [row for row in speeds if row["pool"] in pools and _cell(row) not in known]
    return {
        **document,
        "jobs": [*document["jobs"], bid],
        "affinity": [*document["affinity"], *more],
    }


def quote(
    document: Document, clearing: Document, bid: Document, speeds: Sequence[Document] = ()
) -> Quote:
    """What a round would have said to one bid more. Raises as `economics.rounds.decide` does."""
    answer = decide(read_book(with_bid(document, bid, speeds)))
    name = bid["id"]
    before, after = _served(clearing), _served(answer)
    unplaced = next((row for row in answer["unplaced"] if row["job"] == name), None)
    return Quote(
        placed=tuple(
            Placed(
                pool=line["pool"],
                gpu_hours=line["gpu_hours"],
                msamples=line["msamples"],
                price=answer["prices"][line["pool"]],
                price_before=clearing["prices"][line["pool"]],
                payment_micro=line["payment_micro"],
            )
            for line in answer["allocation"]
            if line["job"] == name
        ),
        reason=unplaced["reason"] if unplaced else "",
        why=unplaced["why"] if unplaced else "",
        would_run_at=unplaced["would_run_at"] if unplaced else None,
        displaced=tuple(
            Displaced(job, hours, after.get(job, 0.0))
            for job, hours in sorted(before.items())
            if after.get(job, 0.0) < hours * (1 - NOTICEABLE)
        ),
    )


def _read(document: Document, clearing: Document) -> Book:
    book = read_book(document)
    if clearing["book_sha256"] != book.sha256:
        raise BadBook((Problem("clearing.book_sha256", "is that of another book"),))
    return book


def _rents(book: Book, clearing: Document) -> Array:
    """What each pool cleared at above its reserve, (P,)."""
    price = np.array([clearing["prices"][row.id] for row in book.pools], dtype=float)
    rent: Array = np.maximum(price - book.market.reserve, 0.0)
    return rent


def _of(book: Book, tenant: str) -> Mask:
    return np.array([row.tenant == tenant for row in book.jobs], dtype=bool)


def _without_jobs(market: Market, gone: Mask) -> Market:
    """The market without any way to serve these jobs; what was promised to them falls too."""
    kept = ~gone[market.job]
    columns = {name: getattr(market, name)[kept] for name in COLUMN_ARRAYS}
    return replace(market, floor=np.where(gone, 0.0, market.floor), **columns)


def _award(book: Book, clearing: Document) -> tuple[Array, Array]:
    """A clearing's shares (K,) and what each job paid (J,), credits."""
    market = book.market
    jobs = {row.id: at for at, row in enumerate(book.jobs)}
    pools = {row.id: at for at, row in enumerate(book.pools)}
    share, paid = np.zeros(market.columns), np.zeros(market.jobs)
    for line in clearing["allocation"]:
        job = jobs[line["job"]]
        at = market.columns_of(job)
        off = np.abs(market.gpu_hours[at] - line["gpu_hours"]) if market.gang[job] else 0.0
        elsewhere = market.pool[at] != pools[line["pool"]]
        column = at.start + int(np.argmin(np.where(elsewhere, np.inf, off)))
        share[column] = line["gpu_hours"] / market.gpu_hours[column]
        paid[job] += line["payment_micro"] / MICRO
    return share, paid


def _worth(market: Market, share: Array) -> Array:
    """Credits each job's delivery is worth after transfer, extra and moving, (J,)."""
    worth = np.bincount(market.job, (market.value - market.cost) * share, market.jobs)
    result: Array = worth - accounts.moving(market, share)
    return result


def _hours(market: Market, share: Array) -> Array:
    """GPU-hours each job has, (J,)."""
    hours: Array = np.bincount(market.job, market.gpu_hours * share, market.jobs).astype(float)
    return hours


def _served(clearing: Document) -> dict[str, float]:
    """GPU-hours of every job that has any."""
    hours: dict[str, float] = {}
    for line in clearing["allocation"]:
        hours[line["job"]] = hours.get(line["job"], 0.0) + line["gpu_hours"]
    return hours


def _cell(row: Document) -> tuple[str, str, int]:
    return row["pool"], row["class"], row.get("gpus", 1)
