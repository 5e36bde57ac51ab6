"""What a job could run, at full use: its bundles, the corners of its own choices.

At given prices the best choice of a job is one of few: nothing; one column as far as width and
demand allow (a gang: its size); or two columns that together fill the width and deliver exactly the
demand (or exactly the floor). Capacity is left aside: that is what prices are for. The best of a
job's bundles is its `best_gain` of accounts.py; here all jobs are done at once.

Axes as in market.py: P pools · J jobs · K columns; here also L columns looked at · B bundles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index, Market, Mask

ENOUGH = 1e-9  # relative; a bundle this short of a floor still meets it


@dataclass(frozen=True, slots=True)
class Looked:
    """Some columns of a market, by job, with what limits them."""

    job: Index  # (L,) ascending
    hours: Array  # (L,) GPU-hours of full use
    speed: Array  # (L,) Msamples per GPU-hour
    demand: Array  # (L,) Msamples at most, of the job
    width: Array  # (L,) GPU-hours at most, of the job
    floor: Array  # (L,) Msamples promised to the job
    gang: Mask  # (L,)
    stays: Mask  # (L,)
    charge: Array  # (L,) credits the job pays once for leaving its pool


@dataclass(frozen=True, slots=True)
class Bundles:
    """Each row one bundle of one job, other than nothing at all; a second column of -1 is none."""

    job: Index  # (B,)
    first: Index  # (B,) place among the columns looked at
    second: Index  # (B,) likewise
    first_hours: Array  # (B,) GPU-hours
    second_hours: Array  # (B,) GPU-hours
    charge: Array  # (B,) credits, once, for leaving the pool the job runs on

    def amounts(self, per_hour: Array) -> Array:
        """Sum of a column's amount per GPU-hour, (L,), over the bundle's GPU-hours, (B,)."""
        total: Array = per_hour[self.first] * self.first_hours
        two = np.flatnonzero(self.second >= 0)
        total[two] += per_hour[self.second[two]] * self.second_hours[two]
        return total


def looked_at(market: Market, columns: Index) -> Looked:
    """These columns, ascending, (L,)."""
    job = market.job[columns]
    speed = market.msamples[columns] / market.gpu_hours[columns]
    demand, width, gang = market.demand[job], market.width[job], market.gang[job]
    full = np.where(gang, market.gpu_hours[columns], np.minimum(width, demand / speed))
    floor, charge = market.floor[job], market.move_charge[job]
    stays = market.stays[columns]
    return Looked(job, full, speed, demand, width, floor, gang, stays, charge)


def bundles_of(seen: Looked) -> Bundles:
    """Every bundle of these columns. One that misses its job's floor is none."""
    floored = seen.floor > 0
    parts = [_single(seen, seen.hours, seen.hours * seen.speed >= seen.floor * (1 - ENOUGH))]
    if floored.any():
        least = seen.floor / seen.speed
        parts.append(_single(seen, least, floored & (least * (1 - ENOUGH) <= seen.width)))
        parts.append(_pairs(seen, seen.floor))
    parts.append(_pairs(seen, seen.demand))
    return _joined([part for part in parts if part.job.size] or parts[:1])


def best_gain(market: Market, job: int, price: Array) -> float:
    """Credits of the best bundle of one job at these prices, (P,); -inf when it has none."""
    at = np.arange(market.columns)[market.columns_of(job)]
    worth = (market.value[at] - market.cost[at]) / market.gpu_hours[at]
    found = bundles_of(looked_at(market, at))
    gains = found.amounts(worth - price[market.pool[at]]) - found.charge
    return float(gains.max(initial=0.0 if market.floor[job] == 0 else -np.inf))


def _single(seen: Looked, hours: Array, chosen: Mask) -> Bundles:
    """One column; whoever leaves the pool it runs on pays for moving."""
    at = np.flatnonzero(chosen)
    charge = np.where(seen.stays[at], 0.0, seen.charge[at])
    none, zero = np.full(at.shape, -1, dtype=np.int64), np.zeros(at.shape)
    return Bundles(seen.job[at], at, none, hours[at], zero, charge)


def _pairs(seen: Looked, delivery: Array) -> Bundles:
    """Two columns of a job that fill its width and deliver exactly so much, (L,), wherever so."""
    limited = ~seen.gang & np.isfinite(seen.width) & np.isfinite(delivery) & (delivery > 0)
    most = np.where(limited, seen.width, 0.0) * seen.speed
    one, other = _crossed(seen.job, limited & (most < delivery), limited & (most > delivery))
    width, slow, fast = seen.width[one], seen.speed[one], seen.speed[other]
    hours = (delivery[one] - slow * width) / (fast - slow)
    return Bundles(seen.job[one], one, other, width - hours, hours, seen.charge[one])


def _crossed(job: Index, left: Mask, right: Mask) -> tuple[Index, Index]:
    """Every (left, right) pair of places with the same job; `job` ascends."""
    ours, theirs = np.flatnonzero(left), np.flatnonzero(right)
    start = np.searchsorted(job[theirs], job[ours], side="left")
    count = np.searchsorted(job[theirs], job[ours], side="right") - start
    one = np.repeat(ours, count)
    before = np.repeat(np.cumsum(count) - count, count)
    other = theirs[np.repeat(start, count) + np.arange(one.size) - before]
    return one, other


def _joined(parts: list[Bundles]) -> Bundles:
    if len(parts) == 1:
        return parts[0]
    return Bundles(
        np.concatenate([part.job for part in parts]),
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.second for part in parts]),
        np.concatenate([part.first_hours for part in parts]),
        np.concatenate([part.second_hours for part in parts]),
        np.concatenate([part.charge for part in parts]),
    )
