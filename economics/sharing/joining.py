"""What a site gains by taking part, and the dividend it needs for that to be worth its cost."""

from __future__ import annotations

import numpy as np

from economics.market import Array
from economics.sharing.tables import CoalitionGame


def joining(game: CoalitionGame, payoff: Array) -> Array:
    """Credits each site has by these payoffs beyond what it makes alone, (N,)."""
    gained: Array = payoff - game.alone
    return gained


def break_even(market: Array, target: Array, owed: Array) -> Array:
    """The least and the most alpha at which each site has at least what it is owed, (N, 2).

    Payoffs are (1 - alpha) x market + alpha x target; `owed` (N,) is what a site makes alone plus
    what taking part costs it, credits. A row of nan: no alpha between 0 and 1 will do.
    """
    slope = target - market
    with np.errstate(divide="ignore", invalid="ignore"):
        meets = (owed - market) / slope
    least = np.where(slope > 0, np.maximum(meets, 0.0), 0.0)
    most = np.where(slope < 0, np.minimum(meets, 1.0), 1.0)
    never = (least > 1.0) | (most < 0.0) | ((slope == 0) & (market < owed))
    found: Array = np.where(never[:, None], np.nan, np.column_stack([least, most]))
    return found
