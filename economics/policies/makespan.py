"""Makespan: the last job to finish finishes as early as can be.

    minimise T    such that a job's speed x T >= its work,  and pools and widths are kept

With τ = 1/T the rows are linear, speed >= τ x work, so the shortest T is the optimum of one linear
programme; bisection on T would solve one for every halving and stop short. Here it is solved on
runs of jobs, exactly and in a few steps (`filling.py`). A round's length is the unit: the level
raised is the part of everybody's work that this round gets done, up to all of it. Jobs that do not
decide T are raised further, so that nothing they could use lies idle. The work of a job without a
demand is the most it could do in the round.

For a batch that is wanted as a whole. It serves large jobs at the cost of small ones and knows no
claims: weights play no part, and bids none beyond admitting a column. Gangs are decided as parts of
the round and then placed whole (`whole.py`).

Source: the policy is one of Narayanan and others, "Heterogeneity-aware cluster scheduling policies
for deep learning workloads" (OSDI 2020); the change of variable is that of linear-fractional
programmes (Charnes and Cooper, 1962).
Axes: J jobs · K columns · E entries.
"""

from __future__ import annotations

import numpy as np

from economics.market import Array
from economics.policies.awards import award_by
from economics.policies.board import Board
from economics.policies.entitlements import entitlements
from economics.policies.filling import Curve, fill
from economics.policies.question import Question

NAME = "makespan"


def award(question: Question) -> Array:
    """Share of each column, (K,). Raises NotCleared when floors do not fit together."""
    demand = question.market.demand
    work = np.where(np.isfinite(demand), demand, entitlements(question).quickest)

    def plan(board: Board) -> Array:
        curve = Curve.straight(work[board.jobs])
        return fill(board.fleet, board.crowd, curve)[0].need

    return award_by(question, plan)
