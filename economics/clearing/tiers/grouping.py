"""From a market to groups of lines: which jobs differ in nothing but their bid and their size.

A divisible job that only its width can limit counts GPU-hours, one that only its demand can limit
counts samples, and a gang counts as one. One that both may limit counts hours of its width, and its
group has the same ratio of the two. Whatever does not fit its group is a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from economics.clearing.tiers.demand import Demand, demand_of
from economics.clearing.tiers.ways import (
    ALONE,
    BOTH,
    FINISHING,
    HOURS,
    SAMPLES,
    WHOLE,
    Table,
    table_of,
    ways_of,
)
from economics.market import Array, Index, Market, Mask

SLACK = 1e-12  # relative rounding between a column's samples and its speed
KINDS = 8  # more than there are
MIXER = 0x9E3779B97F4A7C15  # odd: spreads pool numbers over 64 bits


@dataclass(frozen=True, slots=True)
class Grouping:
    """The demand of a market, and the way back to its columns."""

    demand: Demand
    home: Index  # (G,) site
    table: Table
    job: Index  # (K,) for each market column, its job among the demand's
    code: Index  # (K,) job and way of each column, ascending
    ways: int

    def columns_of(self, place: Index, line: Index) -> Iterator[tuple[Index, Index, Array]]:
        """For jobs at places of the order: which of them, the column, GPU-hours per weight."""
        demand, table = self.demand, self.table
        job, group = demand.order[place], demand.group_of(place)
        yield self._uses(job, table.way[group, line], demand.lines.hours[group, line])
        if table.second is not None and demand.lines.more is not None:
            yield self._uses(job, table.second[group, line], demand.lines.more[group, line])

    def _uses(self, job: Index, way: Index, hours: Array) -> tuple[Index, Index, Array]:
        at = np.flatnonzero(hours > 0)
        return at, np.searchsorted(self.code, job[at] * self.ways + way[at]), hours[at]


def misfits(market: Market) -> Mask:
    """Jobs that no line describes, (J,): those with floors or lump sums for moving."""
    served = np.bincount(market.job, minlength=market.jobs) > 0
    special: Mask = served & ~market.gang & ((market.floor > 0) | (market.move_charge > 0))
    return special


def group_market(market: Market) -> Grouping:
    """Group every job that has columns. Raises nothing: `misfits` must be none."""
    kind = _kinds(market)
    jobs = np.unique(market.job)
    ways = ways_of(market)
    alone = (kind == ALONE) | _budget_cut(market, kind, ways)
    key = np.where(alone, market.jobs + np.arange(market.jobs), market.group) * KINDS + kind
    key = _by_ratio(market, kind, key)
    _, group = np.unique(key[jobs], return_inverse=True)
    place = np.full(market.jobs, -1)
    place[jobs] = np.arange(jobs.size)
    kind = np.where(alone & (kind == WHOLE), ALONE, kind)
    table = table_of(market, kind, group[place[market.job]], ways)
    first = np.zeros(table.way.shape[0], dtype=np.int64)
    first[group[::-1]] = jobs[::-1]
    weight = np.select(
        [(kind == HOURS) | (kind == BOTH), kind == SAMPLES],
        [market.width, market.demand],
        default=1.0,
    )
    job = place[market.job]
    return Grouping(
        demand=demand_of(table.lines, group, _bids(market, kind)[jobs], weight[jobs]),
        home=market.home[first],
        table=table,
        job=job,
        code=job * ways[1] + ways[0],
        ways=ways[1],
    )


def _kinds(market: Market) -> Index:
    """What limits each job, (J,)."""
    size = market.jobs
    fastest, slowest = np.zeros(size), np.full(size, np.inf)
    np.maximum.at(fastest, market.job, market.speed)
    np.minimum.at(slowest, market.job, market.speed)
    with np.errstate(invalid="ignore"):
        wide = market.demand >= market.width * fastest * (1 - SLACK)
        narrow = market.demand <= market.width * slowest * (1 + SLACK)
    divisible = np.select([wide, narrow], [HOURS, SAMPLES], default=BOTH)
    full = market.speed * market.gpu_hours
    clipped = market.msamples < full * (1 - SLACK)
    some = np.bincount(market.job[clipped], minlength=size)
    every = np.bincount(market.job, minlength=size)
    gangs = np.select([some == 0, some == every], [WHOLE, FINISHING], default=ALONE)
    kinds: Index = np.where(market.gang, gangs, divisible)
    return kinds


def _bids(market: Market, kind: Index) -> Array:
    """What jobs are sorted by, (J,): per Msample, or for all a finishing gang still wants."""
    wanted = np.where(kind == FINISHING, market.demand, 1.0)
    bids: Array = market.bid * wanted
    return bids


def _by_ratio(market: Market, kind: Index, key: Index) -> Index:
    """Group numbers that also tell apart, of jobs with two limits, their ratio and their columns.

    A column below its job's margin does not exist, so no mix may use it.
    """
    both = np.flatnonzero(kind == BOTH)
    if not both.size:
        return key
    mark = (np.arange(market.pools, dtype=np.uint64) + np.uint64(1)) * np.uint64(MIXER)
    mark ^= mark >> np.uint64(29)
    marks = np.zeros(market.jobs, dtype=np.uint64)
    np.add.at(marks, market.job, mark[market.pool])
    ratio = market.demand[both] / market.width[both]
    _, number = np.unique(
        np.array(
            list(zip(key[both].tolist(), ratio.tolist(), marks[both].tolist(), strict=True)),
            dtype=[("key", np.int64), ("ratio", np.float64), ("marks", np.uint64)],
        ),
        return_inverse=True,
    )
    apart = key.copy()
    apart[both] = int(key.max()) + 1 + number
    return apart


def _budget_cut(market: Market, kind: Index, ways: tuple[Index, int]) -> Mask:
    """Gangs that lack a line of their group for want of budget, not of gain, (J,)."""
    gangs = np.flatnonzero(market.gang & (np.bincount(market.job, minlength=market.jobs) > 0))
    cut = np.zeros(market.jobs, dtype=bool)
    if not gangs.size:
        return cut
    _, group = np.unique(market.group[gangs] * KINDS + kind[gangs], return_inverse=True)
    of_job = np.full(market.jobs, -1)
    of_job[gangs] = group
    used = np.flatnonzero(market.gang[market.job])
    lines = table_of(market, kind, of_job[market.job[used]], ways, used).lines
    bid = _bids(market, kind)[gangs]
    gains = lines.worth[group] * bid[:, None] - lines.charge[group] > 0
    has = np.bincount(market.job[used], minlength=market.jobs)[gangs]
    cut[gangs] = np.count_nonzero(gains, axis=1) > has
    return cut
