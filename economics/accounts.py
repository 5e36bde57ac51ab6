"""What an award means in GPU-hours and credits: use, welfare, payments, payoffs, regret.

numpy only. Both sides use it, on the numbers as published: the round and its check.
Axes as in market.py: N sites · P pools · J jobs · K columns.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np

from economics.bundles import best_gain as best_gain
from economics.market import Array, Index, Market

MICRO = 1_000_000  # micro-credits in a credit
DECIMALS = Context(prec=80, rounding=ROUND_HALF_EVEN)  # two doubles multiply exactly
LARGEST_SURE = 1e13  # micro-credits up to which a double tells halves apart with room to spare


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
    exact = DECIMALS.multiply(Decimal(repr(price)), Decimal(repr(gpu_hours)))
    return int(DECIMALS.to_integral_value(DECIMALS.multiply(exact, MICRO)))


def payments_micro(price: Array, gpu_hours: Array) -> list[int]:
    """`payment_micro` of many lines; only those close to half a micro-credit are done in decimals.

    Three roundings and two numbers written in decimals leave a relative error below 1e-15.
    """
    amount = price * gpu_hours * MICRO
    unsure = np.abs(amount - np.floor(amount) - 0.5) <= np.maximum(np.abs(amount) * 1e-14, 1e-9)
    unsure |= ~(np.abs(amount) < LARGEST_SURE)
    whole: list[int] = np.where(unsure, 0.0, np.rint(amount)).astype(np.int64).tolist()
    for at in np.flatnonzero(unsure).tolist():
        whole[at] = payment_micro(float(price[at]), float(gpu_hours[at]))
    return whole


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


def _summed(index: Index, amounts: Array, size: int) -> Array:
    return np.bincount(index, weights=amounts, minlength=size).astype(np.float64)
