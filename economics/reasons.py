"""Why a job was not served in full, in words a tenant can act on. numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from economics import accounts
from economics.book import Book
from economics.columns import samples_per_s
from economics.market import Array

SERVED = 1e-6  # of what was asked for, below which the rest is not worth a line
SLIM = 1e-9  # credits per credit of value: gains below this are none


def unplaced(book: Book, share: Array, price: Array) -> list[dict[str, Any]]:
    """One row for every job not served in full that wants something, by job id."""
    return [row for job in range(len(book.jobs)) for row in _explain(book, job, share, price)]


def _explain(book: Book, job: int, share: Array, price: Array) -> Iterator[dict[str, Any]]:
    row, at = book.jobs[job], book.market.columns_of(job)
    if row.value == 0 or row.demand == 0 or row.max_gpus == 0:
        return
    has_columns = at.stop > at.start
    if not has_columns:
        reason, why = _without_column(book, job)
    elif row.gang:
        if share[at].any():
            return
        reason, why = _gang_left_out(book, job, share, price)
    else:
        verdict = _divisible(book, job, share, price)
        if verdict is None:
            return
        reason, why = verdict
    yield {
        "job": row.id,
        "reason": reason,
        "why": why,
        "would_run_at": _cheapest_bid(book, job, price) if has_columns else None,
    }


def _without_column(book: Book, job: int) -> tuple[str, str]:
    """The first thing that rules out every pool."""
    row = book.jobs[job]
    sizes = row.gang or (1,)
    allowed = [pool for pool in book.pools if row.pools is None or pool.id in row.pools]
    fast = [
        (pool, size)
        for pool in allowed
        for size in sizes
        if samples_per_s(book.speed.get((pool.id, row.job_class), {}), size) > 0
    ]
    if not fast:
        what = f"of {' or '.join(map(str, sizes))} GPUs " if row.gang else ""
        return (
            "no_feasible_pool",
            f"no pool it may use has a speed for class {row.job_class} {what}".rstrip() + ".",
        )
    fits = [(pool, size) for pool, size in fast if pool.gpus >= size]
    if not fits:
        most = max(pool.gpus for pool, _ in fast)
        return (
            "no_capacity",
            f"needs {min(sizes)} GPUs at one pool; the largest it may use has {most} free.",
        )
    if row.gang and np.isfinite(row.budget):
        cheapest = min(_worth(book, job, pool.id, size) for pool, size in fits)
        if cheapest > row.budget:
            return (
                "budget",
                f"its work of the round is worth at least {_money(cheapest)} credits at its own "
                f"bid, more than its budget of {_money(row.budget)}.",
            )
    if np.isfinite(row.budget) and row.budget == 0:
        return "budget", "its budget is 0 credits."
    return _below_reserve(book, job, [(pool.id, size) for pool, size in fits])


def _below_reserve(book: Book, job: int, ways: list[tuple[str, int]]) -> tuple[str, str]:
    row = book.jobs[job]
    reserve = {pool.id: pool.reserve for pool in book.pools}
    offers = []
    for pool, size in ways:
        hours = size * book.hours
        bid = _worth(book, job, pool, size) / hours
        offers.append((bid - reserve[pool], pool, bid))
    _, pool, bid = max(offers)
    return (
        "priced_out",
        f"bids {_money(row.value)} credits per million samples, worth {_money(bid)} per GPU-hour "
        f"at {pool}; its reserve there is {_money(reserve[pool])} before transfer and moving.",
    )


def _worth(book: Book, job: int, pool: str, gpus: int) -> float:
    """Credits the job's output on so many GPUs in the round is worth at its own bid."""
    row = book.jobs[job]
    rates = book.speed.get((pool, row.job_class), {})
    output = samples_per_s(rates, gpus) * 3600 / 1e6 * book.hours
    return row.value * (min(row.demand, output) if row.gang else output)


def _gang_left_out(book: Book, job: int, share: Array, price: Array) -> tuple[str, str]:
    market = book.market
    at = np.arange(market.columns)[market.columns_of(job)]
    keeps = market.value[at] - market.cost[at] - price[market.pool[at]] * market.gpu_hours[at]
    best = int(at[np.argmax(keeps)])
    pool = int(market.pool[best])
    hours, name = market.gpu_hours[best], book.pools[pool].id
    paid = price[pool] * hours + market.cost[best]
    sums = (
        f"{_gpus(hours / book.hours)} at {name} cost {_money(paid)} credits for the round "
        f"(price {_money(price[pool])} per GPU-hour), its bid is worth {_money(market.value[best])}"
    )
    if keeps.max() > SLIM * market.value[best]:
        left = market.capacity[pool] - accounts.used_hours(market, share)[pool]
        return (
            "rejected_at_price",
            f"{sums}: it would have paid, but whole jobs worth more together fill the pool; "
            f"{_gpus(max(left, 0.0) / book.hours)} stayed free there.",
        )
    return "priced_out", f"{sums}."


def _divisible(book: Book, job: int, share: Array, price: Array) -> tuple[str, str] | None:
    market, row = book.market, book.jobs[job]
    at = market.columns_of(job)
    given = float((market.msamples[at] * share[at]).sum())
    hours = float((market.gpu_hours[at] * share[at]).sum())
    full_width = hours >= market.width[job] * (1 - SERVED)
    if full_width or given >= row.demand * (1 - SERVED):
        return None
    if given >= market.demand[job] * (1 - SERVED):
        return (
            "budget",
            f"got {_money(given)} of {_money(row.demand)} million samples: its budget of "
            f"{_money(row.budget)} credits pays for no more at its own bid of {_money(row.value)}.",
        )
    sums = _best_offer(book, job, price)
    if given == 0.0:
        return "priced_out", sums
    asked = f" of {_money(row.demand)}" if np.isfinite(row.demand) else ""
    return "partly_served", f"got {_money(given)}{asked} million samples. For the rest: {sums}"


def _best_offer(book: Book, job: int, price: Array) -> str:
    market = book.market
    at = np.arange(market.columns)[market.columns_of(job)]
    worth = (market.value[at] - market.cost[at]) / market.gpu_hours[at]
    best = int(np.argmax(worth - price[market.pool[at]]))
    pool = int(market.pool[at[best]])
    return (
        f"at {book.pools[pool].id}, its best pool, a GPU-hour costs {_money(price[pool])} credits "
        f"and its bid of {_money(book.jobs[job].value)} per million samples is worth "
        f"{_money(worth[best])} there after transfer."
    )


def _cheapest_bid(book: Book, job: int, price: Array) -> dict[str, Any]:
    """Pool and bid, credits per Msample, from which the job gains at the published prices."""
    market = book.market
    at = np.arange(market.columns)[market.columns_of(job)]
    spent = market.cost[at] + price[market.pool[at]] * market.gpu_hours[at]
    bid = spent / market.msamples[at]
    best = int(np.argmin(bid))
    return {
        "pool": book.pools[int(market.pool[at[best]])].id,
        "value": round(float(bid[best]), 9),
    }


def _gpus(count: float) -> str:
    return f"{count:.6g} GPU{'' if count == 1 else 's'}"


def _money(amount: float) -> str:
    return f"{amount:.6g}"
