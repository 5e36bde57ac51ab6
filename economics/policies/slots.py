"""A book as AlloX sees it: slots of GPUs, and how long each job takes on a slot of each pool.

AlloX matches jobs that take one device each. A *slot* of a pool is therefore as many GPUs as the
widest job that may start there takes, and a pool has as many as fit in it. With one width to a pool
the matching is exact. A narrower job is put down for the part of a slot it takes, as others can run
beside it: then the plan is a good one, not a proven one. A gang holds its GPUs for whole rounds.

Shapes: P pools · J jobs · K columns · n jobs matched at once · G kinds of slots · m slots.
Times are hours from the start of the round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index, Market, Mask
from economics.policies.matching import Work

ROUNDING = 1e-9
NO_COLUMN = -1


@dataclass(frozen=True, slots=True)
class Widths:
    """Each column as a job on GPUs: how many, and for how long."""

    gang: Mask  # (K,)
    gpus: Array  # (K,) GPUs the job takes there at most
    work: Array  # (K,) GPU-hours it still needs there
    done: Array  # (K,) hours until it is done on all of them; inf if it can do nothing there
    hours: float  # of a round

    @classmethod
    def of(cls, market: Market, hours: float) -> Widths:
        """From what jobs demand; a job without a demand wants what its best column delivers."""
        best = np.zeros(market.jobs)
        np.maximum.at(best, market.job, market.msamples)
        wanted = np.where(np.isfinite(market.demand), market.demand, best)[market.job]
        gang = market.gang[market.job]
        width = np.minimum(market.width[market.job], market.capacity[market.pool])
        gpus = np.where(gang, market.gpu_hours, width) / hours
        work = wanted / market.speed
        can = (gpus > ROUNDING) & (work > 0)
        done = np.divide(work, gpus, out=np.full(work.shape, np.inf), where=can)
        return cls(gang=gang, gpus=gpus, work=work, done=done, hours=hours)


@dataclass(slots=True)
class Pools:
    """What pools have left in the round, and when what is taken comes free."""

    left: Array  # (P,) GPU-hours
    hours: float  # of a round
    taken: list[list[tuple[float, float]]]  # by pool: (hour it comes free, GPUs)

    @classmethod
    def of(cls, left: Array, hours: float) -> Pools:
        return cls(left.copy(), hours, [[] for _ in left])

    @property
    def free(self) -> Array:
        """GPUs left for the round, (P,)."""
        free: Array = np.where(self.left > ROUNDING * self.hours, self.left, 0.0) / self.hours
        return free

    def take(self, pool: int, gpu_hours: float, until: float) -> None:
        self.left[pool] = max(self.left[pool] - gpu_hours, 0.0)
        self.taken[pool].append((max(until, self.hours), gpu_hours / self.hours))

    def later(self, pool: int, gpus: float, most: int) -> list[float]:
        """Hours at which the pool has so many GPUs more to give, the first `most` of them."""
        free = float(self.free[pool])
        free -= gpus * np.floor(free / gpus + ROUNDING)
        moments: list[float] = []
        for until, released in sorted(self.taken[pool]):
            free += released
            while free >= gpus * (1 - ROUNDING) and len(moments) < most:
                moments.append(until)
                free -= gpus
        return moments


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots some jobs can be matched to."""

    column: Index  # (n, G) the job's column on slots of this kind, or NO_COLUMN
    gpus: Array  # (G,) GPUs of a slot of this kind
    kind: Index  # (m,)
    available: Array  # (m,) hour the slot comes free

    @classmethod
    def of(cls, market: Market, widths: Widths, pools: Pools, jobs: Index) -> Slots:
        """Slots that are free now, and slots that come free when a job that was started ends."""
        now, ever = _columns(market, widths, pools, jobs)
        kinds: list[tuple[Index, float]] = []
        kind: list[int] = []
        available: list[float] = []
        for pool in np.flatnonzero((ever != NO_COLUMN).any(axis=0)):
            free = float(pools.free[pool])
            offered = 0
            if (now[:, pool] != NO_COLUMN).any():
                slot = _widest(widths, now[:, pool], free)
                offered = min(int(free / slot + ROUNDING), jobs.size)
                kind += [len(kinds)] * offered
                available += [0.0] * offered
                kinds.append((now[:, pool], slot))
            if offered < jobs.size:
                slot = _widest(widths, ever[:, pool], np.inf)
                moments = pools.later(int(pool), slot, jobs.size)
                kind += [len(kinds)] * len(moments)
                available += moments
                kinds.append((ever[:, pool], slot))
        columns = [column for column, _ in kinds]
        return cls(
            column=np.column_stack(columns) if kinds else np.zeros((jobs.size, 0), dtype=np.int64),
            gpus=np.array([slot for _, slot in kinds]),
            kind=np.array(kind, dtype=np.int64),
            available=np.array(available),
        )

    def work(self, widths: Widths) -> Work:
        """Jobs and slots as the matching wants them.

        What a job holds of its slot delays those behind it; what it takes to be done counts for
        itself.
        """
        none = self.column == NO_COLUMN
        gpus = np.where(none, 1.0, np.minimum(widths.gpus[self.column], self.gpus))  # (n, G)
        done = widths.work[self.column] / gpus
        whole = np.where(widths.gang[self.column], np.maximum(done, widths.hours), done)
        held = np.where(none, np.inf, whole * gpus / self.gpus)
        toll = np.where(none, 0.0, done - whole * gpus / self.gpus)
        release = np.zeros(self.column.shape[0])
        of = self.kind
        return Work(held[:, of], self.available, release, toll[:, of], of)


def _columns(market: Market, widths: Widths, pools: Pools, jobs: Index) -> tuple[Index, Index]:
    """Each job's column in each pool: what fits in it now, and whatever it has, (n, P) each.

    Of an elastic job's sizes the widest.
    """
    first, last = np.searchsorted(market.job, (jobs, jobs + 1))
    row = np.repeat(np.arange(jobs.size), last - first)
    at = np.concatenate([np.arange(*ends) for ends in zip(first, last, strict=True)])
    can = np.isfinite(widths.done[at])
    wider_last = np.argsort(widths.gpus[at[can]], kind="stable")  # and written over the others
    row, at = row[can][wider_last], at[can][wider_last]
    free = pools.free[market.pool[at]]
    fits = np.where(widths.gang[at], widths.gpus[at] <= free * (1 + ROUNDING), free > 0)
    ever = np.full((jobs.size, market.pools), NO_COLUMN, dtype=np.int64)
    now = ever.copy()
    ever[row, market.pool[at]] = at
    now[row[fits], market.pool[at[fits]]] = at[fits]
    return now, ever


def _widest(widths: Widths, columns: Index, free: float) -> float:
    """GPUs of the widest of these columns, on so many GPUs."""
    return min(float(widths.gpus[columns[columns != NO_COLUMN]].max()), free)
