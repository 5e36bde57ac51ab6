"""Demand of one pool, or of several at one common price, while all other prices stay.

A job's best gain is the largest of lines in that price, one line for each bundle: it falls by the
bundle's GPU-hours in these pools. The upper envelope of the lines says how many GPU-hours the job
wants at each price, fewer as the price grows; its corners are the steps of the demand curve. (This
is demand as Walras means it: every job takes a best bundle at the prices; Mas-Colell, Whinston and
Green, "Microeconomic Theory", 1995, 3.D and 10.C.)

Steps are read from above: `worth` is the price up to which the job wants these GPU-hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.curves.bundles import bundles_of, looked_at
from economics.curves.cleared import Cleared
from economics.market import Array, Index, Market, Mask

SAME = 1e-12  # relative; GPU-hours of two bundles nearer than this are the same
LEVEL = 1e-9  # relative to all GPU-hours of a curve; amounts nearer than this are equal

Points = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class Steps:
    """GPU-hours wanted, dearest first, then by job. T steps."""

    job: Index  # (T,)
    hours: Array  # (T,) GPU-hours
    worth: Array  # (T,) credits per GPU-hour
    fixed: float  # GPU-hours wanted at whatever price, for floors

    @property
    def total(self) -> float:
        return float(self.hours.sum()) + self.fixed

    def wanted(self, price: float, near: float = 0.0) -> tuple[float, float]:
        """Least and most GPU-hours that make every job content at the price, give or take near."""
        least = self.hours[self.worth > price + near].sum()
        most = self.hours[self.worth >= price - near].sum()
        return self.fixed + float(least), self.fixed + float(most)


NO_STEPS = Steps(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), 0.0)


@dataclass(frozen=True, slots=True)
class Lines:
    """What each bundle is worth to its job as a line: amount - price x hours."""

    job: Index  # (B,)
    hours: Array  # (B,) GPU-hours in the pools whose price is asked about
    amount: Array  # (B,) credits at a price of zero there


@dataclass(frozen=True, slots=True)
class Crossing:
    """Prices at which what is wanted can be what is on sale; None = without limit."""

    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """Columns by pool, and the columns that may be in a best bundle by job; made once a round."""

    by_pool: Index  # (K,) columns, pool by pool
    pool_start: Index  # (P + 1,) where each pool's columns begin
    tempting: Index  # columns that gain at the posted prices, or whose job has a floor
    job_start: Index  # (J + 1,) where each job's tempting columns begin


def look_up(cleared: Cleared) -> Lookup:
    """A column that gains nothing elsewhere is in no best bundle, except to meet a floor."""
    market = cleared.book.market
    gains = cleared.worth > cleared.price[market.pool]
    tempting = np.flatnonzero(gains | (market.floor > 0)[market.job])
    by_pool = np.argsort(market.pool, kind="stable")
    pool_start = np.searchsorted(market.pool[by_pool], np.arange(market.pools + 1))
    job_start = np.searchsorted(market.job[tempting], np.arange(market.jobs + 1))
    return Lookup(by_pool, pool_start, tempting, job_start)


def demand_of(cleared: Cleared, pools: Index, lookup: Lookup | None = None) -> Steps:
    """Demand of these pools at one common price, all other pools at their posted price.

    Given from the least reserve of these pools on: below it nothing is for sale.
    """
    market, lookup = cleared.book.market, lookup or look_up(cleared)
    columns = _columns_that_matter(market, pools, lookup)
    if not columns.size:
        return NO_STEPS
    inside = np.isin(market.pool[columns], pools)
    worth = cleared.worth[columns]
    margin = np.where(inside, worth, worth - cleared.price[market.pool[columns]])
    found = bundles_of(looked_at(market, columns))
    lines = Lines(
        found.job, found.amounts(inside.astype(float)), found.amounts(margin) - found.charge
    )
    return _steps(market, lines, float(market.reserve[pools].min()), cleared.close)


def own_steps(cleared: Cleared, pool: int, lookup: Lookup | None = None) -> Steps:
    """Merit order of a pool: what each job would take there if it ran nowhere else.

    A job that could run at several sizes has a step for each that pays at some price.
    """
    market, lookup = cleared.book.market, lookup or look_up(cleared)
    columns = lookup.by_pool[lookup.pool_start[pool] : lookup.pool_start[pool + 1]]
    job = market.job[columns]
    alone = not (job[1:] == job[:-1]).any()
    if alone:
        return _dearest_first(job, market.gpu_hours[columns], cleared.worth[columns], 0.0)
    zero = np.zeros(job.shape)
    return envelope(
        np.concatenate([job, job]),
        np.concatenate([zero, market.gpu_hours[columns]]),
        np.concatenate([zero, (market.value - market.cost)[columns]]),
    )


def _columns_that_matter(market: Market, pools: Index, lookup: Lookup) -> Index:
    """Columns in these pools, and the tempting ones elsewhere of the jobs that have one here."""
    start, end = lookup.pool_start[pools], lookup.pool_start[pools + 1]
    here = lookup.by_pool[_ranges(start, end)]
    jobs = _named(market.job[here], market.jobs)
    elsewhere = lookup.tempting[_ranges(lookup.job_start[jobs], lookup.job_start[jobs + 1])]
    inside = np.zeros(market.pools, dtype=bool)
    inside[pools] = True
    elsewhere = elsewhere[~inside[market.pool[elsewhere]]]
    columns: Index = np.sort(np.concatenate([here, elsewhere]))
    return columns


def _named(at: Index, size: int) -> Index:
    """The places that occur, ascending."""
    occurs = np.zeros(size, dtype=bool)
    occurs[at] = True
    return np.flatnonzero(occurs)


def _ranges(start: Index, end: Index) -> Index:
    """start[0] .. end[0] - 1, then start[1] .. end[1] - 1, and so on."""
    count = end - start
    before = np.repeat(np.cumsum(count) - count, count)
    places: Index = np.repeat(start, count) + np.arange(before.size) - before
    return places


def _steps(market: Market, lines: Lines, least: float, near: float) -> Steps:
    """Steps of all jobs from the lines of their bundles, but for those below the least price.

    Most jobs have one line worth drawing: then its only corner is where it meets the flat one. A
    step just below the least price, by as little as prices are rounded, counts as worth that.
    """
    outside = np.where(market.floor == 0, 0.0, -np.inf)
    flat = lines.hours <= 0
    np.maximum.at(outside, lines.job[flat], lines.amount[flat])
    rises = ~flat & (lines.amount - (least - near) * lines.hours >= outside[lines.job])
    job, hours, amount = lines.job[rises], lines.hours[rises], lines.amount[rises]
    single = (np.bincount(job, minlength=market.jobs) == 1)[job] & np.isfinite(outside[job])
    worth = (amount - outside[job])[single] / hours[single]
    several = ~single
    jobs = _named(job[several], market.jobs)
    jobs = jobs[np.isfinite(outside[jobs])]
    rest = envelope(
        np.concatenate([jobs, job[several]]),
        np.concatenate([np.zeros(jobs.shape), hours[several]]),
        np.concatenate([outside[jobs], amount[several]]),
    )
    kept = rest.worth >= least - near
    return _dearest_first(
        np.concatenate([job[single], rest.job[kept]]),
        np.concatenate([hours[single], rest.hours[kept]]),
        np.maximum(np.concatenate([worth, rest.worth[kept]]), least),
        rest.fixed,
    )


def envelope(job: Index, hours: Array, amount: Array) -> Steps:
    """Steps of the upper envelopes of the lines amount - price x hours, one envelope for each job.

    Its first corner is where the price is highest; GPU-hours wanted there are `fixed`.
    """
    kept = _highest_of_equal_hours(job, hours, amount)
    job, hours, amount = job[kept], hours[kept], amount[kept]
    while not (corner := _on_hull(job, hours, amount)).all():
        job, hours, amount = job[corner], hours[corner], amount[corner]
    follows = _follows(job)
    gained = np.diff(amount, prepend=0.0)[follows]
    taken = np.diff(hours, prepend=0.0)[follows]
    fixed = float(hours[~follows].sum())
    worth = gained / taken
    return _dearest_first(job[follows], taken, worth, fixed)


def _dearest_first(job: Index, hours: Array, worth: Array, fixed: float) -> Steps:
    order = np.lexsort((job, -worth))
    return Steps(job[order], hours[order], worth[order], fixed)


def points(steps: Steps) -> Points:
    """The curve as [GPU-hours, price] pairs: from there on, that price; null = wanted at none."""
    if not steps.hours.size:
        return [[round(steps.fixed, 9), None]]
    starts = steps.fixed + np.append(0.0, np.cumsum(steps.hours))
    worth = np.round(steps.worth, 9) + 0.0
    new = np.append(True, worth[1:] != worth[:-1])
    pairs = np.column_stack([np.round(starts[:-1][new], 9), worth[new]])
    return [*pairs.tolist(), [round(float(starts[-1]), 9), None]]


def supply_points(hours: Array, reserve: Array) -> Points:
    """The same for pools, cheapest first: null = no more at any price."""
    order = np.argsort(reserve, kind="stable")
    order = order[hours[order] > 0]
    starts = np.append(0.0, np.cumsum(hours[order]))
    prices = reserve[order]
    new = np.append(True, prices[1:] != prices[:-1]) if prices.size else np.zeros(0, dtype=bool)
    pairs = np.round(np.column_stack([starts[:-1][new], prices[new]]), 9) + 0.0
    return [*pairs.tolist(), [round(float(starts[-1]), 9), None]]


def crossing(steps: Steps, capacity: Array, reserve: Array) -> Crossing:
    """Prices at which the demand and the supply of some pools meet."""
    prices = np.concatenate([steps.worth, reserve])
    if not prices.size:
        return Crossing(None, None)
    total = float(capacity.sum())
    near = LEVEL * max(steps.total, total, LEVEL)
    more, enough = _wanted(steps, prices)
    offered_below, offered = _offered(reserve, capacity, prices)
    clears = steps.fixed + more <= offered + near
    reaches = steps.fixed + enough >= offered_below - near
    endless = 0 < total <= steps.fixed + near
    lowest = float(prices[clears].min()) if clears.any() else None
    highest = None if endless else float(prices[reaches].max())
    return Crossing(lowest, highest)


def _wanted(steps: Steps, prices: Array) -> tuple[Array, Array]:
    """GPU-hours worth more than each price, and at least as much."""
    upto = np.append(0.0, np.cumsum(steps.hours))
    falling = -steps.worth
    more: Array = upto[np.searchsorted(falling, -prices, side="left")]
    enough: Array = upto[np.searchsorted(falling, -prices, side="right")]
    return more, enough


def _offered(reserve: Array, capacity: Array, prices: Array) -> tuple[Array, Array]:
    """GPU-hours with a reserve below each price, and at most as high."""
    order = np.argsort(reserve, kind="stable")
    up_to = np.append(0.0, np.cumsum(capacity[order]))
    ordered = reserve[order]
    below = up_to[np.searchsorted(ordered, prices, side="left")]
    offered = up_to[np.searchsorted(ordered, prices, side="right")]
    return below, offered


def _follows(job: Index) -> Mask:
    """Whether each row has the same job as the row before."""
    same: Mask = np.append(False, job[1:] == job[:-1]) if job.size else np.zeros(0, dtype=bool)
    return same


def _highest_of_equal_hours(job: Index, hours: Array, amount: Array) -> Index:
    """Of lines equally steep the highest one; by job, then by GPU-hours."""
    order: Index = np.lexsort((hours, job))
    ordered = hours[order]
    steeper = np.diff(ordered, prepend=-np.inf) > SAME * ordered
    new = steeper | ~_follows(job[order])
    if new.all():
        return order
    number = np.cumsum(new)
    highest: Index = order[np.lexsort((-amount[order], number))]
    return highest[new]


def _on_hull(job: Index, hours: Array, amount: Array) -> Mask:
    """Drops points on or below the chord of their neighbours; a job's first and last point stay.

    No corner of the hull lies below a chord, so all of them may be dropped at once; repeated until
    none is left.
    """
    keep = np.ones(job.shape, dtype=bool)
    if job.size < 3:
        return keep
    inner = (job[:-2] == job[1:-1]) & (job[1:-1] == job[2:])
    rise, run = np.diff(amount), np.diff(hours)
    keep[1:-1] = ~(inner & (rise[:-1] * run[1:] <= rise[1:] * run[:-1]))
    return keep
