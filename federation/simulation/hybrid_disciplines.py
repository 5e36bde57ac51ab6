"""Disciplines for devices of several types: arrival order, greedy shortest job, AlloX.

Shapes: W waiting jobs · F free devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index
from economics.policies.fairness import ever_more
from economics.policies.matching import Work, match
from federation.simulation.hybrid_cluster import Hall


@dataclass(frozen=True, slots=True)
class FirstComeAny:
    """The first to arrive takes the free device that suits it best, however badly."""

    def starts(self, hall: Hall) -> list[tuple[int, int]]:
        job = int(hall.waiting[0])
        times = hall.trace.believed[job, hall.type[hall.free]]
        return [(job, int(hall.free[times.argmin()]))]


@dataclass(frozen=True, slots=True)
class FirstComeFastest:
    """Each job waits for the type it is fastest on, in the order of arrival."""

    def starts(self, hall: Hall) -> list[tuple[int, int]]:
        waiting, free = hall.waiting, hall.free
        wanted = hall.trace.believed[waiting].argmin(axis=1)
        for kind in np.unique(hall.type[free]):
            queue = waiting[wanted == kind]
            if queue.size:
                return [(int(queue[0]), int(free[hall.type[free] == kind][0]))]
        return []


@dataclass(frozen=True, slots=True)
class ShortestJob:
    """Greedy: of all waiting jobs and free devices the pair that is over soonest."""

    def starts(self, hall: Hall) -> list[tuple[int, int]]:
        waiting, free = hall.waiting, hall.free
        times: Array = hall.trace.believed[np.ix_(waiting, hall.type[free])]  # (W, F)
        at, on = np.unravel_index(times.argmin(), times.shape)
        return [(int(waiting[at]), int(free[on]))]


@dataclass(frozen=True, slots=True)
class Allox:
    """Matching by least total completion time among the users that are served least."""

    alpha: float = 1.0
    most: int = 50  # jobs matched at once

    def starts(self, hall: Hall) -> list[tuple[int, int]]:
        waiting = hall.waiting
        users = hall.trace.user[waiting]
        served = (hall.scores(), hall.progress())
        for chosen in ever_more(*served, np.unique(users), self.alpha):
            jobs = self._shortlist(hall, waiting[np.isin(users, chosen)])
            begun = _first_of_free(hall, jobs)
            if begun:
                return begun
        return []

    def _shortlist(self, hall: Hall, jobs: Index) -> Index:
        """The shortest jobs of each type in turn, as many as are matched at once."""
        if jobs.size <= self.most:
            return jobs
        lists = np.argsort(hall.trace.believed[jobs], axis=0, kind="stable")  # (W, T)
        _, first = np.unique(lists.ravel(), return_index=True)
        taken = lists.ravel()[np.sort(first)][: self.most]
        return jobs[np.sort(taken)]


def _first_of_free(hall: Hall, jobs: Index) -> list[tuple[int, int]]:
    """What a matching of these jobs would start now."""
    work = Work(
        time=hall.trace.believed[np.ix_(jobs, hall.type)],
        available=hall.available,
        release=hall.trace.arrival[jobs],
    )
    found = match(work)
    first = found.first()
    device = found.machine[first]
    now = np.isin(device, hall.free)
    return [(int(jobs[j]), int(d)) for j, d in zip(first[now], device[now], strict=True)]
