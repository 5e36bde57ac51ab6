"""The curves as those may see them who bid against each other: no single bid shows.

A step of a demand curve is one job's bid. So steps are drawn together into blocks, each of several
tenants' GPU-hours, none of them most of it, at the block's mean price; a curve that too few tenants
make is withheld, and so are the ends of intervals there, which are single bids too. (The threshold
and dominance rules of official statistics: Hundepool and others, "Statistical Disclosure Control",
2012, 4.2.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from economics.curves.cleared import Cleared, number
from economics.curves.demand import Lookup, Points, Steps, demand_of, look_up
from economics.market import Index

CROWD = 3  # tenants that a block needs at least
MOST = 0.75  # of a block's GPU-hours that one tenant may have


def public_curves(cleared: Cleared, document: Mapping[str, Any]) -> dict[str, Any]:
    """`document`, made by `curves` of the same round, with everything taken out that tells a bid.

    Jobs of one tenant count as one; without a `tenant` in the book, those of one site.
    """
    lookup, place = look_up(cleared), {row.id: at for at, row in enumerate(cleared.book.pools)}
    return {
        **document,
        "pools": [_pool(cleared, row, place[row["id"]], lookup) for row in document["pools"]],
        "gpus": [_kind(cleared, row, lookup) for row in document["gpus"]],
    }


def without_merit(row: Mapping[str, Any]) -> dict[str, Any]:
    """A pool as its own site may see it: every step, but not whose it is."""
    return {key: value for key, value in row.items() if key != "merit"}


def _pool(cleared: Cleared, row: Mapping[str, Any], at: int, lookup: Lookup) -> dict[str, Any]:
    demand = _blurred(cleared, np.array([at], dtype=np.int64), lookup)
    return {
        **without_merit(row),
        "wanted": None,
        "at_any_price": None,
        "demand": demand,
        "crossing": None,
        "interval": outward(row["interval"]) if demand is not None else None,
    }


def _kind(cleared: Cleared, row: Mapping[str, Any], lookup: Lookup) -> dict[str, Any]:
    pools = cleared.book.pools
    at = np.flatnonzero([pool.gpu == row["gpu"] for pool in pools])
    return {
        **row,
        "at_any_price": None,
        "demand": _blurred(cleared, at, lookup),
        "crossing": None,
    }


def outward(interval: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The interval with each end moved out to two significant digits: an end is one job's bid."""
    if interval is None:
        return None
    ends = {
        "lowest": _short(interval["lowest"], math.floor),
        "highest": _short(interval["highest"], math.ceil),
    }
    return {**interval, **ends, "position": None}


def _short(price: float, whole: Callable[[float], int]) -> float:
    if price <= 0:
        return 0.0
    step = Decimal(10) ** (math.floor(math.log10(price)) - 1)
    return float(step * whole(float(Decimal(repr(price)) / step)))


def _blurred(cleared: Cleared, pools: Index, lookup: Lookup) -> Points | None:
    rows = cleared.book.jobs
    steps = demand_of(cleared, pools, lookup)
    return blocks(steps, [rows[job].tenant or rows[job].site for job in steps.job.tolist()])


def blocks(steps: Steps, owners: list[str]) -> Points | None:
    """Steps drawn together, dearest first; None when no block at all has a crowd.

    What is left over at the cheap end, of too few tenants, is left out.
    """
    found: Points = []
    held: dict[str, float] = defaultdict(float)
    start, paid = 0.0, 0.0
    for owner, hours, worth in zip(owners, steps.hours.tolist(), steps.worth.tolist(), strict=True):
        held[owner] += hours
        paid += hours * worth
        total = sum(held.values())
        if len(held) >= CROWD and max(held.values()) <= MOST * total:
            found.append([number(start), number(paid / total)])
            start, paid = start + total, 0.0
            held.clear()
    return [*found, [number(start), None]] if found else None
