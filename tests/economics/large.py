"""Large books, and awards for them: what a busy venue sends, drawn from a seed.

An award here is one that fits, at prices somebody would pay; it is not the best one. It exercises
everything that reads, adds up and explains a round.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np

from tests.economics.books import PER_HOUR, Document

SITES = 10
SIZES: tuple[Any, ...] = (1, 2, 4, 8, [1, 2, 4, 8])


def large_book(
    jobs: int,
    *,
    pools: int = 100,
    classes: int = 50,
    feasible: int = 10,
    gangs: bool = False,
    seed: int = 0,
) -> Document:
    """A book of `jobs` jobs; each class runs at `feasible` of the pools.

    Divisible jobs want an amount, some within a width or a budget. Gangs are as the broker writes
    them: a fixed size or a list of sizes, a budget, and some that run already or may not go
    everywhere.
    """
    random = np.random.default_rng(seed)
    names = [f"site-{at % SITES}.gpu-{at:03d}" for at in range(pools)]
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": [
            {
                "id": name,
                "site": f"site-{at % SITES}",
                "gpu": f"gpu-{at:03d}",
                "gpus": int(random.integers(8, 256)),
                "reserve": float(random.integers(50, 200)) / 100,
            }
            for at, name in enumerate(names)
        ],
        "affinity": [
            {
                "pool": names[pool],
                "class": f"class-{at:02d}",
                "samples_per_s": float(PER_HOUR * random.uniform(0.5, 4.0)),
            }
            for at in range(classes)
            for pool in sorted(random.choice(pools, feasible, replace=False))
        ],
        "transfer": [
            {"from": f"site-{home}", "to": f"site-{to}", "per_gpu_hour": 0.05}
            for home in range(SITES)
            for to in range(SITES)
            if home != to
        ],
        "jobs": [
            (_gang if gangs else _divisible)(random, at, classes, names) for at in range(jobs)
        ],
        "rules": {"epsilon": 0.005},
    }


def _divisible(random: np.random.Generator, at: int, classes: int, pools: list[str]) -> Document:
    job: Document = {
        "id": f"job-{at:07d}",
        "site": f"site-{random.integers(SITES)}",
        "class": f"class-{random.integers(classes):02d}",
        "value": float(random.lognormal(1.0, 0.5)),
        "demand": float(random.lognormal(0.0, 1.0)),
    }
    if at % 5 == 0:
        job["max_gpus"] = int(random.integers(1, 9))
    if at % 10 == 1:
        job["budget"] = float(random.lognormal(1.0, 1.0))
    return job


def _gang(random: np.random.Generator, at: int, classes: int, pools: list[str]) -> Document:
    job: Document = {
        "id": str(UUID(bytes=random.bytes(16), version=4)),
        "site": f"site-{random.integers(SITES)}",
        "tenant": f"tenant-{random.integers(500)}",
        "class": f"class-{random.integers(classes):02d}",
        "value": float(random.integers(100_000, 9_000_000)) / 1e6,
        "demand": float(random.integers(100_000, 90_000_000)) / 1e6,
        "gang": SIZES[random.integers(len(SIZES))],
        "budget": float(random.integers(5_000_000, 900_000_000)) / 1e6,
    }
    if at % 20 == 0:
        denied = {f"site-{site}" for site in random.choice(SITES, 3, replace=False)}
        job["pools"] = [pool for pool in pools if pool.split(".")[0] not in denied]
    if at % 10 == 3:
        job["running_on"] = pools[random.integers(len(pools))]
        job["move_cost"] = float(random.integers(0, 2_000_000)) / 1e6
    return job
