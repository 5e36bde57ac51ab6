"""A site's score from its contracts, and what the score does: it moves the rate of its bonds.

A claim is scored as the site's word for its TAU quantile: a speed that nine contracts in ten will
reach. The pinball loss is proper for a quantile (Koenker and Bassett, Regression quantiles,
Econometrica 46, 1978; Gneiting and Raftery, JASA 102, 2007): on average nobody loses less by
saying another speed than the one it believes, neither a higher one nor a lower one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TAU = 0.1  #: the quantile that a claim is taken for
LOSS = 0.1  #: mean loss at which a score has fallen to 1/e
NEWCOMER_SCORE = 0.5
NEWCOMER_WEIGHT = 5.0  #: contracts that the newcomer's score counts for
HIGHEST = 3.0  #: times the venue's rate, at a score of 0
LOWEST = 0.5  #: times the venue's rate, at a score of 1
MILLION = 1_000_000


def pinball(log_ratio: float) -> float:
    """Loss of a claim when log(measured / claimed) is `log_ratio`; 0 = exactly as claimed."""
    return max(TAU * log_ratio, (TAU - 1.0) * log_ratio)


def score(log_ratios: Sequence[float], *, non_starts: int = 0) -> float:
    """0 to 1 from the recent contracts; a lease that never started scores 0."""
    count = len(log_ratios) + non_starts
    if not count:
        return NEWCOMER_SCORE
    mean = sum(map(pinball, log_ratios)) / len(log_ratios) if log_ratios else 0.0
    shown = math.exp(-mean / LOSS) * len(log_ratios)
    return (NEWCOMER_WEIGHT * NEWCOMER_SCORE + shown) / (NEWCOMER_WEIGHT + count)


def bond_rate(base_ppm: int, of: float) -> int:
    """The rate of a site's bonds in parts per million, from the venue's and the site's score.

    The venue's own rate at the newcomer's score, LOWEST and HIGHEST times as much at the ends,
    never more than the whole price.
    """
    away = 1.0 - of / NEWCOMER_SCORE  # 1 at a score of 0, -1 at a score of 1
    factor = math.pow(HIGHEST, away) if away > 0 else math.pow(LOWEST, -away)
    return min(MILLION, round(base_ppm * factor))
