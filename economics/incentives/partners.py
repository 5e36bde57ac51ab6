"""Partner sites drawn around an operator's own offer, for a site that has no federation yet.

The draws are those of `economics.incentives.draws` (economics.md, Appendix A), brought to the
operator's scale. A partner owns the operator's GPU types, each about as many GPUs as the operator's
mean pool or none, at about the operator's reserves; its tenants run the operator's job classes and
bid about what the operator's tenants bid. Its speed is the operator's speed of the type and class
times exp(sigma z), z standard normal: with sigma 0 all partners are as fast as the operator.

What partners own depends on the seed alone, what their tenants want on the round too: the days of a
trace meet the same partners with other work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from economics.book import Book, read_book
from economics.errors import BadBook, Problem
from economics.incentives.draws import ABSENT, LOADS, SPREAD, VALUES

Row = dict[str, Any]

SIZES = (0.5, 2.0)  # GPUs of a partner's pool over the operator's mean pool, as 8 to 32 over 16
RESERVES = (0.5, 1.5)  # of a partner over the operator's, as 0.2 to 0.6 over 0.4
BID = 4.0  # reserves that a GPU-hour is worth to a tenant where the operator's jobs do not say
TRANSFER = 0.125  # mean reserves that a GPU-hour away from home costs, as 0.05 over 0.4


@dataclass(frozen=True, slots=True)
class Partners:
    """How many partners, and how much they differ from the operator."""

    count: int = 3
    sigma: float = 0.5  # standard deviation of a partner's log-speed about the operator's
    load: float | None = None  # what its tenants want over a partner's share; None: drawn
    jobs: int = 3  # of each partner


def around(
    offer: Mapping[str, Any], seed: int, partners: Partners | None = None, *, number: int = 0
) -> Row:
    """The operator's book with partners, as a `hanse.book/1` document; `number` is the round's.

    Raises BadBook when the book cannot be read, or no pool with GPUs runs a class on one GPU.
    """
    partners = partners or Partners()
    scale = _Scale.of(read_book(offer))
    names = _names(partners.count, scale.sites)
    owns, wants = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1, number])
    pools, affinity = _equipment(owns, scale, names, partners.sigma)
    jobs = _jobs(wants, scale, names, partners, sum(pool["gpus"] for pool in pools))
    return {
        **offer,
        "pools": [*offer["pools"], *pools],
        "affinity": [*offer["affinity"], *affinity],
        "jobs": [*offer["jobs"], *jobs],
        "transfer": [*offer.get("transfer", ()), *_transfers(scale, names)],
    }


@dataclass(frozen=True, slots=True)
class _Scale:
    """The operator in figures that partners are drawn around."""

    sites: tuple[str, ...]
    gpus: float  # of a mean pool
    hours: float  # of the round
    reserve: Mapping[str, float]  # {GPU type: credits per GPU-hour}
    speed: Mapping[tuple[str, str], float]  # {(GPU type, class): samples/s}
    bid: Mapping[str, float]  # {class: credits per Msample}

    @classmethod
    def of(cls, book: Book) -> _Scale:
        """Means over GPUs; geometric ones of speeds."""
        owned = [pool for pool in book.pools if pool.gpus]
        logs: dict[tuple[str, str], list[float]] = {}
        for (name, job_class), sizes in book.speed.items():
            for pool in owned:
                if pool.id == name and sizes.get(1, 0.0) > 0:
                    logs.setdefault((pool.gpu, job_class), []).extend(
                        [float(np.log(sizes[1]))] * pool.gpus
                    )
        if not logs:
            raise BadBook((Problem("affinity", "no pool with GPUs runs a class on one GPU"),))
        speed = {kind: float(np.exp(np.mean(logs[kind]))) for kind in sorted(logs)}
        costs: dict[str, list[float]] = {}
        for pool in owned:
            costs.setdefault(pool.gpu, []).extend([pool.reserve] * pool.gpus)
        reserve = {kind: float(np.mean(costs[kind])) for kind in sorted(costs)}
        mean_gpus = float(np.mean([pool.gpus for pool in owned]))
        return cls(book.sites, mean_gpus, book.hours, reserve, speed, _bids(book, speed, reserve))

    @property
    def mean_reserve(self) -> float:
        return float(np.mean(list(self.reserve.values())))

    def rate(self, job_class: str) -> float:
        """Msamples a GPU-hour of the class makes on a mean type."""
        return _rate(self.speed, job_class)


def _rate(speed: Mapping[tuple[str, str], float], job_class: str) -> float:
    return float(np.mean([at for (_, runs), at in speed.items() if runs == job_class])) * 0.0036


def _bids(
    book: Book, speed: Mapping[tuple[str, str], float], reserve: Mapping[str, float]
) -> dict[str, float]:
    """Mean bid of each class; where nobody bids, as much for a GPU-hour as other classes do."""
    classes = sorted({job_class for _, job_class in speed})
    said = {
        name: float(np.mean([job.value for job in book.jobs if job.job_class == name]))
        for name in classes
        if any(job.job_class == name for job in book.jobs)
    }
    worth = (
        float(np.mean([said[name] * _rate(speed, name) for name in said]))
        if said
        else BID * float(np.mean(list(reserve.values())))
    )
    return {name: said.get(name, worth / _rate(speed, name)) for name in classes}


def _equipment(
    random: Generator, scale: _Scale, names: Sequence[str], sigma: float
) -> tuple[list[Row], list[Row]]:
    """Pools and speeds of the partners."""
    pools, affinity = [], []
    for name in names:
        for kind, cost in scale.reserve.items():
            size, owned = random.uniform(*SIZES) * scale.gpus, random.random() >= ABSENT
            pool = {
                "id": f"{name}.{kind}",
                "site": name,
                "gpu": kind,
                "gpus": max(round(size), 1) if owned else 0,
                "reserve": float(cost * random.uniform(*RESERVES)),
            }
            pools.append(pool)
            for (gpu, job_class), speed in scale.speed.items():
                z = random.normal()
                if gpu == kind:
                    row = {"pool": pool["id"], "class": job_class}
                    affinity.append({**row, "samples_per_s": float(speed * np.exp(sigma * z))})
    return pools, affinity


def _jobs(
    random: Generator, scale: _Scale, names: Sequence[str], partners: Partners, gpus: int
) -> list[Row]:
    """What the partners' tenants want of the partners' GPUs, more or less a fair share each."""
    share = gpus * scale.hours / max(len(names) * partners.jobs, 1)  # GPU-hours of a job
    classes = sorted(scale.bid)
    rows = []
    for name in names:
        drawn = float(random.uniform(*LOADS))
        load = drawn if partners.load is None else partners.load
        for at in range(partners.jobs):
            job_class = classes[int(random.integers(len(classes)))]
            bid = scale.bid[job_class] * random.uniform(*VALUES) / np.mean(VALUES)
            hours = share * load * random.uniform(*SPREAD)
            rows.append(
                {
                    "id": f"{name}-{at + 1}",
                    "site": name,
                    "class": job_class,
                    "value": float(bid),
                    "demand": float(hours * scale.rate(job_class)),
                }
            )
    return rows


def _names(count: int, taken: Sequence[str]) -> list[str]:
    """Names for the partners that nobody has."""
    width = len(str(count))
    names = [f"partner-{at:0{width}}" for at in range(1, count + 1)]
    both = sorted(set(names) & set(taken))
    if both:
        raise BadBook((Problem("sites", f"{', '.join(both)}: a name that partners get"),))
    return names


def _transfers(scale: _Scale, names: Sequence[str]) -> list[Row]:
    """A row for each pair of different sites of which one is a partner."""
    everybody = [*scale.sites, *names]
    return [
        {"from": home, "to": site, "per_gpu_hour": TRANSFER * scale.mean_reserve}
        for home in everybody
        for site in everybody
        if home != site and (home in names or site in names)
    ]
