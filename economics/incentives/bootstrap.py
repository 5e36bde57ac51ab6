"""Figures with their 95 % intervals, by bootstrap over rounds or over the jobs of one round.

With several rounds, a figure is a statistic of the rounds (mostly the mean) and rounds are drawn
again with replacement: the bias-corrected and accelerated percentile interval (BCa) of Efron,
Better bootstrap confidence intervals, Journal of the American Statistical Association 82 (1987),
with the acceleration from leaving out one round at a time. With one round, its jobs are drawn again
and everything is decided anew for each draw: the plain percentile interval, as what a market makes
is concave in its jobs, so that most draws lie on one side and a correction would leave next to no
interval. An interval always holds its figure. Seeds are arguments: same rows and seed, same digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Generic, TypeVar

import numpy as np

from economics.market import Array, Index

Row = TypeVar("Row")

ROUNDS, JOBS = "rounds", "jobs"
LEVEL = 0.95
NORMAL = NormalDist()
ROUND_DRAWS = 2000
JOB_DRAWS = 100


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval, in the unit of the figure."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sample(Generic[Row]):
    """What was computed for each round, or for the one round and for each draw of its jobs."""

    unit: str  # what was drawn again: rounds or jobs
    rows: tuple[Row, ...]  # rounds: one for each; jobs: the round itself first, then the draws
    again: Index  # rounds: (B, R) places of the rounds of each draw; jobs: (0, 0)

    @classmethod
    def of_rounds(cls, rows: Sequence[Row], *, seed: int, draws: int = ROUND_DRAWS) -> Sample[Row]:
        """One row for each of at least two rounds."""
        if len(rows) < 2:
            raise ValueError("rounds can be drawn again from two on")
        again = np.random.default_rng(seed).integers(0, len(rows), (draws, len(rows)))
        return cls(ROUNDS, tuple(rows), again)

    @classmethod
    def of_jobs(cls, rows: Sequence[Row]) -> Sample[Row]:
        """The round as it was, then one row for each draw of its jobs."""
        return cls(JOBS, tuple(rows), np.zeros((0, 0), dtype=np.int64))

    @property
    def draws(self) -> int:
        return len(self.rows) - 1 if self.unit == JOBS else int(self.again.shape[0])

    @property
    def rounds(self) -> int:
        return 1 if self.unit == JOBS else len(self.rows)

    def mean(self, of: Callable[[Row], float]) -> Figure:
        """The mean of a figure over rounds; of one round, that figure."""
        return self.statistic(lambda row: (of(row),), lambda means: float(means[0]))

    def ratio(self, over: Callable[[Row], float], under: Callable[[Row], float]) -> Figure:
        """The sum of one figure over that of another; 0 where the latter is 0."""
        return self.statistic(
            lambda row: (over(row), under(row)),
            lambda means: float(means[0] / means[1]) if means[1] else 0.0,
        )

    def statistic(
        self, of: Callable[[Row], tuple[float, ...]], joined: Callable[[Array], float]
    ) -> Figure:
        """A function of the means of several figures, (F,) -> float."""
        table = np.array([of(row) for row in self.rows], dtype=float)  # (R, F)
        if self.unit == JOBS:
            found = np.array([joined(row) for row in table])
            return _figure(found[0], found[1:], bias=0.0, speed=0.0)
        others = (table.sum(axis=0) - table) / (len(table) - 1)  # without each round in turn
        value = joined(table.mean(axis=0))
        drawn = np.array([joined(row) for row in table[self.again].mean(axis=1)])
        left_out = np.array([joined(row) for row in others])
        return _figure(value, drawn, bias=_bias(value, drawn), speed=_acceleration(left_out))


def _figure(value: float, drawn: Array, *, bias: float, speed: float) -> Figure:
    """The percentiles of the draws, moved for bias and for acceleration."""
    value = float(value)
    if not drawn.size:
        raise ValueError("an interval needs draws")
    low, high = (
        float(np.quantile(drawn, _moved(tail, bias, speed)))
        for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    )
    return Figure(value, min(low, value), max(high, value))


def _bias(value: float, drawn: Array) -> float:
    """How far from the middle of the draws the figure is, in standard deviations."""
    below = float((drawn < value).mean() + (drawn == value).mean() / 2)
    edge = 0.5 / drawn.size  # all draws on one side still leave a finite bias
    return NORMAL.inv_cdf(min(max(below, edge), 1 - edge))


def _moved(tail: float, bias: float, speed: float) -> float:
    """The percentile to read instead of `tail`."""
    point = bias + NORMAL.inv_cdf(tail)
    return NORMAL.cdf(bias + point / max(1 - speed * point, 1e-9))


def _acceleration(left_out: Array) -> float:
    """Skewness of the figure when one round at a time is left out; 0 where all are the same."""
    if not left_out.size:
        return 0.0
    off = left_out.mean() - left_out
    size = float((off**2).sum())
    return float((off**3).sum()) / (6 * size**1.5) if size > 1e-24 else 0.0
