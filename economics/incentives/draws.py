"""Made-up books from a seed: the markets on which rules and incentives are compared.

Sites differ in what they own, in what their tenants want, and in how fast each GPU type runs each
class; `sigma` sets how much of the last is particular to a site, which is the affinity between a
site and a class (economics.md, Appendix A). What is drawn for a seed does not depend on `sigma` or
`load`, so that books of one seed differ in nothing but what was asked to differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from economics.market import Array, Index

SAMPLES_PER_S = 1e6 / 3600  # that make a million samples an hour
ABSENT = 0.25  # chance that a site has no GPUs of a type
BASE_SIGMA = 0.5  # of the log-speed of a class on a type, everywhere
RESERVES = (0.2, 0.6)  # credits per GPU-hour
VALUES = (0.5, 3.0)  # credits per Msample
SPREAD = (0.3, 1.7)  # of the demand of a job about its fair share
TRANSFER = 0.05  # credits per GPU-hour away from home
LOADS = (0.6, 1.6)  # where no load is given
GANGS = (1, 2, 4, 8)  # GPUs
GANG_LOADS = (0.8, 1.4)  # GPUs wanted by gangs, over the GPUs there are


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The figures of a book; I sites, G types, C classes."""

    gpus: Array  # (I, G)
    reserve: Array  # (I, G) credits per GPU-hour
    speed: Array  # (I, G, C) Msamples per GPU-hour


def draw(
    seed: int,
    *,
    sites: int,
    types: int = 2,
    classes: int = 3,
    sigma: float = 0.5,
    load: float | None = 1.1,
    gangs: bool = False,
    alike: bool = False,
    suppliers: int = 0,
    jobs_per_site: int = 3,
    capacity: tuple[int, int] = (8, 32),
) -> dict[str, Any]:
    """A `hanse.book/1` document of a one-hour round, epsilon 0.

    `load` is the work wanted over the work all GPUs can do at mean speed (None: drawn); with
    `gangs` whole jobs are added, from random homes, until a drawn share of all GPUs is wanted.
    `alike` repeats one site's capacities, reserves and jobs, so that sites differ in speed alone.
    The first `suppliers` sites have no tenants. `capacity` is the range of GPUs per site and type.
    Raises ValueError for counts that leave nothing to draw.
    """
    if min(sites, types, classes) < 1 or not 0 <= suppliers < sites:
        raise ValueError("a book needs a site with tenants, a type and a class")
    random = np.random.default_rng(seed)
    drawn = _drawn(random, (sites, types, classes), capacity, sigma)
    asked = float(random.uniform(*LOADS))
    if alike:
        drawn = _alike(drawn)
    if gangs:
        jobs = _gangs(random, drawn, suppliers)
    else:
        homes = np.repeat(np.arange(suppliers, sites), jobs_per_site)
        jobs = _divisible(random, drawn, homes, asked if load is None else load, alike)
    return _document(drawn, jobs)


def _drawn(
    random: Generator, shape: tuple[int, int, int], capacity: tuple[int, int], sigma: float
) -> _Drawn:
    sites, types, classes = shape
    low, high = capacity
    owned = random.random((sites, types)) >= ABSENT
    gpus = np.where(owned, random.integers(low, high + 1, (sites, types)), 0).astype(float)
    base = random.normal(0.0, BASE_SIGMA, (types, classes))
    own = random.normal(0.0, 1.0, (sites, types, classes))
    reserve = random.uniform(*RESERVES, (sites, types))
    return _Drawn(gpus, reserve, np.exp(base[None] + sigma * own))


def _alike(drawn: _Drawn) -> _Drawn:
    """Every site owns what the best equipped one does, at its reserves."""
    first = int(np.argmax(np.count_nonzero(drawn.gpus, axis=1)))
    rows = np.full(drawn.gpus.shape[0], first)
    return _Drawn(drawn.gpus[rows], drawn.reserve[rows], drawn.speed)


def _divisible(
    random: Generator, drawn: _Drawn, homes: Index, load: float, alike: bool
) -> list[dict[str, Any]]:
    """Each wants its fair share of the GPU-hours at its class's mean speed, more or less."""
    count, mean = homes.size, drawn.speed.mean(axis=(0, 1))
    job_class = random.integers(0, mean.size, count)
    value = random.uniform(*VALUES, count)
    spread = random.uniform(*SPREAD, count)
    if alike:
        order = np.arange(count) % int(np.count_nonzero(homes == homes[0]))
        job_class, value, spread = job_class[order], value[order], spread[order]
    demand = load * spread * mean[job_class] * drawn.gpus.sum() / max(count, 1)
    return [
        {
            "id": f"J{at:04}",
            "site": _site(int(homes[at])),
            "class": f"c{job_class[at]}",
            "value": float(value[at]),
            "demand": float(demand[at]),
        }
        for at in range(count)
    ]


def _gangs(random: Generator, drawn: _Drawn, suppliers: int) -> list[dict[str, Any]]:
    sites, _, classes = drawn.speed.shape
    wanted = float(random.uniform(*GANG_LOADS)) * float(drawn.gpus.sum())
    jobs: list[dict[str, Any]] = []
    while wanted > 0:
        size = int(random.choice(GANGS))
        jobs.append(
            {
                "id": f"J{len(jobs):04}",
                "site": _site(int(random.integers(suppliers, sites))),
                "class": f"c{random.integers(0, classes)}",
                "value": float(random.uniform(*VALUES)),
                "gang": size,
            }
        )
        wanted -= size
    return jobs


def _document(drawn: _Drawn, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    sites, types, classes = drawn.speed.shape
    names = [_site(at) for at in range(sites)]
    cells = [(site, kind) for site in range(sites) for kind in range(types)]
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": [
            {
                "id": _pool(site, kind),
                "site": names[site],
                "gpu": f"G{kind}",
                "gpus": int(drawn.gpus[site, kind]),
                "reserve": float(drawn.reserve[site, kind]),
            }
            for site, kind in cells
        ],
        "affinity": [
            {
                "pool": _pool(site, kind),
                "class": f"c{job_class}",
                "samples_per_s": float(drawn.speed[site, kind, job_class]) * SAMPLES_PER_S,
            }
            for site, kind in cells
            for job_class in range(classes)
        ],
        "transfer": [
            {"from": home, "to": site, "per_gpu_hour": TRANSFER}
            for home in names
            for site in names
            if home != site
        ],
        "jobs": jobs,
        "rules": {"epsilon": 0.0},
    }


def _site(at: int) -> str:
    return f"S{at:02}"


def _pool(site: int, kind: int) -> str:
    return f"{_site(site)}.G{kind}"
