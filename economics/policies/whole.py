"""Whole gangs out of parts of a round: who runs this time, and where.

A policy says which part of the round each gang should have and how much of that in each pool. Gangs
are served in this order:

1. those that should have the whole round,
2. then by the part they should have over 1 + the rounds they already had, largest first,
3. then the larger part, then the smaller id.

First each takes a column of which the policy gave its kind something: the one in the pool where it
runs while some of that is left, else the one most is left of. Then, in the same order, those that
found no room take any column that has: where they run, else the one that delivers most. So a gang
waits only when it fits nowhere, and over the rounds each has about the part it should.

Source: the order is that of Gavel's priorities (Narayanan and others, "Heterogeneity-aware cluster
scheduling policies for deep learning workloads", OSDI 2020): what a job should have over what it
had.
Axes: P pools · J jobs · K columns · A ways.
"""

from __future__ import annotations

import numpy as np

from economics.market import Array, Index, Market

ROOM = 1e-9  # relative; GPU-hours this close to fitting fit
ALL = 1 - 1e-9  # a part of the round this large is the whole round
SOME = 1e-9  # a smaller part is none
SECONDS = 3600.0


def place_gangs(market: Market, part: Array, way: Index, room: Array, attained: Array) -> Array:
    """Which columns run, (K,) of 0 and 1.

    `part` (K,) of the round is what each gang should have in the column; columns of one `way` (K,)
    are alike, -1 is never used. `room` (P,) is in GPU-hours, `attained` (J,) in GPU-seconds.
    """
    gangs = market.gang[market.job] & (way >= 0)
    desk = _Desk(market, np.where(gangs, part, 0.0), np.where(gangs, way, -1), room)
    waiting = [job for job in _order(market, part, attained) if not desk.place_as_planned(job)]
    for job in waiting:
        desk.place_anywhere(job)
    return desk.share


def _order(market: Market, part: Array, attained: Array) -> list[int]:
    """Gangs that have a column, in the order they are served."""
    smallest = np.full(market.jobs, np.inf)
    np.minimum.at(smallest, market.job, market.gpu_hours)
    should = np.bincount(market.job, weights=part, minlength=market.jobs)
    should = np.where(should >= ALL, 1.0, should)
    jobs = np.flatnonzero(market.gang & np.isfinite(smallest))
    had = attained[jobs] / SECONDS / smallest[jobs]
    urgent = should[jobs] / (1.0 + had)
    order = np.lexsort((jobs, -should[jobs], -urgent, should[jobs] < 1.0))
    placed: list[int] = jobs[order].tolist()
    return placed


class _Desk:
    """Places gangs one by one. Plain lists: it looks at one column at a time."""

    def __init__(self, market: Market, part: Array, way: Index, room: Array) -> None:
        self.share = np.zeros(market.columns)
        self._room: list[float] = (room + ROOM * market.capacity).tolist()
        self._pool: list[int] = market.pool.tolist()
        self._hours: list[float] = market.gpu_hours.tolist()
        self._output: list[float] = market.msamples.tolist()
        self._stays: list[bool] = market.stays.tolist()
        self._way: list[int] = way.tolist()
        self._first: list[int] = np.searchsorted(market.job, np.arange(market.jobs + 1)).tolist()
        planned = np.bincount(way + 1, weights=part)
        planned[0] = 0.0
        self._planned: list[bool] = (planned > SOME).tolist()
        self._left: list[float] = planned.tolist()

    def place_as_planned(self, job: int) -> bool:
        """Into a column that was planned for its kind; False when none has room."""
        best, key = -1, (False, 0.0, 0.0, 0.0)
        for column in self._open(job):
            at = self._way[column] + 1
            if not self._planned[at]:
                continue
            left = self._left[at]
            stays = self._stays[column] and left > SOME
            found = (stays, left, self._output[column], -self._hours[column])
            if best < 0 or found > key:
                best, key = column, found
        if best >= 0:
            self._left[self._way[best] + 1] -= 1.0
        return self._take(best)

    def place_anywhere(self, job: int) -> bool:
        """Into the column it runs in, else the one that delivers most; False when none has room."""
        best, key = -1, (False, 0.0, 0.0)
        for column in self._open(job):
            found = (self._stays[column], self._output[column], -self._hours[column])
            if best < 0 or found > key:
                best, key = column, found
        return self._take(best)

    def _open(self, job: int) -> list[int]:
        """The job's columns that have room."""
        return [
            column
            for column in range(self._first[job], self._first[job + 1])
            if self._way[column] >= 0 and self._hours[column] <= self._room[self._pool[column]]
        ]

    def _take(self, column: int) -> bool:
        if column < 0:
            return False
        self._room[self._pool[column]] -= self._hours[column]
        self.share[column] = 1.0
        return True
