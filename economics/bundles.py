"""The best a job can do at given prices, capacity aside: its best bundle of columns.

A gang takes its best column or none. A divisible job solves

    max rate . hours   subject to   sum hours <= width,   floor <= speed . hours <= demand

whose best answer uses one column, or two that fill the width and meet one end of the delivery. In
the plane of speed and rate that answer, per hour of width, is the height at demand / width of the
upper hull of the columns and the origin. All jobs walk along their hulls together: from the chord
between the best slow and the best fast column, on to the column furthest above it, until none is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index, Market, Mask

FLOOR_MET = 1 - 1e-9  # relative; a floor that takes all the width must not fail by rounding


def best_gain(market: Market, rent: Array) -> Array:
    """Credits of each job's best bundle at these rents, (J,).

    The bundle keeps to demand, width, budget and floor. Negative only for a job with a floor.
    """
    margin = market.gain - rent[market.pool] * market.gpu_hours
    best = np.zeros(market.jobs)
    gangs = np.flatnonzero(market.gang[market.job])
    np.maximum.at(best, market.job[gangs], margin[gangs])
    easy = ~market.gang & (market.floor == 0)
    if easy.any():
        at = np.flatnonzero(easy[market.job])
        anywhere = _best_mixes(market, at, margin) - market.move_charge
        home = at[market.stays[at] & (market.move_charge[market.job[at]] > 0)]
        stayed = _best_mixes(market, home, margin)
        best = np.where(easy, np.maximum(anywhere, stayed), best)
    for job in np.flatnonzero(market.floor > 0):
        best[job] = _with_floor(market, int(job), margin)
    return best


def _best_mixes(market: Market, at: Index, margin: Array) -> Array:
    """Most credits over these columns, in order, of each job without a floor, (J,)."""
    best = np.zeros(market.jobs)
    job = market.job[at]
    rate = margin[at] / market.gpu_hours[at]  # credits per GPU-hour
    speed = market.msamples[at] / market.gpu_hours[at]  # Msamples per GPU-hour
    width, demand = market.width[job], market.demand[job]
    np.maximum.at(best, job, np.minimum(width, demand / speed) * rate)
    slow, fast = speed * width < demand, speed * width > demand
    useful = np.isfinite(width) & np.isfinite(demand) & (demand > 0) & (rate > 0)
    both = np.zeros((2, market.jobs), dtype=bool)
    both[0, job[slow & useful]] = both[1, job[fast & useful]] = True
    useful &= (slow | fast) & (both[0] & both[1])[job]
    if useful.any():
        jobs, first = np.unique(job[useful], return_index=True)
        corners = _Corners(
            first=first,
            rate=rate[useful],
            speed=speed[useful],
            slow=slow[useful],
            width=market.width[jobs],
            demand=market.demand[jobs],
        )
        best[jobs] = np.maximum(best[jobs], _best_pairs(corners))
    return best


@dataclass(frozen=True, slots=True)
class _Corners:
    """Columns that may be mixed, job by job; Q columns of M jobs."""

    first: Index  # (M,) where the columns of the job begin
    rate: Array  # (Q,) credits per GPU-hour
    speed: Array  # (Q,) Msamples per GPU-hour
    slow: Mask  # (Q,) whether the width runs out before the demand; else the other way round
    width: Array  # (M,) GPU-hours
    demand: Array  # (M,) Msamples

    @property
    def owner(self) -> Index:
        """Number of each column's job, (Q,)."""
        return np.repeat(np.arange(self.first.size), np.diff(self.first, append=self.rate.size))

    def only(self, jobs: Mask) -> _Corners:
        kept = jobs[self.owner]
        count = np.diff(self.first, append=self.rate.size)[jobs]
        return _Corners(
            first=np.cumsum(count) - count,
            rate=self.rate[kept],
            speed=self.speed[kept],
            slow=self.slow[kept],
            width=self.width[jobs],
            demand=self.demand[jobs],
        )

    def highest(self, height: Array) -> Index:
        """The column of each job that is highest, the first of equals, (M,)."""
        owner = self.owner
        top = np.flatnonzero(height == np.maximum.reduceat(height, self.first)[owner])
        return top[np.unique(owner[top], return_index=True)[1]]

    def mixed(self, slow: Index, fast: Index) -> Array:
        """Credits of a pair of columns that fills the width and meets the demand exactly, (M,)."""
        spread = self.speed[fast] - self.speed[slow]
        fast_hours = (self.demand - self.speed[slow] * self.width) / spread
        mixes: Array = fast_hours * self.rate[fast] + (self.width - fast_hours) * self.rate[slow]
        return mixes


def _best_pairs(corners: _Corners) -> Array:
    """Most credits of a slow and a fast column together, (M,)."""
    slow = corners.highest(np.where(corners.slow, corners.rate, -np.inf))
    fast = corners.highest(np.where(corners.slow, -np.inf, corners.rate))
    found = corners.mixed(slow, fast)
    place = np.arange(found.size)  # of the jobs still walking
    while place.size:
        slope = (corners.rate[fast] - corners.rate[slow]) / (
            corners.speed[fast] - corners.speed[slow]
        )
        owner = corners.owner
        height = corners.rate - slope[owner] * corners.speed
        above = corners.highest(height)
        slower = corners.slow[above]
        slow, fast = np.where(slower, above, slow), np.where(slower, fast, above)
        mixed = corners.mixed(slow, fast)
        walks = mixed > found[place]
        found[place[walks]] = mixed[walks]
        place = place[walks]
        kept = corners.only(walks)
        moved = np.cumsum(walks[owner]) - 1  # where a kept column stands now
        slow, fast, corners = moved[slow[walks]], moved[fast[walks]], kept
    return found


def _with_floor(market: Market, job: int, margin: Array) -> float:
    """Best bundle of a job with a floor: stay at no charge, or go anywhere and pay for moving."""
    at = np.arange(market.columns)[market.columns_of(job)]
    charge = float(market.move_charge[job])
    anywhere = _best_mix(market, job, at, margin) - charge
    if not charge:
        return anywhere
    return max(anywhere, _best_mix(market, job, at[market.stays[at]], margin))


def _best_mix(market: Market, job: int, at: Index, margin: Array) -> float:
    """Most credits over these columns with hours <= width and floor <= Msamples <= demand.

    A best mix uses one column, or two with the width and one end of the delivery both met.
    """
    rate = margin[at] / market.gpu_hours[at]
    speed = market.msamples[at] / market.gpu_hours[at]
    width, demand, floor = market.width[job], market.demand[job], market.floor[job]
    hours = np.minimum(width, demand / speed)
    enough = hours * speed >= floor * FLOOR_MET
    found = [*(hours * rate)[enough], *(floor / speed * rate)[enough]]
    for delivery in {float(demand), float(floor)} - {np.inf}:
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
