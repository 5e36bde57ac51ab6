"""The arrays a round is decided from. No ids, no documents: `book.py` has those.

Axes, used in every shape comment:  N sites · P pools · J jobs · K columns.
A *column* is one way to serve one job in one pool, at full use: a gang on its GPUs for the whole
round, or a divisible job on as many GPU-hours as it could ever use there. An allocation gives each
column a share between 0 and 1 (a gang's is 0 or 1).
Units: GPU-hours · millions of samples (Msamples) · credits. Arrays are never mutated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from economics.errors import BadMarket

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


JOB_ARRAYS = ("home", "demand", "width", "floor", "gang", "move_charge", "bid", "group")
COLUMN_ARRAYS = (
    *("job", "pool", "gpu_hours", "msamples", "value", "cost", "stays", "speed", "fee"),
)


@dataclass(frozen=True, slots=True)
class Market:
    """Everything a round is decided from. Columns are sorted by job, then pool, then size."""

    sites: int  # N
    # Pools
    capacity: Array  # (P,) GPU-hours on sale
    reserve: Array  # (P,) credits per GPU-hour the site accepts at least
    ceiling: Array  # (P,) credits per GPU-hour the rent may not exceed; inf without a price cap
    owner: Index  # (P,) site
    # Jobs
    home: Index  # (J,) site
    demand: Array  # (J,) Msamples at most, budget included; inf = as much as fits
    width: Array  # (J,) GPU-hours at most over all pools; inf = unlimited
    floor: Array  # (J,) Msamples promised; 0 = none
    gang: Mask  # (J,) whether the job is whole or nothing
    move_charge: (
        Array  # (J,) credits once if a divisible job leaves its pool (a gang's is in `cost`)
    )
    bid: Array  # (J,) credits per Msample
    group: Index  # (J,) jobs of one number differ only in id, bid, demand, width, budget and floor
    # Columns
    job: Index  # (K,)
    pool: Index  # (K,)
    gpu_hours: Array  # (K,) used by a share of 1
    msamples: Array  # (K,) delivered by a share of 1
    value: Array  # (K,) credits that delivery is worth to the tenant
    cost: Array  # (K,) credits of transfer, extra and, for a gang, moving
    stays: Mask  # (K,) whether the job already runs in that pool
    speed: Array  # (K,) Msamples per GPU-hour, whatever is wanted
    fee: Array  # (K,) credits per GPU-hour of transfer and extra

    def __post_init__(self) -> None:
        for names, size in (
            (("capacity", "reserve", "ceiling", "owner"), self.pools),
            (JOB_ARRAYS, self.jobs),
            (COLUMN_ARRAYS, self.columns),
        ):
            for name in names:
                _check_shape(name, getattr(self, name), size)
        for name in ("capacity", "reserve", "floor", "move_charge", "bid", "cost", "value", "fee"):
            _check_amounts(name, getattr(self, name))
        for name, limit in (
            ("owner", self.sites),
            ("home", self.sites),
            ("group", self.jobs),
            ("job", self.jobs),
            ("pool", self.pools),
        ):
            _check_index(name, getattr(self, name), limit)
        for name in ("gpu_hours", "msamples", "speed"):
            _check_used(name, getattr(self, name))
        if (np.diff(self.job) < 0).any():
            raise BadMarket("job", "columns are not sorted by job")

    @property
    def pools(self) -> int:
        return int(self.capacity.shape[0])

    @property
    def jobs(self) -> int:
        return int(self.home.shape[0])

    @property
    def columns(self) -> int:
        return int(self.job.shape[0])

    @property
    def gain(self) -> Array:
        """Credits a share of 1 creates: value less reserve, transfer, extra and moving, (K,)."""
        gain: Array = self.value - self.reserve[self.pool] * self.gpu_hours - self.cost
        return gain

    @property
    def divisible(self) -> bool:
        """Whether no job is whole or nothing and no job pays a lump sum for moving."""
        return not self.gang[self.job].any() and not self.move_charge[self.job].any()

    def columns_of(self, job: int) -> slice:
        """The job's columns, which stand together."""
        first, last = np.searchsorted(self.job, (job, job + 1))
        return slice(int(first), int(last))


def _check_shape(name: str, array: NDArray[np.generic], size: int) -> None:
    if array.shape != (size,):
        raise BadMarket(name, f"has shape {array.shape}, not ({size},)")


def _check_amounts(name: str, array: Array) -> None:
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise BadMarket(name, "is negative or not finite")


def _check_used(name: str, array: Array) -> None:
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise BadMarket(name, "a column uses and delivers something")


def _check_index(name: str, array: Index, limit: int) -> None:
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise BadMarket(name, f"points outside 0..{limit - 1}")
