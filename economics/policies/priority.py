"""Jobs in levels of priority: each level takes what it gains most by from what is left.

What sites were promised comes first: the floors. Then the levels, strictly one after the other,
each by maximum surplus on the GPU-hours the levels above it left. Inside a level the award of
largest surplus is made; between awards of equal surplus the job with less attained service goes
first, then the one with the smaller id.

Shapes: P pools · J jobs · K columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from economics import accounts
from economics.clearing.paths import award
from economics.market import COLUMN_ARRAYS, JOB_ARRAYS, Array, Index, Market

DUST = 1e-9  # relative; less than this of a pool left is nothing


def serve_in_levels(market: Market, level: Index, attained: Array, *, nodes: int) -> Array:
    """Share of each column, (K,), when levels (J,) are served in ascending order.

    Raises NotCleared when a level's programme is not proved, as when floors do not fit together.
    """
    share = serve_floors(market, attained, nodes)
    for number in np.unique(level):
        if not (_left(market, share) > 0).any():
            break
        share = share + _serve(market, np.flatnonzero(level == number), share, attained, nodes)
    return share


def serve_floors(market: Market, attained: Array, nodes: int) -> Array:
    """What is promised and no more, where it gains most, (K,)."""
    promised = np.flatnonzero(market.floor > 0)
    only_that = replace(market, demand=np.where(market.floor > 0, market.floor, market.demand))
    return _serve(only_that, promised, np.zeros(market.columns), attained, nodes)


def _serve(market: Market, jobs: Index, share: Array, attained: Array, nodes: int) -> Array:
    """What these jobs take, (K,), on top of what everybody has."""
    ranked = jobs[np.lexsort((jobs, attained[jobs]))]
    part, columns = _part(remaining(market, share), ranked)
    taken = np.zeros(market.columns)
    if columns.size:
        taken[columns] = award(part, nodes=nodes).share
    return taken


def _left(market: Market, share: Array) -> Array:
    """GPU-hours each pool has left, (P,); dust is nothing."""
    left = market.capacity - accounts.used_hours(market, share)
    return np.where(left > DUST * market.capacity, left, 0.0)


def remaining(market: Market, share: Array) -> Market:
    """The market after an award: less capacity, and jobs want what they were not given.

    A job with a floor that was given has none left; one that paid for moving does not pay again.
    """
    if not share.any():
        return market
    hours = np.bincount(market.job, weights=market.gpu_hours * share, minlength=market.jobs)
    given = accounts.delivered(market, share)
    paid = accounts.moving(market, share) > 0
    return replace(
        market,
        capacity=_left(market, share),
        demand=np.maximum(market.demand - given, 0.0),
        width=np.maximum(market.width - hours, 0.0),
        floor=np.where(given > 0, 0.0, market.floor),
        move_charge=np.where(paid, 0.0, market.move_charge),
    )


def _part(market: Market, jobs: Index) -> tuple[Market, Index]:
    """The market of these jobs alone, numbered in this order, and which columns it has.

    Columns that cannot be used are left out: those of a pool with nothing left, a gang's that is
    wider than what is left, and those of a job that has all it wants.
    """
    number = np.full(market.jobs, -1, dtype=np.int64)
    number[jobs] = np.arange(jobs.size)
    left = market.capacity[market.pool]
    wants = ((market.demand > 0) & (market.width > 0))[market.job]
    whole = market.gang[market.job]
    fits = np.where(whole, market.gpu_hours <= left * (1 + DUST), wants & (left > 0))
    columns = np.flatnonzero((number[market.job] >= 0) & fits)
    columns = columns[np.argsort(number[market.job[columns]], kind="stable")]
    arrays = {name: getattr(market, name)[jobs] for name in JOB_ARRAYS}
    arrays |= {name: getattr(market, name)[columns] for name in COLUMN_ARRAYS}
    arrays["job"] = number[market.job[columns]]
    arrays["group"] = np.unique(arrays["group"], return_inverse=True)[1].astype(np.int64)
    return replace(market, **arrays), columns
