"""From rows to arrays: which columns a market has, what each uses, delivers, is worth and costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from economics.market import Market
from economics.rows import AffinityRow, FloorRow, JobRow, PoolRow, TransferRow

FLOOR_ROOM = 1e-7  # relative; a floor that takes all a site has must not fail by rounding
SAMPLES_PER_S_TO_M_PER_HOUR = 3600 / 1e6


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows of a book, sorted by id and known to be sound."""

    sites: tuple[str, ...]
    pools: tuple[PoolRow, ...]
    jobs: tuple[JobRow, ...]
    affinity: tuple[AffinityRow, ...]
    transfer: tuple[TransferRow, ...]
    floors: tuple[FloorRow, ...]
    price_cap: Mapping[str, float]
    hours: float

    def speed(self) -> Mapping[tuple[str, str], Mapping[int, float]]:
        """{(pool, class): {GPUs: samples/s on them together}}."""
        rates: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for row in self.affinity:
            rates[row.pool, row.job_class][row.gpus] = row.samples_per_s
        return dict(rates)


@dataclass(frozen=True, slots=True)
class Column:
    """One way to serve one job in one pool, at full use."""

    job: int
    pool: int
    gpu_hours: float
    msamples: float
    value: float  # credits
    cost: float  # credits: transfer, extra and, for a gang, moving
    stays: bool


def samples_per_s(rates: Mapping[int, float], gpus: int) -> float:
    """Speed on `gpus` GPUs: the row of that size when there is one, else so many single GPUs."""
    return rates[gpus] if gpus in rates else gpus * rates.get(1, 0.0)


def lay_out(sheet: Sheet) -> Market:
    """The market of a sheet. A column exists only where its margin over the reserve is positive."""
    site = {name: at for at, name in enumerate(sheet.sites)}
    floor = {row.job: row.demand for row in sheet.floors}
    columns = list(_columns(sheet))
    jobs = sheet.jobs
    return Market(
        sites=len(sheet.sites),
        capacity=np.array([row.gpus * sheet.hours for row in sheet.pools], dtype=float),
        reserve=np.array([row.reserve for row in sheet.pools], dtype=float),
        ceiling=np.array(
            [sheet.price_cap.get(row.id, math.inf) - row.reserve for row in sheet.pools]
        ),
        owner=np.array([site[row.site] for row in sheet.pools], dtype=np.int64),
        home=np.array([site[row.site] for row in jobs], dtype=np.int64),
        demand=np.array([row.demand if row.gang else row.wanted for row in jobs], dtype=float),
        width=np.array([row.max_gpus * sheet.hours for row in jobs], dtype=float),
        floor=(1 - FLOOR_ROOM) * np.array([floor.get(row.id, 0.0) for row in jobs]),
        gang=np.array([bool(row.gang) for row in jobs], dtype=bool),
        move_charge=np.array([_move_charge(row) for row in jobs], dtype=float),
        job=np.array([column.job for column in columns], dtype=np.int64),
        pool=np.array([column.pool for column in columns], dtype=np.int64),
        gpu_hours=np.array([column.gpu_hours for column in columns], dtype=float),
        msamples=np.array([column.msamples for column in columns], dtype=float),
        value=np.array([column.value for column in columns], dtype=float),
        cost=np.array([column.cost for column in columns], dtype=float),
        stays=np.array([column.stays for column in columns], dtype=bool),
    )


def _move_charge(row: JobRow) -> float:
    """Credits a divisible job pays once, however much of it leaves the pool it runs on."""
    return 0.0 if row.gang or row.running_on is None else row.move_cost


def _columns(sheet: Sheet) -> Iterator[Column]:
    speed = sheet.speed()
    fees = {(row.home, row.site): row.per_gpu_hour for row in sheet.transfer}
    for job, row in enumerate(sheet.jobs):
        for at, pool in enumerate(sheet.pools):
            rates = speed.get((pool.id, row.job_class))
            if rates is None or pool.gpus == 0 or not (row.pools is None or pool.id in row.pools):
                continue
            fee = fees.get((row.site, pool.site), 0.0) + row.extra.get(pool.id, 0.0)
            for column in _ways(sheet, job, at, rates, fee):
                if column.value - pool.reserve * column.gpu_hours - column.cost > 0:
                    yield column


def _ways(
    sheet: Sheet, job: int, pool: int, rates: Mapping[int, float], fee: float
) -> Iterator[Column]:
    row = sheet.jobs[job]
    if row.gang:
        for gpus in row.gang:
            yield from _gang_way(sheet, job, pool, gpus, samples_per_s(rates, gpus), fee)
    else:
        yield from _divisible_way(sheet, job, pool, rates.get(1, 0.0), fee)


def _gang_way(
    sheet: Sheet, job: int, pool: int, gpus: int, rate: float, fee: float
) -> Iterator[Column]:
    """`gpus` GPUs for the whole round, if they fit the pool and the budget."""
    row, seller = sheet.jobs[job], sheet.pools[pool]
    gpu_hours = gpus * sheet.hours
    msamples = min(row.demand, rate * SAMPLES_PER_S_TO_M_PER_HOUR * sheet.hours)
    stays = row.running_on == seller.id
    moving = 0.0 if stays or row.running_on is None else row.move_cost
    value = row.value * msamples
    if gpus <= seller.gpus and msamples > 0 and value <= row.budget:
        yield Column(job, pool, gpu_hours, msamples, value, fee * gpu_hours + moving, stays)


def _divisible_way(sheet: Sheet, job: int, pool: int, rate: float, fee: float) -> Iterator[Column]:
    """As many GPU-hours as the pool, the job's width and its demand allow."""
    row, seller = sheet.jobs[job], sheet.pools[pool]
    speed = rate * SAMPLES_PER_S_TO_M_PER_HOUR
    if speed <= 0 or row.wanted <= 0 or row.max_gpus <= 0:
        return
    hours = min(seller.gpus * sheet.hours, row.max_gpus * sheet.hours, row.wanted / speed)
    if hours > 0:
        value = row.value * speed * hours
        yield Column(
            job, pool, hours, speed * hours, value, fee * hours, row.running_on == seller.id
        )
