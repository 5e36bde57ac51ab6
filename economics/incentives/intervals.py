"""How sure a mean or a share is. No figure of a study is given without one of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

from economics.incentives.bootstrap import NORMAL, ROUNDS, Sample
from economics.market import Array

DEVIATIONS = NORMAL.inv_cdf(0.975)  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval; a single observation has none."""

    estimate: float
    low: float | None
    high: float | None
    count: int  # observations


def mean_interval(values: Array, *, seed: int, unit: str = ROUNDS) -> Interval | None:
    """The mean of independent rounds, (M,), with its bootstrap interval; None without any.

    With the unit `jobs` there is one round: its figure, then those of the draws of its jobs.
    """
    if not values.size:
        return None
    if values.size == 1:
        return Interval(float(values[0]), None, None, 1)
    rows = values.tolist()
    sample = Sample.of_rounds(rows, seed=seed) if unit == ROUNDS else Sample.of_jobs(rows)
    figure = sample.mean(float)
    return Interval(figure.value, figure.low, figure.high, sample.rounds)


def share_interval(hits: int, count: int) -> Interval | None:
    """A share of independent observations with its score interval, which no zero makes certain.

    None without observations. Source: Wilson, 1927, "Probable inference, the law of succession,
    and statistical inference".
    """
    if count == 0:
        return None
    share, square = hits / count, DEVIATIONS**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # At the ends the interval reaches the share itself, which rounding must not leave outside.
    low = 0.0 if hits == 0 else max(middle - half, 0.0)
    high = 1.0 if hits == count else min(middle + half, 1.0)
    return Interval(share, low, high, count)
