"""Disciplines of a queue: arrival order, an oracle, attained service, the Gittins index.

Shapes: A active jobs, out of the queue's J.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index
from economics.policies.gittins_index import Experience
from economics.policies.queues import queue_of, until_drop, until_promotion
from federation.simulation.queue_cluster import Queue

NOBODY: Index = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Fifo:
    """By arrival, nobody is put back; strict, or filling gaps with jobs further behind."""

    skips: bool = False
    preempts: bool = False

    def order(self, queue: Queue, jobs: Index) -> Index:
        return jobs

    def until_change(self, queue: Queue, jobs: Index) -> float:
        return np.inf

    def promoted(self, queue: Queue, jobs: Index) -> Index:
        return NOBODY


@dataclass(frozen=True, slots=True)
class Shortest:
    """An oracle: least remaining seconds, or GPU-seconds, first. It knows what nobody knows."""

    by_service: bool = False
    skips: bool = True
    preempts: bool = True

    def order(self, queue: Queue, jobs: Index) -> Index:
        left = queue.left[jobs] * (queue.trace.gpus[jobs] if self.by_service else 1.0)
        return jobs[np.argsort(left, kind="stable")]

    def until_change(self, queue: Queue, jobs: Index) -> float:
        return np.inf  # a running job only gets shorter

    def promoted(self, queue: Queue, jobs: Index) -> Index:
        return NOBODY


@dataclass(frozen=True, slots=True)
class LeastAttained:
    """Discretised 2D-LAS. Inside a queue the running jobs, then by first start.

    Without `running_first` the first start alone decides inside a queue, and jobs are put back
    more often.
    """

    thresholds: tuple[float, ...]  # GPU-seconds
    knob: float = np.inf  # promotes after this many times the seconds it ran; inf = never
    running_first: bool = True
    skips: bool = True
    preempts: bool = True

    def order(self, queue: Queue, jobs: Index) -> Index:
        return _by_level(queue, jobs, self._queues(queue, jobs), self.running_first)

    def until_change(self, queue: Queue, jobs: Index) -> float:
        runs = queue.running[jobs]
        served, pending = jobs[runs], jobs[~runs]
        drop = queue.debt[served] + until_drop(
            _attained(queue, served), queue.trace.gpus[served], self.thresholds
        )
        rise = self._until_promotion(queue, pending)
        return float(min(drop.min(initial=np.inf), rise.min(initial=np.inf)))

    def promoted(self, queue: Queue, jobs: Index) -> Index:
        pending = jobs[~queue.running[jobs]]
        return pending[self._until_promotion(queue, pending) <= _rounding(queue)]

    def _queues(self, queue: Queue, jobs: Index) -> Index:
        return queue_of(_attained(queue, jobs), self.thresholds)

    def _until_promotion(self, queue: Queue, pending: Index) -> Array:
        return until_promotion(
            self._queues(queue, pending), queue.waited[pending], queue.ran[pending], self.knob
        )


@dataclass(frozen=True, slots=True)
class Gittins:
    """2D-Gittins: largest index first, looked up again after each quantum of service."""

    experience: Experience
    skips: bool = True
    preempts: bool = True

    def order(self, queue: Queue, jobs: Index) -> Index:
        return _by_level(queue, jobs, -self.experience.priority(_attained(queue, jobs)))

    def until_change(self, queue: Queue, jobs: Index) -> float:
        served = jobs[queue.running[jobs]]
        left = self.experience.until_change(_attained(queue, served))
        return float((queue.debt[served] + left / queue.trace.gpus[served]).min(initial=np.inf))

    def promoted(self, queue: Queue, jobs: Index) -> Index:
        return NOBODY


def _by_level(queue: Queue, jobs: Index, level: Array | Index, running_first: bool = True) -> Index:
    """Lowest level first; inside one the running jobs, then by first start, then by arrival."""
    late = ~queue.running[jobs] & running_first
    keys = (queue.trace.arrival[jobs], queue.first_start[jobs], late, level)
    return jobs[np.lexsort(keys)]


def _attained(queue: Queue, jobs: Index) -> Array:
    """GPU-seconds since each job last entered the first queue, (A,)."""
    return queue.ran[jobs] * queue.trace.gpus[jobs]


def _rounding(queue: Queue) -> float:
    """Seconds below which a moment has come."""
    return 1e-9 * max(1.0, queue.now)
