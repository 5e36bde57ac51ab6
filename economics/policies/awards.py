"""From what a policy wants everybody to be delivered to an award of the market's columns.

1. The policy decides on parts of the round, gangs included.
2. Gangs are placed whole in what that leaves to them (`whole.py`).
3. The policy decides once more, for the divisible jobs, on what the gangs leave.
4. Gangs that still wait take what is left after that.

Axes: J jobs · K columns · E entries of a board.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from economics import accounts
from economics.clearing.allocation import cleaned
from economics.market import Array, Market
from economics.policies.board import Board
from economics.policies.question import Question
from economics.policies.whole import place_gangs

ROUNDING = 1e-7  # relative; less than this of a pool is nothing

Plan = Callable[[Board], Array]  # Msamples each entry is to be delivered, (E,)


def award_by(question: Question, plan: Plan) -> Array:
    """Share of each column, (K,): what the plan says, gangs whole.

    Raises NotCleared when the plan does, as when floors do not fit together.
    """
    market = question.market
    gang = market.gang[market.job]
    everybody = Board.of(market, np.ones(market.jobs, dtype=bool), market.capacity)
    part = everybody.shares(plan(everybody))
    if not gang.any():
        return cleaned(market, part)
    room = _left(market, np.where(gang, 0.0, part))
    whole = place_gangs(market, part, everybody.way, room, question.attained)
    rest = Board.of(market, ~market.gang, _left(market, whole))
    share = whole + rest.shares(plan(rest))
    served = np.bincount(market.job, weights=whole, minlength=market.jobs) > 0
    waiting = np.where(served[market.job], -1, everybody.way)
    share += place_gangs(market, part, waiting, _left(market, share), question.attained)
    return cleaned(market, share)


def _left(market: Market, share: Array) -> Array:
    """GPU-hours each pool has left, (P,); rounding is nothing."""
    left = market.capacity - accounts.used_hours(market, share)
    return np.where(left > ROUNDING * market.capacity, left, 0.0)
