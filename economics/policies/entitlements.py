"""What each job would have alone: its claim on the whole, as a share of every pool it may use.

Fair policies compare what a job is given with this. Everybody could have it at once, so a policy
that raises the lowest ratio gives nobody less than its own share would have, as far as the job's
demand and width let it use that.

Axes: P pools · J jobs · K columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Market
from economics.policies.question import Question


@dataclass(frozen=True, slots=True)
class Entitlements:
    """Of each job in one round; zero for a job without a column."""

    output: Array  # (J,) Msamples from its share of every pool it may use, all of it used
    hours: Array  # (J,) GPU-hours of that share
    widest: Array  # (J,) GPU-hours it can use at most
    quickest: Array  # (J,) Msamples it could be delivered with all pools to itself, demand aside


def entitlements(question: Question) -> Entitlements:
    """Of every job, by its claim: the claims of all jobs with a column add up to one."""
    market = question.market
    pair, speed = _pairs(market)
    job, pool = pair // market.pools, pair % market.pools
    capacity = market.capacity[pool]
    gang = market.gang[market.job]
    largest, fastest = np.zeros(market.jobs), np.zeros(market.jobs)
    np.maximum.at(largest, market.job, market.gpu_hours)
    np.maximum.at(
        fastest, market.job, np.where(gang, market.speed * market.gpu_hours, market.speed)
    )
    allowed = np.bincount(job, weights=capacity, minlength=market.jobs)
    alone = np.bincount(job, weights=capacity * speed, minlength=market.jobs)
    unlimited = ~np.isfinite(market.width)
    width = np.where(unlimited, 0.0, market.width)
    return Entitlements(
        output=question.weight * alone,
        hours=question.weight * allowed,
        widest=np.where(market.gang, largest, np.where(unlimited, allowed, width)),
        quickest=np.where(market.gang, fastest, np.where(unlimited, alone, width * fastest)),
    )


def _pairs(market: Market) -> tuple[Array, Array]:
    """Every job and pool with a column, as one number, and the best speed there."""
    pair, where = np.unique(market.job * market.pools + market.pool, return_inverse=True)
    speed = np.zeros(pair.size)
    np.maximum.at(speed, where, market.speed)
    return pair, speed
