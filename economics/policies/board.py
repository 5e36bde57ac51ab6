"""A market as a fleet and a crowd, and needs back as shares of its columns.

Jobs are of one kind when their columns use the same pools at the same speeds and sizes; what they
bid, where they are from and what they pay for transfer plays no part. Divisible jobs that run
already are told apart by where, so that each can stay where it is.

Axes: as in market.py and fleet.py. Entries are jobs with a column, in order; pairs are their
columns, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index, Market, Mask
from economics.policies.deal import deal
from economics.policies.fleet import Crowd, Fleet
from economics.policies.pressure import Pressure

LEAVING = 1.0  # an hour where the job does not run costs this much more than one where it does
APART = 1e-3  # largest difference between hours in different ways, so that no two sets tie
GOLDEN = 0.6180339887498949  # its multiples modulo 1 never repeat


@dataclass(frozen=True, slots=True)
class Board:
    """Some of a market's jobs on what pools have left."""

    market: Market
    jobs: Index  # (E,) market job of each entry
    columns: Index  # (Q,) market column of each pair
    unit: Array  # (Q,) share of the column that a unit is
    fleet: Fleet
    crowd: Crowd
    taste: Array  # (A,) what a unit costs when nothing else decides

    @classmethod
    def of(cls, market: Market, jobs: Mask, capacity: Array) -> Board:
        """The board of these jobs, (J,), on `capacity` (P,) GPU-hours."""
        columns = np.flatnonzero(jobs[market.job] & (capacity[market.pool] > 0))
        columns = columns[_fits(market, columns, capacity)]
        entries, entry = np.unique(market.job[columns], return_inverse=True)
        gang = market.gang[market.job[columns]]
        hours = np.where(gang, market.gpu_hours[columns], 1.0)
        kind, sample = _kinds(market, columns, entry)
        fleet = Fleet(
            capacity=capacity,
            kind=kind[entry[sample]],
            pool=market.pool[columns[sample]],
            hours=hours[sample],
            output=market.speed[columns[sample]] * hours[sample],
            kinds=int(kind.max(initial=-1)) + 1,
        )
        crowd = Crowd(
            kind=kind,
            count=np.ones(entries.size),
            units=np.where(market.gang[entries], 1.0, market.width[entries]),
            most=market.demand[entries],
            least=market.floor[entries],
        )
        unit = hours / market.gpu_hours[columns]
        taste = _taste(fleet, market.stays[columns[sample]] & ~gang[sample])
        return cls(market, entries, columns, unit, fleet, crowd, taste)

    @property
    def way(self) -> Index:
        """The way each column of the market is, (K,); -1 for one that is not on the board."""
        way = np.full(self.market.columns, -1, dtype=np.int64)
        way[self.columns] = self.fleet.ways_of(self.crowd.kind)[1]
        return way

    def shares(self, need: Array) -> Array:
        """Share of each column, (K,), that delivers these needs, (E,) Msamples.

        Fewest hours where divisible jobs do not run yet, then fewest hours, then by way. A gang's
        share is the part of the round it should have.
        """
        share = np.zeros(self.market.columns)
        if self.columns.size:
            pressure = Pressure(self.fleet, self.crowd)
            settled = pressure.settle(need, self.taste)
            units = deal(pressure, settled, need, self.taste)
            share[self.columns] = np.minimum(units * self.unit, 1.0)
            used = np.bincount(self.market.pool, self.market.gpu_hours * share, self.market.pools)
            over = np.divide(used, self.fleet.capacity, out=np.ones(used.shape), where=used > 0)
            share /= np.maximum(over, 1.0)[self.market.pool]  # rounding of the programme
        return share


def _fits(market: Market, columns: Index, capacity: Array) -> Mask:
    """Columns not too wide for what is left: a gang takes all its GPUs or none."""
    pool = market.pool[columns]
    wide = market.gang[market.job[columns]] & (market.gpu_hours[columns] > capacity[pool])
    return ~wide


def _kinds(market: Market, columns: Index, entry: Index) -> tuple[Index, Index]:
    """Number of each entry's kind, (E,), and the pairs that stand for the kinds' ways, (A,)."""
    gang = market.gang[market.job[columns]]
    mark = _joined(
        market.pool[columns],
        gang.astype(np.int64),
        _ranks(market.speed[columns]),
        _ranks(np.where(gang, market.gpu_hours[columns], 0.0)),
        (market.stays[columns] & ~gang).astype(np.int64),
    )
    number = np.bincount(entry)
    before = np.cumsum(number) - number
    kind = np.zeros(number.size, dtype=np.int64)
    samples, known = [np.zeros(0, dtype=np.int64)], 0
    for ways in np.unique(number):
        alike = np.flatnonzero(number == ways)
        pairs = before[alike][:, None] + np.arange(ways)
        _, first, which = np.unique(mark[pairs], axis=0, return_index=True, return_inverse=True)
        kind[alike] = known + which.ravel()
        samples.append(pairs[first].ravel())
        known += first.size
    return kind, np.concatenate(samples)


def _ranks(values: Array) -> Index:
    ranks: Index = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return ranks


def _joined(*marks: Index) -> Index:
    """One number for each combination of marks, in their order."""
    joined = np.zeros(marks[0].shape, dtype=np.int64)
    for mark in marks:
        joined = _ranks_of(joined * (int(mark.max(initial=0)) + 1) + mark)
    return joined


def _ranks_of(numbers: Index) -> Index:
    ranks: Index = np.unique(numbers, return_inverse=True)[1].astype(np.int64)
    return ranks


def _taste(fleet: Fleet, stays: Mask) -> Array:
    """What a unit of each way costs, (A,): its hours, dearer away from where the job runs."""
    runs = np.bincount(fleet.kind, weights=stays, minlength=fleet.kinds) > 0
    away = runs[fleet.kind] & ~stays
    apart = APART * np.modf(GOLDEN * np.arange(1.0, fleet.kind.size + 1))[0]
    taste: Array = fleet.hours * (1.0 + LEAVING * away + apart)
    return taste
