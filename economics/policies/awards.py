"""From what a policy wants everybody to be delivered to an award of the market's columns.

1. The policy decides on parts of the round, gangs included.
2. Gangs are placed whole in what that leaves to them (`whole.py`).
3. The policy decides once more, for the divisible jobs, on what the gangs leave.

Axes: J jobs · K columns · E entries of a board.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from economics import accounts
from economics.clearing.allocation import cleaned
from economics.market import Array
from economics.policies.board import Board
from economics.policies.question import Question
from economics.policies.whole import place_gangs

ROOM = 1e-9  # relative; less than this of a pool is nothing

Plan = Callable[[Board], Array]  # Msamples each entry is to be delivered, (E,)


def award_by(question: Question, plan: Plan) -> Array:
    """Share of each column, (K,): what the plan says, gangs whole.

    Raises NotCleared when the plan does, as when floors do not fit together.
    """
    market = question.market
    everybody = Board.of(market, np.ones(market.jobs, dtype=bool), market.capacity)
    share = everybody.shares(plan(everybody))
    if not market.gang[market.job].any():
        return cleaned(market, share)
    divisible = np.where(market.gang[market.job], 0.0, share)
    room = market.capacity - accounts.used_hours(market, divisible)
    whole = place_gangs(market, share, everybody.way, room, question.attained)
    left = np.maximum(market.capacity - accounts.used_hours(market, whole), 0.0)
    rest = Board.of(market, ~market.gang, np.where(left > ROOM * market.capacity, left, 0.0))
    return cleaned(market, whole + rest.shares(plan(rest)))
