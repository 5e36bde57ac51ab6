"""Fleets and crowds for tests, drawn from a seed: ties, empty pools, jobs without limits."""

from __future__ import annotations

import numpy as np

from economics.market import Array
from economics.policies.fleet import Crowd, Fleet


def a_fleet(seed: int, *, limited: bool = True) -> tuple[Fleet, Crowd, Array]:
    """Up to four pools, three kinds and eight jobs, and a positive number for each job."""
    random = np.random.default_rng(seed)
    pools, kinds = int(random.integers(1, 5)), int(random.integers(1, 4))
    capacity = random.integers(0, 10, pools).astype(float)
    capacity[0] += 1.0
    can = random.random((kinds, pools)) < 0.7
    can[:, 0] = True  # every kind can run somewhere
    kind, pool = np.nonzero(can & (capacity > 0))
    fleet = Fleet(
        capacity=capacity,
        kind=kind,
        pool=pool,
        hours=random.integers(1, 4, kind.size).astype(float),
        output=random.integers(1, 12, kind.size).astype(float),
        kinds=kinds,
    )
    jobs = kinds + int(random.integers(0, 6))
    of = np.concatenate([np.arange(kinds), random.integers(0, kinds, jobs - kinds)])
    free = random.random(jobs) < 0.2
    units = np.where(free, np.inf, random.integers(1, 6, jobs).astype(float))
    wanted = random.integers(1, 40, jobs).astype(float)
    most = np.where(free | (random.random(jobs) < 0.7), wanted, np.inf)
    if not limited:
        units, most = np.full(jobs, np.inf), np.full(jobs, 1e9)
    crowd = Crowd(of, np.ones(jobs), units, most, np.zeros(jobs))
    pace = random.integers(1, 8, jobs) * 10.0 ** random.integers(-2, 3)
    return fleet, crowd, pace


def one_pool(
    jobs: int, *, gpus: float, most: float = 1e9, units: float = np.inf
) -> tuple[Fleet, Crowd]:
    """Jobs of one kind that deliver one Msample for each GPU-hour of the only pool."""
    zero = np.zeros(1, dtype=np.int64)
    fleet = Fleet(np.array([gpus]), zero, zero, np.ones(1), np.ones(1), 1)
    one = np.ones(jobs)
    kind = np.zeros(jobs, dtype=np.int64)
    return fleet, Crowd(kind, one, units * one, most * one, 0.0 * one)
