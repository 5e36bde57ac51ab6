"""Synthetic markets: log-normal speeds and bids, and a few feasible pools for each group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.clearing.tiers.demand import Lines
from economics.market import Array, Index, Market

SITES = 10
SIZES = 6  # 1, 2, 4 ... 32 GPUs


@dataclass(frozen=True, slots=True)
class Sample:
    """A market as its stored columns: the group of each job, and a table of the groups' lines."""

    lines: Lines
    group: Index  # (J,)
    bid: Array  # (J,) credits per Msample
    weight: Array  # (J,) GPU-hours at most; for gangs one
    capacity: Array  # (P,)
    reserve: Array  # (P,)
    gangs: bool

    def market(self) -> Market:
        """The same, column by column, as the price rule and the job-by-job peers read it."""
        jobs, pools, ways = self.group.size, self.capacity.size, self.lines.pool.shape[1]
        job = np.repeat(np.arange(jobs), ways)
        pool = self.lines.pool[self.group].ravel()
        full = np.repeat(self.weight, ways) * self.lines.hours[self.group].ravel()
        hours = full if self.gangs else np.minimum(full, self.capacity[pool])
        speed = (self.lines.worth / self.lines.hours)[self.group].ravel()
        value = np.repeat(self.bid, ways) * speed * hours
        kept = value > self.reserve[pool] * hours
        arrays = {
            name: array[kept]
            for name, array in (
                *(("job", job), ("pool", pool), ("gpu_hours", hours), ("speed", speed)),
                *(("msamples", speed * hours), ("value", value)),
                *(("cost", np.zeros(job.size)), ("fee", np.zeros(job.size))),
                ("stays", np.zeros(job.size, dtype=bool)),
            )
        }
        return Market(
            sites=SITES,
            capacity=self.capacity,
            reserve=self.reserve,
            ceiling=np.full(pools, np.inf),
            owner=np.arange(pools) % SITES,
            home=self.group % SITES,
            demand=np.full(jobs, np.inf),
            width=np.full(jobs, np.inf) if self.gangs else self.weight,
            floor=np.zeros(jobs),
            gang=np.full(jobs, self.gangs),
            move_charge=np.zeros(jobs),
            bid=self.bid,
            group=self.group,
            **arrays,
        )


def sample(
    jobs: int, pools: int, groups: int, *, seed: int, gangs: bool = False, feasible: int = 10
) -> Sample:
    """Demand is twice the capacity. Gangs: each class comes in the sizes 1 to 32, a group each."""
    draw = np.random.default_rng(seed)
    feasible = min(feasible, pools)
    speed = np.exp(draw.normal(0, 0.5, (groups, 1))) * np.exp(draw.normal(0, 0.5, (groups, pools)))
    pool = np.sort([draw.choice(pools, feasible, replace=False) for _ in range(groups)], axis=1)
    reserve = draw.uniform(0.2, 0.6, pools)
    group = draw.integers(0, groups, jobs)
    bid = np.exp(draw.normal(0, 0.6, jobs))
    power = draw.integers(0, SIZES, jobs)
    capacity = np.full(pools, (2.0**power).sum() / 2 / pools) * draw.uniform(0.5, 1.5, pools)
    worth = np.take_along_axis(speed, pool, axis=1)
    hours = np.ones(pool.shape)
    if gangs:
        group = group * SIZES + power
        pool, worth = np.repeat(pool, SIZES, axis=0), np.repeat(worth, SIZES, axis=0)
        hours = np.tile(2.0 ** np.arange(SIZES), groups)[:, None] * np.ones(pool.shape)
        kept, group = np.unique(group, return_inverse=True)  # every group has a job
        pool, worth, hours = pool[kept], worth[kept], hours[kept]
    return Sample(
        lines=Lines(pool, worth * hours, reserve[pool] * hours, hours),
        group=group,
        bid=bid,
        weight=np.ones(jobs) if gangs else 2.0**power,
        capacity=np.floor(capacity) if gangs else capacity,
        reserve=reserve,
        gangs=gangs,
    )


def churned(old: Sample, share: float, *, seed: int) -> Sample:
    """The next round: some jobs are others, and every capacity drifts by up to 2 %."""
    draw = np.random.default_rng(seed)
    new = np.flatnonzero(draw.random(old.bid.size) < share)
    bid = old.bid.copy()
    bid[new] = np.exp(draw.normal(0, 0.6, new.size))
    drift = draw.uniform(0.98, 1.02, old.capacity.size)
    return Sample(
        old.lines, old.group, bid, old.weight, old.capacity * drift, old.reserve, old.gangs
    )
