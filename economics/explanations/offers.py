"""What each pool meant for one job: an offer at the published price, or why it was none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from economics.curves.cleared import Cleared, number
from economics.explanations.ways import Way
from economics.explanations.words import amount, gpus
from economics.reasons import apart
from economics.rows import JobRow, PoolRow

NOT_PERMITTED, NO_SPEED, TOO_FEW = "not_permitted", "no_speed", "too_few_gpus"
OVER_BUDGET, BELOW_RESERVE, NOTHING = "over_budget", "below_reserve", "nothing_asked"


def offers(cleared: Cleared, job: int) -> list[dict[str, Any]]:
    """One row for every pool and size the job could run at, by pool: bid, price, transfer, gain.

    `gain` is credits at full use there, `gain_per_gpu_hour` the same for one GPU-hour; a divisible
    job that leaves its pool pays `moving` once, beside the gain of its GPU-hours.
    """
    market, row = cleared.book.market, cleared.book.jobs[job]
    at = np.arange(market.columns)[market.columns_of(job)]
    return [_offer(cleared, row, job, int(column)) for column in at]


def _offer(cleared: Cleared, row: JobRow, job: int, column: int) -> dict[str, Any]:
    market, pool = cleared.book.market, int(cleared.book.market.pool[column])
    seller, price = cleared.book.pools[pool], float(cleared.price[pool])
    hours, value = float(market.gpu_hours[column]), float(market.value[column])
    fee = cleared.fees.get((row.site, seller.site), 0.0) + row.extra.get(seller.id, 0.0)
    moving = 0.0
    if not market.stays[column] and row.running_on is not None:
        moving = row.move_cost
    gain = value - float(market.cost[column]) - price * hours
    if not row.gang:
        gain -= float(market.move_charge[job]) * (not market.stays[column])
    return {
        "pool": seller.id,
        "gpus": round(hours / cleared.book.hours) if row.gang else None,
        "gpu_hours": number(hours),
        "msamples": number(market.msamples[column]),
        "worth": number(value / hours),
        "price": number(price),
        "transfer": number(fee),
        "moving": number(moving),
        "gain_per_gpu_hour": number(gain / hours),
        "gain": number(gain),
        "sold": number(hours * cleared.share[column]),
    }


def barred(cleared: Cleared, job: int, ways: tuple[Way, ...]) -> list[dict[str, Any]]:
    """One row for every pool that was no offer, by pool, with the first thing that ruled it out."""
    market, row = cleared.book.market, cleared.book.jobs[job]
    offered = set(market.pool[market.columns_of(job)].tolist())
    by_pool: dict[int, list[Way]] = {}
    for way in ways:
        by_pool.setdefault(way.pool, []).append(way)
    found = []
    for at, pool in enumerate(cleared.book.pools):
        if at in offered:
            continue
        reason, why = _ruled_out(cleared, row, pool, by_pool.get(at, []))
        found.append({"pool": pool.id, "reason": reason, "why": why})
    return found


def _ruled_out(cleared: Cleared, row: JobRow, pool: PoolRow, ways: list[Way]) -> tuple[str, str]:
    if row.pools is not None and pool.id not in row.pools:
        return NOT_PERMITTED, f"{pool.id} is not among the pools it may use."
    if not _has_speed(cleared.book.speed, row, pool):
        return NO_SPEED, f"{pool.id} has no speed for class {row.job_class}{_of_sizes(row)}."
    if not ways:
        return _nothing_wanted(row)
    fitting = [way for way in ways if way.spare >= 0]
    if not fitting:
        least = min(way.gpus or 1 for way in ways)
        return TOO_FEW, f"needs {gpus(least)} at {pool.id}, which has {pool.gpus} in this round."
    affordable = [way for way in fitting if way.within(row.budget, row.value)]
    if not affordable:
        least_worth = min(way.value for way in fitting)
        worth_text, budget_text = apart(least_worth, row.budget)
        return OVER_BUDGET, (
            f"its work of the round at {pool.id} is worth {worth_text} credits at its own "
            f"bid, more than its budget of {budget_text}."
        )
    best = max(affordable, key=lambda way: way.gain(pool.reserve) / way.gpu_hours)
    worth = (best.value - best.moving) / best.gpu_hours - best.fee
    return BELOW_RESERVE, (
        f"a GPU-hour at {pool.id} is worth {amount(worth)} credits to it after transfer and "
        f"moving, not more than the reserve of {amount(pool.reserve)}."
    )


def _has_speed(
    speed: Mapping[tuple[str, str], Mapping[int, float]], row: JobRow, pool: PoolRow
) -> bool:
    rates = speed.get((pool.id, row.job_class), {})
    single = rates.get(1, 0.0) > 0
    return any(rates[size] > 0 if size in rates else single for size in row.gang or (1,))


def _of_sizes(row: JobRow) -> str:
    return f" on {' or '.join(map(str, row.gang))} GPUs" if row.gang else ""


def _nothing_wanted(row: JobRow) -> tuple[str, str]:
    if row.budget == 0 and row.demand > 0:
        return OVER_BUDGET, "its budget is 0 credits."
    return NOTHING, "it asks for no work in this round."
