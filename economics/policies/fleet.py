"""Pools shared by many jobs, as a few kinds: the arrays the fairness policies decide from.

Jobs of one *kind* have the same ways to run. A *way* takes so many GPU-hours of one pool for each
unit and delivers so many Msamples: for a gang a unit is the whole round, for a divisible job it is
one GPU-hour. A job has a number of units at most (one for a gang, its width for a divisible job)
and any mix of the ways of its kind. So a round's programme has rows for kinds, whatever the number
of jobs. Jobs that are alike in everything are one *entry* with a count.

Axes: P pools · C kinds · A ways · L ways of the kind that has most · V corners · E entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from economics.market import Array, Index

POSITIVE = 1e-9  # rents below this share of the value of all pools are rounding


@dataclass(frozen=True, slots=True)
class Fleet:
    """Pools, and the ways each kind of job can run on them, sorted by kind."""

    capacity: Array  # (P,) GPU-hours
    kind: Index  # (A,) ascending
    pool: Index  # (A,)
    hours: Array  # (A,) > 0, GPU-hours a unit takes
    output: Array  # (A,) > 0, Msamples a unit delivers
    kinds: int  # C
    first: Index = field(init=False)  # (C,) first way of the kind
    ways: Index = field(init=False)  # (C,) number of its ways
    edges: Array = field(init=False)  # (C, L) outputs of the kind, ascending; inf beyond the last
    quickest: Array = field(init=False)  # (C,) largest output of a unit; 0 without a way

    def __post_init__(self) -> None:
        ways = np.bincount(self.kind, minlength=self.kinds)
        first = np.cumsum(ways) - ways
        edges = self.padded(self.output, ways, first)
        edges.sort(axis=1)
        quickest = np.where(np.isfinite(edges), edges, 0.0).max(axis=1)
        for name, array in (
            *(("ways", ways), ("first", first), ("edges", edges), ("quickest", quickest)),
        ):
            object.__setattr__(self, name, array)

    @classmethod
    def of_table(cls, throughput: Array, gpus: Array, capacity: Array) -> Fleet:
        """Kinds by a table of speeds, (C, P), 0 where a kind cannot run, on `gpus` (C,) each."""
        kind, pool = np.nonzero((throughput > 0) & (capacity > 0))
        return cls(
            capacity=capacity,
            kind=kind,
            pool=pool,
            hours=gpus[kind],
            output=throughput[kind, pool],
            kinds=throughput.shape[0],
        )

    def padded(
        self, amounts: Array, ways: Index | None = None, first: Index | None = None
    ) -> Array:
        """An amount of each way, (A,), as a table by kind, (C, L); inf where there is no way."""
        ways = self.ways if ways is None else ways
        first = self.first if first is None else first
        table = np.full((self.kinds, max(1, int(ways.max(initial=0)))), np.inf)
        table[self.kind, np.arange(self.kind.size) - first[self.kind]] = amounts
        return table

    def ways_of(self, kind: Index) -> tuple[Index, Index]:
        """Every pair of one of these kinds (by its place) and one of its ways, in order."""
        number = self.ways[kind]
        place = np.repeat(np.arange(kind.size), number)
        before = np.cumsum(number) - number
        way = np.arange(place.size) - before[place] + self.first[kind][place]
        return place, way


@dataclass(frozen=True, slots=True)
class Crowd:
    """Jobs, those that are alike as one entry."""

    kind: Index  # (E,)
    count: Array  # (E,) jobs
    units: Array  # (E,) units of one job at most; inf = no limit
    most: Array  # (E,) Msamples of one job at most; inf = no limit
    least: Array  # (E,) Msamples promised to each

    @classmethod
    def of_kinds(cls, kind: Index, kinds: int) -> Crowd:
        """Jobs that their kind says everything about: `kind` (J,) is stored with each job."""
        count = np.bincount(kind, minlength=kinds)
        present = np.flatnonzero(count)
        one = np.ones(present.size)
        return cls(present, count[present].astype(float), one, np.inf * one, 0.0 * one)

    def reach(self, fleet: Fleet) -> Array:
        """Msamples one job can be delivered with all pools to itself, (E,)."""
        alone = np.bincount(
            fleet.kind,
            weights=fleet.output / fleet.hours * fleet.capacity[fleet.pool],
            minlength=fleet.kinds,
        )
        limited = np.isfinite(self.units)
        by_units = np.where(limited, self.units, 0.0) * fleet.quickest[self.kind]
        reach: Array = np.minimum(self.most, np.where(limited, by_units, alone[self.kind]))
        return reach


@dataclass(frozen=True, slots=True)
class Hull:
    """The least a unit's output costs at given rents: a convex line from corner to corner."""

    output: Array  # (C, V) of each corner, ascending from 0; inf beyond the last
    cost: Array  # (C, V)
    slope: Array  # (C, V) cost of more output after the corner; the last one's is that before it
    last: Index  # (C,) number of the last corner

    @classmethod
    def of(cls, fleet: Fleet, rent: Array) -> Hull:
        """Wrap the ways of every kind at once, a corner at a time, from rest; `rent` is (P,)."""
        output = fleet.padded(fleet.output)
        there = np.isfinite(output)
        output = np.where(there, output, 0.0)
        cost = np.where(there, fleet.padded(rent[fleet.pool] * fleet.hours), 0.0)
        kinds, last = np.arange(fleet.kinds), np.zeros(fleet.kinds, dtype=np.int64)
        at, paid = np.zeros(fleet.kinds), np.zeros(fleet.kinds)
        corners, costs, slopes = [at], [paid], []
        while (ahead := there & (output > at[:, None])).any():
            more = ahead.any(axis=1)
            rise = np.full(output.shape, np.inf)
            np.divide(cost - paid[:, None], output - at[:, None], out=rise, where=ahead)
            best = rise.argmin(axis=1)
            slopes.append(np.where(more, rise[kinds, best], 0.0))
            at = np.where(more, output[kinds, best], at)
            paid = np.where(more, cost[kinds, best], paid)
            corners.append(np.where(more, at, np.inf))
            costs.append(paid)
            last += more
        slope = np.stack([*slopes, np.zeros(fleet.kinds)], axis=1)
        slope[kinds, last] = slope[kinds, np.maximum(last - 1, 0)]
        return cls(np.stack(corners, axis=1), np.stack(costs, axis=1), slope, last)

    def corner(self, crowd: Crowd, need: Array) -> Index:
        """The corner each entry stands on or has passed, (E,); one without limit stands on rest."""
        rate = need / crowd.units
        passed: Index = (self.output[crowd.kind] <= rate[:, None]).sum(axis=1) - 1
        return passed

    def price(self, crowd: Crowd, need: Array) -> Array:
        """What delivering its need to one job of each entry costs, (E,)."""
        at, kind = self.corner(crowd, need), crowd.kind
        units = np.where(np.isfinite(crowd.units), crowd.units, 0.0)
        corner = np.where(at > 0, self.output[kind, at], 0.0)
        price: Array = units * self.cost[kind, at] + self.slope[kind, at] * (need - units * corner)
        return price

    def marginal(self, crowd: Crowd, need: Array) -> Array:
        """What a little more would cost per Msample, (E,); inf where there is no more."""
        at, kind = self.corner(crowd, need), crowd.kind
        ended = (at >= self.last[kind]) & np.isfinite(crowd.units)
        marginal: Array = np.where(ended, np.inf, self.slope[kind, at])
        return marginal


def normalised(rent: Array, capacity: Array) -> Array:
    """Rents at which all pools together are worth 1, rounding left out, (P,)."""
    worth = np.maximum(rent, 0.0) * capacity
    worth = worth / worth.sum()
    worth = np.where(worth > POSITIVE, worth, 0.0)
    share: Array = np.divide(worth, capacity, out=np.zeros(worth.shape), where=capacity > 0)
    rents: Array = share / worth.sum()
    return rents
