"""Finish-time fairness: the job that sharing delays most is delayed as little as can be.

    minimise, largest first,   ρ_j = finish time of j in the federation / finish time of j alone

With s_j the work a job still has, the round as the unit of time and x_j what it is delivered each
round,

    finish time in the federation    e_j + s_j / x_j    e_j: attained GPU-hours over its width
    finish time alone                 a_j + s_j / o_j    a_j: the same over the GPU-hours of its
                                                         claim, o_j: what its claim delivers

both counted from when it first ran. So a job that had less than its claim so far goes first. What ρ
asks of a job is x_j = s_j t / (T_j - e_j t) with t = 1/ρ and T_j the time alone: a curve whose
level is raised as in `filling.py`. The largest ρ is at most one: sharing delays nobody. The work of
a job without a demand is what its claim delivers in a round. Deadlines play no part.

Weights count through the claims; bids play no part beyond admitting a column. Gangs are decided as
parts of the round and then placed whole (`whole.py`).

Source: Mahajan and others, "Themis: fair and efficient GPU cluster scheduling" (NSDI 2020), in the
form of Narayanan and others, "Heterogeneity-aware cluster scheduling policies for deep learning
workloads" (OSDI 2020).
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

NAME = "finish_time"
SECONDS = 3600.0


def award(question: Question) -> Array:
    """Share of each column, (K,). Raises NotCleared when floors do not fit together."""
    whole = curve_of(question)

    def plan(board: Board) -> Array:
        curve = Curve(whole.pace[board.jobs], whole.lead[board.jobs])
        return fill(board.fleet, board.crowd, curve)[0].need

    return award_by(question, plan)


def curve_of(question: Question) -> Curve:
    """What each job, (J,), needs for a finish time of 1/t of what it would be alone."""
    own, demand = entitlements(question), question.market.demand
    alone = np.minimum(own.output, own.quickest)
    work = np.where(np.isfinite(demand), demand, alone)
    attained = question.attained / SECONDS
    elapsed = _over(attained, own.widest)
    time_alone = _over(attained, np.minimum(own.hours, own.widest)) + _over(work, alone)
    return Curve(pace=_over(work, time_alone), lead=_over(elapsed, time_alone))


def _over(amount: Array, rate: Array) -> Array:
    """Rounds that take an amount at a rate, (J,); 0 where there is no rate."""
    rounds: Array = np.divide(amount, rate, out=np.zeros(amount.shape), where=rate > 0)
    return rounds
