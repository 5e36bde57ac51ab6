"""`hanse.curves/1`: supply, demand and price of every pool and GPU type of a round, as data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from economics.book import Book
from economics.curves.cleared import Cleared, number, numbers
from economics.curves.demand import (
    Crossing,
    Lookup,
    Steps,
    crossing,
    demand_of,
    look_up,
    own_steps,
    points,
    supply_points,
)
from economics.curves.interval import Interval, price_intervals
from economics.market import Array, Index

CURVES_FORMAT = "hanse.curves/1"
MOST_COLUMNS = 20_000  # columns up to which the interval of every pool is worked out unasked


def curves(
    cleared: Cleared,
    *,
    pools: Collection[str] | None = None,
    merit: bool = True,
    intervals: bool | None = None,
) -> dict[str, Any]:
    """The document. Pools by id, GPU types by name, merit orders dearest (cheapest) first.

    `pools`: ids of the pools to write; None = all. `merit`: whether to list the jobs of each pool.
    `intervals`: whether to solve for price intervals; None = when pools are named or the book is
    small. Raises NotCleared when a solver proves no optimum.
    """
    book = cleared.book
    shown = [at for at, row in enumerate(book.pools) if pools is None or row.id in pools]
    found = _intervals(cleared, shown, intervals, asked=pools is not None)
    lookup = look_up(cleared)
    kinds = sorted({book.pools[at].gpu for at in shown})
    return {
        "format": CURVES_FORMAT,
        "book_sha256": book.sha256,
        "clearing_sha256": cleared.sha256,
        "pools": [_pool(cleared, at, lookup, found.get(at), merit=merit) for at in shown],
        "gpus": [_kind(cleared, kind, lookup) for kind in kinds],
    }


def has_intervals(book: Book) -> bool:
    """Whether supporting prices mean anything: under a policy that maximises the surplus."""
    return book.rules.policy == "surplus"


def _intervals(
    cleared: Cleared, shown: list[int], wanted: bool | None, *, asked: bool
) -> Mapping[int, Interval]:
    small = asked or cleared.book.market.columns <= MOST_COLUMNS
    if not has_intervals(cleared.book) or not (small if wanted is None else wanted):
        return {}
    return price_intervals(cleared, shown)


def _pool(
    cleared: Cleared, at: int, lookup: Lookup, interval: Interval | None, *, merit: bool
) -> dict[str, Any]:
    market, row = cleared.book.market, cleared.book.pools[at]
    only = np.array([at], dtype=np.int64)
    steps, price = demand_of(cleared, only, lookup), float(cleared.price[at])
    least, most = steps.wanted(price, cleared.close)
    written = {
        "id": row.id,
        "site": row.site,
        "gpu": row.gpu,
        "gpu_hours": number(market.capacity[at]),
        "reserve": number(row.reserve),
        "price": number(price),
        "sold": number(cleared.sold[at]),
        "wanted": {"least": number(least), "most": number(most)},
        **_curve(cleared, steps, only),
        "interval": _interval(cleared, interval, price),
    }
    return {**written, "merit": _merit(cleared, at, lookup)} if merit else written


def _kind(cleared: Cleared, kind: str, lookup: Lookup) -> dict[str, Any]:
    market, rows = cleared.book.market, cleared.book.pools
    at = np.flatnonzero([row.gpu == kind for row in rows])
    sold, total = float(cleared.sold[at].sum()), float(market.capacity[at].sum())
    return {
        "gpu": kind,
        "gpu_hours": number(total),
        "sold": number(sold),
        "price": _mean_price(cleared, at),
        **_curve(cleared, demand_of(cleared, at, lookup), at),
        "merit": _supply(cleared, at),
    }


def _mean_price(cleared: Cleared, at: Index) -> float | None:
    """Mean price of the GPU-hours sold; None when none was."""
    sold = cleared.sold[at]
    return number(cleared.price[at] @ sold / sold.sum()) if sold.sum() > 0 else None


def _curve(cleared: Cleared, steps: Steps, at: Index) -> dict[str, Any]:
    market = cleared.book.market
    capacity, reserve = market.capacity[at], market.reserve[at]
    met = crossing(steps, capacity, reserve)
    return {
        "at_any_price": number(steps.fixed),
        "demand": points(steps),
        "supply": supply_points(capacity, reserve),
        "crossing": _crossing(met),
    }


def _crossing(met: Crossing) -> dict[str, float | None]:
    return {
        "lowest": None if met.lowest is None else number(met.lowest),
        "highest": None if met.highest is None else number(met.highest),
    }


def _interval(cleared: Cleared, found: Interval | None, price: float) -> dict[str, Any] | None:
    """Ends, and where the posted price lies: 0 at the lowest, 1 at the highest."""
    if found is None:
        return None
    below = price < found.lowest - cleared.close
    above = price > found.highest + cleared.close
    position = None
    if found.highest - found.lowest > cleared.close:
        position = number((price - found.lowest) / (found.highest - found.lowest))
    return {
        "lowest": number(found.lowest),
        "highest": number(found.highest),
        "position": position,
        "posted": "below" if below else "above" if above else "inside",
    }


def _merit(cleared: Cleared, at: int, lookup: Lookup) -> list[dict[str, Any]]:
    """Jobs by what a GPU-hour here is worth to them, dearest first."""
    steps, rows = own_steps(cleared, at, lookup), cleared.book.jobs
    sold = _sold_steps(cleared, at, steps, lookup)
    columns = zip(
        steps.job.tolist(),
        numbers(steps.worth),
        numbers(steps.hours),
        numbers(np.cumsum(steps.hours)),
        numbers(sold),
        strict=True,
    )
    return [
        {"job": rows[job].id, "worth": worth, "gpu_hours": hours, "cumulative": total, "sold": got}
        for job, worth, hours, total, got in columns
    ]


def _sold_steps(cleared: Cleared, at: int, steps: Steps, lookup: Lookup) -> Array:
    """GPU-hours of each step that the round awarded here: a job's dearest steps first, (T,)."""
    market = cleared.book.market
    here = lookup.by_pool[lookup.pool_start[at] : lookup.pool_start[at + 1]]
    hours = market.gpu_hours[here] * cleared.share[here]
    awarded = np.bincount(market.job[here], hours, minlength=market.jobs)
    order = np.argsort(steps.job, kind="stable")
    job, taken = steps.job[order], steps.hours[order]
    upto = np.cumsum(taken)
    first = np.searchsorted(job, job, side="left")
    before = upto - taken - (upto - taken)[first]
    sold = np.empty(steps.hours.shape)
    sold[order] = np.clip(awarded[job] - before, 0.0, taken)
    return sold


def _supply(cleared: Cleared, at: Index) -> list[dict[str, Any]]:
    """Pools of one GPU type by reserve, cheapest first, then by id."""
    market, rows = cleared.book.market, cleared.book.pools
    order = at[np.argsort(market.reserve[at], kind="stable")]
    upto = np.cumsum(market.capacity[order])
    return [
        {
            "pool": rows[pool].id,
            "reserve": number(market.reserve[pool]),
            "gpu_hours": number(market.capacity[pool]),
            "cumulative": number(total),
            "sold": number(cleared.sold[pool]),
            "price": number(cleared.price[pool]),
        }
        for pool, total in zip(order.tolist(), upto.tolist(), strict=True)
    ]
