"""From rows to arrays: which columns a market has, what each uses, delivers, is worth and costs.

Jobs that agree in class, sizes and pools have the same *ways* to be served: a pool and a number of
GPUs there. The ways are found once for each such kind, then laid out for all its jobs in one step.
Axes as in market.py, and  W ways of all kinds · X ways of all jobs, before the useless are dropped.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from economics.market import Array, Index, Market, Mask
from economics.rows import AffinityRow, FloorRow, JobRow, PoolRow, TransferRow

FLOOR_ROOM = 1e-7  # relative; a floor that takes all a site has must not fail by rounding
SAMPLES_PER_S_TO_M_PER_HOUR = 3600 / 1e6
_Way = tuple[int, float, float, int]  # pool, GPU-hours, Msamples per hour, GPUs of that speed
MOST_NUMBERS = 2**62
Speeds = Mapping[tuple[str, str], Mapping[int, float]]  # {(pool, class): {GPUs: samples/s}}
Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows of a book, known to be sound; sites, pools and floors sorted by id."""

    sites: tuple[str, ...]
    pools: tuple[PoolRow, ...]
    jobs: Sequence[JobRow]  # as they were read, which is as they lie in memory
    order: Sequence[int]  # (J,) places of the jobs above, by id
    affinity: tuple[AffinityRow, ...]
    transfer: tuple[TransferRow, ...]
    floors: tuple[FloorRow, ...]
    price_cap: Mapping[str, float]
    hours: float

    def speed(self) -> Speeds:
        """{(pool, class): {GPUs: samples/s on them together}}."""
        rates: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for row in self.affinity:
            rates[row.pool, row.job_class][row.gpus] = row.samples_per_s
        return dict(rates)


@dataclass(frozen=True, slots=True)
class _Named(Generic[Value]):
    """A field of the jobs with few distinct values, by number. Numbers follow the values' order."""

    values: Sequence[Value]  # distinct, sorted
    at: Index  # (J,)

    def ordered(self, order: Index) -> _Named[Value]:
        return _Named(self.values, self.at[order])


@dataclass(frozen=True, slots=True)
class _Jobs:
    """The jobs' rows, field by field."""

    home: _Named[str]
    job_class: _Named[str]
    gang: _Named[tuple[int, ...]]
    pools: _Named[tuple[int, ...]]  # numbers of the pools it may run on
    extra: _Named[tuple[tuple[int, float], ...]]  # (pool, credits per GPU-hour)
    running: Index  # (J,) pool it runs on; -1 = none
    bid: Array  # (J,) credits per Msample
    demand: Array  # (J,) Msamples; a divisible job's is capped by its budget
    width: Array  # (J,) GPU-hours
    budget: Array  # (J,) credits
    move_cost: Array  # (J,) credits
    whole: Mask  # (J,) whether it is a gang

    @property
    def count(self) -> int:
        return self.running.size

    def ordered(self, order: Index) -> _Jobs:
        """The same jobs in another order, (J,)."""
        return _Jobs(
            home=self.home.ordered(order),
            job_class=self.job_class.ordered(order),
            gang=self.gang.ordered(order),
            pools=self.pools.ordered(order),
            extra=self.extra.ordered(order),
            running=self.running[order],
            bid=self.bid[order],
            demand=self.demand[order],
            width=self.width[order],
            budget=self.budget[order],
            move_cost=self.move_cost[order],
            whole=self.whole[order],
        )


@dataclass(frozen=True, slots=True)
class _Ways:
    """The ways of every kind of job, one kind after the other; by pool, then size."""

    first: Index  # (J,) where the ways of the job's kind begin
    count: Index  # (J,) how many there are
    pool: Index  # (W,)
    hours: Array  # (W,) GPU-hours: of the gang, or of the whole pool
    speed: Array  # (W,) Msamples per hour: of the gang, or of one GPU
    gpus: Array  # (W,) GPUs whose speed that is


@dataclass(frozen=True, slots=True)
class _Uses:
    """What each way of each job uses and delivers, (X,)."""

    job: Index
    pool: Index
    gpu_hours: Array
    msamples: Array
    value: Array
    speed: Array
    kept: Mask  # whether it uses and delivers something within the budget


def samples_per_s(rates: Mapping[int, float], gpus: int) -> float:
    """Speed on `gpus` GPUs: the row of that size when there is one, else so many single GPUs."""
    return rates[gpus] if gpus in rates else gpus * rates.get(1, 0.0)


def lay_out(sheet: Sheet) -> Market:
    """The market of a sheet. A column exists only where its margin over the reserve is positive."""
    site = {name: at for at, name in enumerate(sheet.sites)}
    jobs = _fields(sheet).ordered(np.array(sheet.order, dtype=np.int64))
    reserve = np.array([row.reserve for row in sheet.pools], dtype=float)
    with np.errstate(over="ignore", under="ignore"):
        uses = _uses(sheet, jobs, _ways(sheet, jobs))
    fee = _fees(sheet, jobs, uses)
    stays = jobs.running[uses.job] == uses.pool
    leaves = jobs.whole[uses.job] & ~stays & (jobs.running[uses.job] >= 0)
    cost = fee * uses.gpu_hours + np.where(leaves, jobs.move_cost[uses.job], 0.0)
    kept = uses.kept & (uses.value - reserve[uses.pool] * uses.gpu_hours - cost > 0)
    return Market(
        sites=len(sheet.sites),
        capacity=np.array([row.gpus * sheet.hours for row in sheet.pools], dtype=float),
        reserve=reserve,
        ceiling=np.array(
            [sheet.price_cap.get(row.id, math.inf) - row.reserve for row in sheet.pools]
        ),
        owner=np.array([site[row.site] for row in sheet.pools], dtype=np.int64),
        home=np.array([site[name] for name in jobs.home.values], dtype=np.int64)[jobs.home.at],
        demand=jobs.demand,
        width=jobs.width,
        floor=_floors(sheet),
        gang=jobs.whole,
        move_charge=np.where(~jobs.whole & (jobs.running >= 0), jobs.move_cost, 0.0),
        bid=jobs.bid,
        group=_groups(jobs),
        job=uses.job[kept],
        pool=uses.pool[kept],
        gpu_hours=uses.gpu_hours[kept],
        msamples=uses.msamples[kept],
        value=uses.value[kept],
        cost=cost[kept],
        stays=stays[kept],
        speed=uses.speed[kept],
        fee=fee[kept],
    )


def _fields(sheet: Sheet) -> _Jobs:
    number = {row.id: at for at, row in enumerate(sheet.pools)}
    everywhere = tuple(range(len(sheet.pools)))
    flat, width = list(chain.from_iterable(sheet.jobs)), len(JobRow._fields)
    rows: Any = JobRow._make(flat[at::width] for at in range(width))
    gang = _named(rows.gang, lambda sizes: sizes)
    whole = np.array([bool(sizes) for sizes in gang.values], dtype=bool)[gang.at]
    bid, demand, budget = (
        np.array(field, dtype=float) for field in (rows.value, rows.demand, rows.budget)
    )
    with np.errstate(all="ignore"):
        affordable = np.where(np.isinf(budget) | (bid == 0) | whole, np.inf, budget / bid)
    return _Jobs(
        home=_texts(rows.site),
        job_class=_texts(rows.job_class),
        gang=gang,
        pools=_named(
            rows.pools,
            lambda names: everywhere if names is None else tuple(sorted(number[n] for n in names)),
        ),
        extra=_named(
            rows.extra,
            lambda extra: tuple(sorted((number[name], fee) for name, fee in extra.items())),
        ),
        running=_numbers(rows.running_on, {None: -1, **number}),
        bid=bid,
        demand=np.minimum(demand, affordable),
        width=np.array(rows.max_gpus, dtype=float) * sheet.hours,
        budget=budget,
        move_cost=np.array(rows.move_cost, dtype=float),
        whole=whole,
    )


def _floors(sheet: Sheet) -> Array:
    """Msamples promised to each job by id, (J,)."""
    floor = np.zeros(len(sheet.order))
    if sheet.floors:
        place = {sheet.jobs[at].id: number for number, at in enumerate(sheet.order)}
        for row in sheet.floors:
            floor[place[row.job]] = (1 - FLOOR_ROOM) * row.demand
    return floor


def _ways(sheet: Sheet, jobs: _Jobs) -> _Ways:
    """The ways of each kind, found once, and where each job's begin."""
    usable, everywhere = _usable(sheet), tuple(range(len(sheet.pools)))
    found: list[list[_Way]] = []
    anywhere: dict[tuple[int, int], list[_Way]] = {}
    kind = _joined(jobs.job_class.at, jobs.gang.at, jobs.pools.at)
    for job in np.unique(kind, return_index=True)[1].tolist():
        at = (int(jobs.job_class.at[job]), int(jobs.gang.at[job]))
        if at not in anywhere:
            rates, sizes = usable[jobs.job_class.values[at[0]]], jobs.gang.values[at[1]]
            anywhere[at] = list(_ways_of(sheet, rates, sizes))
        allowed = jobs.pools.values[jobs.pools.at[job]]
        inside = anywhere[at] if allowed == everywhere else _within(anywhere[at], allowed)
        found.append(inside)
    count = np.array([len(ways) for ways in found], dtype=np.int64)
    table = np.array(list(chain.from_iterable(found)), dtype=float).reshape(-1, 4)
    return _Ways(
        first=(np.cumsum(count) - count)[kind],
        count=count[kind],
        pool=table[:, 0].astype(np.int64),
        hours=table[:, 1],
        speed=table[:, 2],
        gpus=table[:, 3],
    )


def _within(ways: list[_Way], allowed: tuple[int, ...]) -> list[_Way]:
    pools = set(allowed)
    return [way for way in ways if way[0] in pools]


def _usable(sheet: Sheet) -> Mapping[str, dict[int, Mapping[int, float]]]:
    """{class: {pool: its speeds there}}, pools with GPUs only."""
    number = {row.id: at for at, row in enumerate(sheet.pools)}
    usable: dict[str, dict[int, Mapping[int, float]]] = defaultdict(dict)
    for (pool, job_class), rates in sheet.speed().items():
        if sheet.pools[number[pool]].gpus > 0:
            usable[job_class][number[pool]] = rates
    return usable


def _ways_of(
    sheet: Sheet,
    usable: Mapping[int, Mapping[int, float]],
    sizes: tuple[int, ...],
) -> Iterator[_Way]:
    """The ways of a class in these sizes, by pool and size."""
    for pool in sorted(usable):
        gpus = sheet.pools[pool].gpus
        for size in sizes:
            speed = samples_per_s(usable[pool], size) * SAMPLES_PER_S_TO_M_PER_HOUR
            if size <= gpus and speed / size > 0:
                yield pool, size * sheet.hours, speed, size
        single = usable[pool].get(1, 0.0) * SAMPLES_PER_S_TO_M_PER_HOUR
        if not sizes and single > 0:
            yield pool, gpus * sheet.hours, single, 1


def _uses(sheet: Sheet, jobs: _Jobs, ways: _Ways) -> _Uses:
    """Every way of every job at full use: jobs in order, each with the ways of its kind."""
    job = np.repeat(np.arange(jobs.count), ways.count)
    skipped = ways.first - (np.cumsum(ways.count) - ways.count)
    way = np.arange(job.size) + np.repeat(skipped, ways.count)
    whole, bid = jobs.whole[job], jobs.bid[job]
    gpu_hours, speed = ways.hours[way], ways.speed[way]
    demand = jobs.demand[job]
    if not whole.all():  # as many GPU-hours as the pool, the job's width and its demand allow
        enough = np.minimum(gpu_hours, np.minimum(jobs.width[job], demand / speed))
        gpu_hours = np.where(whole, gpu_hours, enough)
    msamples = speed * np.where(whole, sheet.hours, gpu_hours)
    value = np.where(whole, bid * np.minimum(demand, msamples), bid * speed * gpu_hours)
    msamples = np.where(whole, np.minimum(demand, msamples), msamples)
    within = ~whole | (value <= jobs.budget[job])
    return _Uses(
        job=job,
        pool=ways.pool[way],
        gpu_hours=gpu_hours,
        msamples=msamples,
        value=value,
        speed=speed / ways.gpus[way],
        kept=within & (gpu_hours > 0) & (msamples > 0),
    )


def _fees(sheet: Sheet, jobs: _Jobs, uses: _Uses) -> Array:
    """Credits per GPU-hour of transfer and extra, (X,)."""
    homes = {name: at for at, name in enumerate(sorted({row.home for row in sheet.transfer}), 1)}
    sold: dict[str, list[int]] = defaultdict(list)
    for at, seller in enumerate(sheet.pools):
        sold[seller.site].append(at)
    table = np.zeros((len(homes) + 1, len(sheet.pools)))  # row 0: nothing to pay from there
    for row in sheet.transfer:
        table[homes[row.home], sold[row.site]] = row.per_gpu_hour
    home = np.array([homes.get(name, 0) for name in jobs.home.values], dtype=np.int64)[jobs.home.at]
    fee: Array = table[home[uses.job], uses.pool] if uses.job.size else np.zeros(0)
    return fee + _extras(sheet, jobs, uses)


def _extras(sheet: Sheet, jobs: _Jobs, uses: _Uses) -> Array:
    """Credits per GPU-hour a job pays at a pool for itself alone, (X,)."""
    pools, extra = len(sheet.pools), jobs.extra
    some = np.array([bool(fees) for fees in extra.values], dtype=bool)
    owed = [
        (job * pools + pool, fee)
        for job in np.flatnonzero(some[extra.at]).tolist()
        for pool, fee in extra.values[extra.at[job]]
    ]
    result = np.zeros(uses.job.size)
    if not owed:
        return result
    place = np.array([at for at, _ in owed], dtype=np.int64)  # ascending: by job, then pool
    fee = np.array([fee for _, fee in owed])
    asked = uses.job * pools + uses.pool
    at = np.minimum(np.searchsorted(place, asked), place.size - 1)
    return np.where(place[at] == asked, fee[at], 0.0)


def _groups(jobs: _Jobs) -> Index:
    """Number of each job's group, (J,): in the order of what its members have in common."""
    charges = np.unique(jobs.move_cost, return_inverse=True)[1]
    named = (jobs.job_class, jobs.home, jobs.gang, jobs.pools, jobs.extra)
    return _joined(*(field.at for field in named), jobs.running + 1, charges)


def _joined(*fields: Index) -> Index:
    """One number for each combination of the fields, in their order, (J,)."""
    joined, size = np.zeros(fields[0].size, dtype=np.int64), 1
    for field in fields:
        most = int(field.max(initial=0)) + 1
        if size * most > MOST_NUMBERS:
            joined = np.unique(joined, return_inverse=True)[1]
            size = int(joined.max(initial=0)) + 1
        joined, size = joined * most + field, size * most
    return np.unique(joined, return_inverse=True)[1]


def _texts(values: Sequence[str]) -> _Named[str]:
    distinct = sorted(set(values))
    return _Named(distinct, _numbers(values, {value: at for at, value in enumerate(distinct)}))


def _named(objects: Sequence[Any], value: Callable[[Any], Value]) -> _Named[Value]:
    """Numbers of the values; looks at each object once, however many jobs share it."""
    place = np.fromiter(map(id, objects), dtype=np.int64, count=len(objects))
    _, first, shared = np.unique(place, return_index=True, return_inverse=True)
    values = [value(objects[at]) for at in first.tolist()]
    distinct: list[Any] = sorted(set(values))
    number = {value: at for at, value in enumerate(distinct)}
    return _Named(distinct, _numbers(values, number)[shared])


def _numbers(values: Sequence[Value], number: Mapping[Value, int]) -> Index:
    return np.fromiter(map(number.__getitem__, values), dtype=np.int64, count=len(values))
