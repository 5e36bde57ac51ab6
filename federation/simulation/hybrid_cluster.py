"""Jobs start on free devices of several types in virtual time; none is ever put back.

Events: arrivals and completions. At each, the discipline says what starts, until it has no more.

Shapes: J jobs · D devices · T device types · U users. Units: seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from economics.market import Array, Index
from federation.simulation.hybrid_trace import HybridTrace

IDLE = -1


class Hall:
    """Devices and waiting jobs while a trace is played."""

    def __init__(self, trace: HybridTrace, devices: tuple[int, ...]) -> None:
        self.trace = trace
        self.now = 0.0
        self.type: Index = np.repeat(np.arange(len(devices)), devices)  # (D,)
        self.job: Index = np.full(self.type.shape, IDLE)  # (D,)
        self.ends: Array = np.zeros(self.type.shape)  # (D,) s, known to nobody
        self.expected: Array = np.zeros(self.type.shape)  # (D,) s, as believed at the start
        self.start: Array = np.full(trace.jobs, np.nan)  # (J,) s
        self.device: Index = np.full(trace.jobs, IDLE)  # (J,)

    @property
    def waiting(self) -> Index:
        """Jobs that have arrived and not started, in the order they arrived."""
        return np.flatnonzero((self.trace.arrival <= self.now) & np.isnan(self.start))

    @property
    def free(self) -> Index:
        return np.flatnonzero(self.job == IDLE)

    @property
    def available(self) -> Array:
        """Moment each device is expected to be free, (D,) s."""
        return np.maximum(np.where(self.job == IDLE, self.now, self.expected), self.now)

    def scores(self) -> Array:
        """Share of the devices each user has, counted as progress, (U,).

        A job on its faster type counts as its share of that type's devices; on another, as that
        share times the speed it has there of its best.
        """
        busy = np.flatnonzero(self.job != IDLE)
        jobs, believed = self.job[busy], self.trace.believed[self.job[busy]]
        best = believed.argmin(axis=1)
        share = 1.0 / np.bincount(self.type, minlength=believed.shape[1])[best]
        speed = believed.min(axis=1) / believed[np.arange(jobs.size), self.type[busy]]
        user = self.trace.user[jobs]
        return _by_user(user, share * speed, self.trace.users)

    def progress(self) -> Array:
        """Seconds of work at its best speed each user was given so far, (U,)."""
        given = np.flatnonzero(~np.isnan(self.start))
        best = self.trace.believed[given].min(axis=1)
        return _by_user(self.trace.user[given], best, self.trace.users)


class HybridDiscipline(Protocol):
    """What starts now. Disciplines hold no state of their own."""

    def starts(self, hall: Hall) -> list[tuple[int, int]]:
        """Pairs of a waiting job and a free device; empty when nothing should start."""
        ...


@dataclass(slots=True)
class HybridStory:
    """What happened."""

    trace: HybridTrace
    start: Array  # (J,) s
    finish: Array  # (J,) s
    device: Index  # (J,)
    gaps: list[tuple[float, float]] = field(default_factory=list)

    @property
    def completion(self) -> Array:
        """Seconds from arrival to finish, (J,)."""
        return self.finish - self.trace.arrival

    @property
    def mean_gap(self) -> float:
        """Difference of the scores of the users that wait, over the time that two or more do."""
        seconds = np.array([seconds for seconds, _ in self.gaps])
        gap = np.array([gap for _, gap in self.gaps])
        return float(seconds @ gap / seconds.sum()) if seconds.any() else 0.0

    @property
    def largest_gap(self) -> float:
        """The same at its largest."""
        return max((gap for seconds, gap in self.gaps if seconds > 0), default=0.0)


def play_hybrid(
    trace: HybridTrace, devices: tuple[int, ...], discipline: HybridDiscipline
) -> HybridStory:
    """Play the trace to its end on so many devices of each type."""
    hall = Hall(trace, devices)
    story = HybridStory(trace, hall.start, np.full(trace.jobs, np.nan), hall.device)
    while np.isnan(story.finish).any():
        while hall.free.size and hall.waiting.size:
            begun = discipline.starts(hall)
            if not begun:
                break
            for job, device in begun:
                _start(hall, job, device)
        _go_on(hall, story)
    return story


def _by_user(user: Index, amount: Array, users: int) -> Array:
    return np.bincount(user, weights=amount, minlength=users).astype(np.float64)


def _start(hall: Hall, job: int, device: int) -> None:
    if hall.job[device] != IDLE or not np.isnan(hall.start[job]):
        raise ValueError(f"job {job} cannot start on device {device}: one of them is taken")
    kind = hall.type[device]
    hall.start[job], hall.device[job], hall.job[device] = hall.now, device, job
    hall.ends[device] = hall.now + hall.trace.seconds[job, kind]
    hall.expected[device] = hall.now + hall.trace.believed[job, kind]


def _go_on(hall: Hall, story: HybridStory) -> None:
    """On to the next arrival or completion."""
    busy = hall.job != IDLE
    coming = hall.trace.arrival[hall.trace.arrival > hall.now]
    after = min(hall.ends[busy].min(initial=np.inf), coming.min(initial=np.inf))
    waiting = np.unique(hall.trace.user[hall.waiting])
    if waiting.size > 1:
        story.gaps.append((after - hall.now, float(np.ptp(hall.scores()[waiting]))))
    hall.now = float(after)
    done = np.flatnonzero(busy & (hall.ends <= hall.now))
    story.finish[hall.job[done]] = hall.now
    hall.job[done] = IDLE
