"""What an award means in GPU-hours and credits: use, welfare, payments, payoffs, regret.

numpy only. Both sides use it, on the numbers as published: the round and its check.
Axes as in market.py: N sites · P pools · J jobs · K columns.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np

from economics.market import Array, Index, Market

MICRO = 1_000_000  # micro-credits in a credit


def used_hours(market: Market, share: Array) -> Array:
    """GPU-hours sold by each pool, (P,)."""
    return _summed(market.pool, market.gpu_hours * share, market.pools)


def delivered(market: Market, share: Array) -> Array:
    """Msamples each job is given, (J,)."""
    return _summed(market.job, market.msamples * share, market.jobs)


def moving(market: Market, share: Array) -> Array:
    """Credits each divisible job pays, once, for leaving the pool it runs on, (J,)."""
    leaves = np.zeros(market.jobs, dtype=bool)
    leaves[market.job[(share > 0) & ~market.stays]] = True
    charge: Array = np.where(leaves, market.move_charge, 0.0)
    return charge


def job_gain(market: Market, share: Array) -> Array:
    """Credits each job's award creates: value less reserves, transfer, extra and moving, (J,)."""
    gain = _summed(market.job, market.gain * share, market.jobs)
    result: Array = gain - moving(market, share)
    return result


def welfare(market: Market, share: Array) -> float:
    """Credits the award creates in the round."""
    return float(job_gain(market, share).sum())


def job_rent(market: Market, share: Array, rent: Array) -> Array:
    """Credits above reserve each job pays at these rents, (J,)."""
    return _summed(market.job, rent[market.pool] * market.gpu_hours * share, market.jobs)


def best_gain(market: Market, rent: Array) -> Array:
    """Credits of each job's best bundle at these rents, capacity aside, (J,).

    The bundle keeps to demand, width, budget and floor. Negative only for a job with a floor.
    """
    margin = market.gain - rent[market.pool] * market.gpu_hours
    best = np.zeros(market.jobs)
    np.maximum.at(best, market.job, np.where(market.gang[market.job], margin, 0.0))
    for job in np.flatnonzero(~market.gang):
        best[job] = _best_divisible(market, int(job), margin)
    return best


def regret_parts(market: Market, share: Array, rent: Array) -> tuple[Array, Array]:
    """Credits each pool (P,) and each job (J,) falls short of its best choice at these rents."""
    of_pools: Array = rent * (market.capacity - used_hours(market, share))
    realised = job_gain(market, share) - job_rent(market, share, rent)
    of_jobs: Array = best_gain(market, rent) - realised
    return of_pools, of_jobs


def regret(market: Market, share: Array, rent: Array) -> float:
    """Total credits by which pools and jobs fall short of their best choice at these rents."""
    of_pools, of_jobs = regret_parts(market, share, rent)
    return float(of_pools.sum() + of_jobs.sum())


def payment_micro(price: float, gpu_hours: float) -> int:
    """round-half-even(price x gpu_hours x 10^6), exactly on the decimals as written."""
    exact = Decimal(repr(price)) * Decimal(repr(gpu_hours)) * MICRO
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def site_payoffs(market: Market, share: Array, paid: Array) -> Array:
    """Credits each site has from the round before transfers, (N,).

    `paid` (K,) is what each column's job pays its pool's site, credits.
    """
    home, seller = market.home[market.job], market.owner[market.pool]
    running = market.reserve[market.pool] * market.gpu_hours * share
    own = _summed(home, (market.value - market.cost) * share - paid, market.sites)
    sold = _summed(seller, paid - running, market.sites)
    moved = _summed(market.home, moving(market, share), market.sites)
    result: Array = own + sold - moved
    return result


def _best_divisible(market: Market, job: int, margin: Array) -> float:
    """Best bundle of a divisible job: stay at no charge, or go anywhere and pay for moving."""
    at = np.arange(market.columns)[market.columns_of(job)]
    charge = float(market.move_charge[job])
    anywhere = _best_mix(market, job, at, margin) - charge
    if not charge:
        return anywhere
    at_home = _best_mix(market, job, at[market.stays[at]], margin)
    return max(anywhere, at_home)


def _best_mix(market: Market, job: int, at: Index, margin: Array) -> float:
    """Most credits over these columns with hours <= width and floor <= Msamples <= demand.

    A best mix uses one column, or two with the width and one end of the delivery both met.
    """
    rate = margin[at] / market.gpu_hours[at]  # credits per GPU-hour
    speed = market.msamples[at] / market.gpu_hours[at]  # Msamples per GPU-hour
    width, demand, floor = market.width[job], market.demand[job], market.floor[job]
    if not at.size:
        return 0.0 if floor == 0 else -np.inf
    hours = np.minimum(width, demand / speed)
    enough = hours * speed >= floor * (1 - 1e-9)
    found = [0.0] if floor == 0 else []
    found += list((hours * rate)[enough])
    found += list((floor / speed * rate)[enough])
    for delivery in {float(demand), float(floor)} - {0.0, np.inf}:
        found += list(_two_column_mixes(rate, speed, float(width), delivery))
    return float(max(found, default=-np.inf))


def _two_column_mixes(rate: Array, speed: Array, width: float, delivery: float) -> Array:
    """Credits of every pair of columns that fills the width and meets the delivery exactly."""
    if np.isinf(width):
        return np.zeros(0)
    slow, fast = np.nonzero(
        (speed[:, None] * width < delivery) & (speed[None, :] * width > delivery)
    )
    fast_hours = (delivery - speed[slow] * width) / (speed[fast] - speed[slow])
    mixes: Array = fast_hours * rate[fast] + (width - fast_hours) * rate[slow]
    return mixes


def _summed(index: Index, amounts: Array, size: int) -> Array:
    return np.bincount(index, weights=amounts, minlength=size).astype(np.float64)
