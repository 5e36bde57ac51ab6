"""Why a job was not served in full, in words a tenant can act on. numpy only.

All jobs are weighed together; only the sentences are written one by one. Axes as in market.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book
from economics.columns import samples_per_s
from economics.market import Array, Index, Market
from economics.memory import no_cycles
from economics.rows import JobRow, PoolRow
from economics.schema import LARGEST_NUMBER

SERVED = 1e-6  # of what was asked for, below which the rest is not worth a line
SLIM = 1e-9  # credits per credit of value: gains below this are none
AT_ONCE = 1_000  # jobs compared with all their pools in one step

Reason = tuple[int, str, str]  # job, code, sentence


@dataclass(frozen=True, slots=True)
class _Round:
    """A book and what was decided."""

    book: Book
    share: Array  # (K,)
    price: Array  # (P,) credits per GPU-hour

    @property
    def market(self) -> Market:
        return self.book.market


@dataclass(frozen=True, slots=True)
class _Way:
    """A size at a pool where the job's class has a speed."""

    pool: PoolRow
    gpus: int
    output: float  # Msamples in the round


def unplaced(book: Book, share: Array, price: Array) -> list[dict[str, Any]]:
    """One row for every job not served in full that wants something, by job id."""
    with no_cycles():
        round_ = _Round(book, share, price)
        asks = (book.market.bid > 0) & (book.market.width > 0)
        for job in np.flatnonzero(asks & (book.market.demand == 0)).tolist():
            asks[job] = book.jobs[job].demand > 0  # else its budget pays for nothing
        ways = np.bincount(book.market.job, minlength=book.market.jobs)
        reasons = sorted(
            chain(
                _without_column(round_, np.flatnonzero(asks & (ways == 0))),
                _gangs_left_out(round_, np.flatnonzero(asks & (ways > 0) & book.market.gang)),
                _divisible(round_, np.flatnonzero(asks & (ways > 0) & ~book.market.gang)),
            )
        )
        bids = _cheapest_bids(round_, np.array([job for job, _, _ in reasons], dtype=np.int64))
        return [
            {"job": book.jobs[job].id, "reason": code, "why": why, "would_run_at": bid}
            for (job, code, why), bid in zip(reasons, bids, strict=True)
        ]


def _without_column(round_: _Round, jobs: Index) -> Iterator[Reason]:
    """The first thing that rules out every pool, for all jobs of a class, sizes and pools."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for job in jobs.tolist():
        row = round_.book.jobs[job]
        alike[row.job_class, row.gang, row.pools].append(job)
    for members in alike.values():
        row = round_.book.jobs[members[0]]
        fast = list(_fast_ways(round_.book, row))
        fits = [way for way in fast if way.pool.gpus >= way.gpus]
        if fits:
            yield from _too_dear(round_, members, fits)
        else:
            code, why = _no_capacity(row, fast) if fast else _no_speed(row)
            yield from ((job, code, why) for job in members)


def _fast_ways(book: Book, row: JobRow) -> Iterator[_Way]:
    for pool in book.pools:
        if row.pools is not None and pool.id not in row.pools:
            continue
        rates = book.speed.get((pool.id, row.job_class), {})
        for size in row.gang or (1,):
            speed = samples_per_s(rates, size)
            if speed > 0:
                yield _Way(pool, size, speed * 3600 / 1e6 * book.hours)


def _no_speed(row: JobRow) -> tuple[str, str]:
    what = f"of {' or '.join(map(str, row.gang))} GPUs " if row.gang else ""
    return (
        "no_feasible_pool",
        f"no pool it may use has a speed for class {row.job_class} {what}".rstrip() + ".",
    )


def _no_capacity(row: JobRow, fast: list[_Way]) -> tuple[str, str]:
    most = max(way.pool.gpus for way in fast)
    least = min(row.gang or (1,))
    return (
        "no_capacity",
        f"needs {least} GPUs at one pool; the largest it may use has {most} free.",
    )


def _too_dear(round_: _Round, jobs: list[int], fits: list[_Way]) -> Iterator[Reason]:
    """Jobs of one kind that fit somewhere: beyond their budget, or below every reserve."""
    rows = round_.book.jobs
    output = np.array([way.output for way in fits])
    for start in range(0, len(jobs), AT_ONCE):
        some = jobs[start : start + AT_ONCE]
        demand = np.array([rows[job].demand if rows[job].gang else np.inf for job in some])
        bid = np.array([rows[job].value for job in some])
        worth = bid[:, None] * np.minimum(demand[:, None], output)
        best = _best_offers(round_, worth, fits)
        for job, least, (offer, way) in zip(some, worth.min(axis=1).tolist(), best, strict=True):
            row = rows[job]
            if row.gang and least > row.budget:
                least_text, budget_text = apart(least, row.budget)
                yield (
                    job,
                    "budget",
                    f"its work of the round is worth at least {least_text} credits at its own "
                    f"bid, more than its budget of {budget_text}.",
                )
            elif row.budget == 0:
                yield job, "budget", "its budget is 0 credits."
            else:
                yield (
                    job,
                    "priced_out",
                    f"bids {_money(row.value)} credits per million samples, worth {_money(offer)} "
                    f"per GPU-hour at {way.pool.id}; its reserve there is "
                    f"{_money(way.pool.reserve)} before transfer and moving.",
                )


def _best_offers(round_: _Round, worth: Array, fits: list[_Way]) -> Iterator[tuple[float, _Way]]:
    """The way of each job that is furthest above its reserve, and the bid there, per GPU-hour.

    Of equals the last pool by id, and there the highest bid. `worth`: (jobs, ways), credits.
    """
    hours = np.array([way.gpus * round_.book.hours for way in fits])
    reserve = np.array([way.pool.reserve for way in fits])
    pools = [way.pool.id for way in fits]
    pool = np.array([pools.index(name) for name in pools])
    bid = worth / hours
    margin = bid - reserve
    equal = margin == margin.max(axis=1)[:, None]
    last = np.where(equal, pool, -1)
    top = np.where(last == last.max(axis=1)[:, None], bid, -np.inf).argmax(axis=1)
    for job, way in enumerate(top.tolist()):
        yield float(bid[job, way]), fits[way]


def _gangs_left_out(round_: _Round, jobs: Index) -> Iterator[Reason]:
    book, market = round_.book, round_.market
    served = np.zeros(market.jobs, dtype=bool)
    served[market.job[round_.share != 0]] = True
    jobs = jobs[~served[jobs]]
    price = round_.price[market.pool]
    keeps = market.value - market.cost - price * market.gpu_hours
    best = _best_columns(market, keeps)[jobs]
    left = market.capacity - accounts.used_hours(market, round_.share)
    free = [_gpus(hours) for hours in (np.maximum(left, 0.0) / book.hours).tolist()]
    prices = [_money(amount) for amount in round_.price.tolist()]
    for job, pool, gpus, paid, value, kept in zip(
        jobs.tolist(),
        market.pool[best].tolist(),
        (market.gpu_hours[best] / book.hours).tolist(),
        (price * market.gpu_hours + market.cost)[best].tolist(),
        market.value[best].tolist(),
        keeps[best].tolist(),
        strict=True,
    ):
        sums = (
            f"{_gpus(gpus)} at {book.pools[pool].id} cost {_money(paid)} credits for the round "
            f"(price {prices[pool]} per GPU-hour), its bid is worth {_money(value)}"
        )
        if kept > SLIM * value:
            yield (
                job,
                "rejected_at_price",
                f"{sums}: it would have paid, but whole jobs worth more together fill the pool; "
                f"{free[pool]} stayed free there.",
            )
        else:
            yield job, "priced_out", f"{sums}."


def _divisible(round_: _Round, jobs: Index) -> Iterator[Reason]:
    if not jobs.size:
        return
    book, market, share = round_.book, round_.market, round_.share
    given = accounts.delivered(market, share)
    hours = np.bincount(market.job, market.gpu_hours * share, market.jobs)
    asked = np.array([row.demand for row in book.jobs], dtype=float)
    enough = 1 - SERVED
    full = (hours >= market.width * enough) | (given >= asked * enough)
    spent = given >= market.demand * enough
    jobs = jobs[~full[jobs]]
    worth = (market.value - market.cost) / market.gpu_hours
    best = _best_columns(market, worth - round_.price[market.pool])[jobs]
    prices = [_money(amount) for amount in round_.price.tolist()]
    for job, pool, at_best, got, out_of_money in zip(
        jobs.tolist(),
        market.pool[best].tolist(),
        worth[best].tolist(),
        given[jobs].tolist(),
        spent[jobs].tolist(),
        strict=True,
    ):
        row = book.jobs[job]
        if out_of_money:
            yield (
                job,
                "budget",
                f"got {_money(got)} of {_money(row.demand)} million samples: its budget of "
                f"{_money(row.budget)} credits pays for no more at its own bid of "
                f"{_money(row.value)}.",
            )
            continue
        sums = (
            f"at {book.pools[pool].id}, its best pool, a GPU-hour costs {prices[pool]} credits "
            f"and its bid of {_money(row.value)} per million samples is worth "
            f"{_money(at_best)} there after transfer."
        )
        if got == 0.0:
            yield job, "priced_out", sums
        else:
            of = "" if math.isinf(row.demand) else f" of {_money(row.demand)}"
            yield (
                job,
                "partly_served",
                f"got {_money(got)}{of} million samples. For the rest: {sums}",
            )


def _cheapest_bids(round_: _Round, jobs: Index) -> list[dict[str, Any] | None]:
    """Pool and bid, credits per Msample, from which each job gains at the published prices.

    None for a job without a column.
    """
    book, market = round_.book, round_.market
    spent = market.cost + round_.price[market.pool] * market.gpu_hours
    with np.errstate(over="ignore"):
        bid = np.minimum(spent / market.msamples, LARGEST_NUMBER)
    best = _best_columns(market, -bid)[jobs]
    if not market.columns:
        return [None] * jobs.size
    names = [row.id for row in book.pools]
    return [
        {"pool": names[pool], "value": round(value, 9)} if column >= 0 else None
        for column, pool, value in zip(
            best.tolist(), market.pool[best].tolist(), bid[best].tolist(), strict=True
        )
    ]


def _best_columns(market: Market, amount: Array) -> Index:
    """The column of each job where the amount is largest, the first of equals, (J,); -1 = none."""
    found = np.full(market.jobs, -1, dtype=np.int64)
    if market.columns:
        jobs, first = np.unique(market.job, return_index=True)
        top = np.zeros(market.jobs)
        top[jobs] = np.maximum.reduceat(amount, first)
        equal = np.flatnonzero(amount == top[market.job])
        owner = market.job[equal]
        found[owner[::-1]] = equal[::-1]
    return found


def _gpus(count: float) -> str:
    return f"{count:.6g} GPU{'' if count == 1 else 's'}"


def apart(one: float, other: float) -> tuple[str, str]:
    """Two sums of which one is more, with so many digits that it can be seen."""
    for digits in range(6, 17):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1]:
            return texts
    return repr(one), repr(other)


def _money(amount: float) -> str:
    return f"{amount:.6g}"
