"""Every way a job could run, allowed or not: what each would take, deliver and cost.

The market holds only the columns that are allowed and worth something. An explanation also speaks
of the others, so here the same arithmetic (columns.py) is done for one job at every pool.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from economics.book import Book
from economics.columns import SAMPLES_PER_S_TO_M_PER_HOUR, samples_per_s
from economics.curves.cleared import Cleared
from economics.rows import JobRow, PoolRow


@dataclass(frozen=True, slots=True)
class Way:
    """One job in one pool at one size, at full use."""

    pool: int  # place on the axis of pools
    gpus: int | None  # of a gang; None = a divisible job
    gpu_hours: float
    msamples: float
    value: float  # credits that delivery is worth at the job's bid
    fee: float  # credits per GPU-hour of transfer and extra
    moving: float  # credits, once
    permitted: bool
    spare: float  # GPUs the pool has beyond those the way takes; negative = too few

    def spent(self, price: float) -> float:
        """Credits for GPU-hours, transfer, extra and moving at a price per GPU-hour."""
        return (price + self.fee) * self.gpu_hours + self.moving

    def gain(self, price: float) -> float:
        """Credits the job keeps at a price per GPU-hour."""
        return self.value - self.spent(price)

    def bid_from(self, price: float) -> float:
        """Credits per Msample from which the job gains at a price per GPU-hour."""
        return self.spent(price) / self.msamples

    def within(self, budget: float, bid: float) -> bool:
        """Whether the budget pays for the delivery at a bid; a divisible job takes less instead."""
        return self.gpus is None or bid * self.msamples <= budget


def ways_of(cleared: Cleared, job: int) -> tuple[Way, ...]:
    """Every pool that knows the job's class, by pool and size."""
    book, row = cleared.book, cleared.book.jobs[job]
    found: list[Way] = []
    for at, pool in enumerate(book.pools):
        rates = book.speed.get((pool.id, row.job_class), {})
        fee = cleared.fees.get((row.site, pool.site), 0.0) + row.extra.get(pool.id, 0.0)
        for gpus in row.gang or (None,):
            way = _way(book, row, at, fee, samples_per_s(rates, gpus or 1), gpus)
            found.extend(way)
    return tuple(found)


def _way(
    book: Book, row: JobRow, at: int, fee: float, rate: float, gpus: int | None
) -> Iterator[Way]:
    pool = book.pools[at]
    speed = rate * SAMPLES_PER_S_TO_M_PER_HOUR
    amounts = _whole(book, row, gpus, speed) if gpus else _divided(book, row, pool, speed)
    if amounts is None:
        return
    gpu_hours, msamples = amounts
    stays = row.running_on in (None, pool.id)
    yield Way(
        pool=at,
        gpus=gpus,
        gpu_hours=gpu_hours,
        msamples=msamples,
        value=row.value * msamples,
        fee=fee,
        moving=0.0 if stays else row.move_cost,
        permitted=row.pools is None or pool.id in row.pools,
        spare=pool.gpus - (gpus or 1),
    )


def _whole(book: Book, row: JobRow, gpus: int, speed: float) -> tuple[float, float] | None:
    """GPU-hours and Msamples of a gang in the round."""
    msamples = min(row.demand, speed * book.hours)
    return (gpus * book.hours, msamples) if msamples > 0 else None


def _divided(book: Book, row: JobRow, pool: PoolRow, speed: float) -> tuple[float, float] | None:
    """The most a divisible job could use there; an empty pool is looked at as if it had room."""
    if speed <= 0:
        return None
    hours = min(row.max_gpus * book.hours, row.wanted / speed)
    if pool.gpus:
        hours = min(hours, pool.gpus * book.hours)
    return (hours, speed * hours) if hours > 0 and math.isfinite(hours) else None
