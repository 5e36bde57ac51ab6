"""Proportional fairness: nobody's gain in per cent is worth another's larger loss in per cent.

    maximise    sum over jobs of claim_j x log(delivered_j)

such that pools, demands, widths and floors are kept: the Eisenberg-Gale programme. Its rents make a
market in which every job spends its claim as it likes best. No job would rather have another's
GPU-hours for the same claim, no move helps one without hurting another, and each has at least what
its claim would give it of every pool. Between max-min fairness, which holds everybody back for the
worst served, and maximum surplus, which serves whom it serves best.

Jobs of one kind are one buyer with the sum of their claims, and share what it gets by claim: the
programme of all kinds is solved by proportional response (`response.py`) to a proved gap. That
answer holds when no job is then delivered more than it can use. Where jobs can use only so much,
which is usual when demands are small, a few linear programmes find the answer (`tangents.py`), to a
gap proved job by job. Both gaps are per unit of claim: a gap of 1e-6 is a part in a million of what
everybody is delivered.

Bids play no part beyond admitting a column. Gangs are decided as parts of the round and then placed
whole (`whole.py`). What is paid for moving is not weighed, but a job stays on equal terms.

Source: Eisenberg and Gale, "Consensus of subjective probabilities: the pari-mutuel method" (1959);
Kelly, Maulloo and Tan, "Rate control for communication networks" (1998).
Axes: P pools · C kinds · A ways · E entries.
"""

from __future__ import annotations

import numpy as np

from economics.market import Array
from economics.policies.awards import award_by
from economics.policies.board import Board
from economics.policies.fleet import Crowd, Fleet
from economics.policies.question import Question
from economics.policies.response import Equilibrium, Fisher, respond
from economics.policies.tangents import share

NAME = "proportional"
GAP = 1e-6  # per unit of claim
FIRST_GAP = 1e-3  # of the market of kinds, to see whether what jobs can use matters
OVER = 1.05  # a job delivered this many times what it can use settles that


def award(question: Question) -> Array:
    """Share of each column, (K,). Raises NotCleared when floors do not fit together."""

    def plan(board: Board) -> Array:
        return deliveries(board.fleet, board.crowd, question.weight[board.jobs])

    return award_by(question, plan)


def deliveries(fleet: Fleet, crowd: Crowd, claim: Array) -> Array:
    """Msamples each job should be delivered, (E,); every entry is one job."""
    if not crowd.kind.size:
        return np.zeros(0)
    budget: Array = np.bincount(crowd.kind, weights=claim, minlength=fleet.kinds).astype(float)
    market = market_of(fleet, budget)
    part = claim / market.budget[crowd.kind]  # of what its kind gets
    found = respond(market, gap=FIRST_GAP)
    if _usable(fleet, crowd, part, found, OVER):
        found = respond(market, gap=GAP)
        if _usable(fleet, crowd, part, found, 1.0):
            return part * found.utility[crowd.kind]
    return share(fleet, crowd, claim, found.price, gap=GAP).delivered


def market_of(fleet: Fleet, budget: Array) -> Fisher:
    """The market of kinds, who pay from a budget, (C,), for GPU-hours."""
    return Fisher(
        buyer=fleet.kind,
        good=fleet.pool,
        value=fleet.output / fleet.hours,
        budget=budget,
        supply=fleet.capacity,
    )


def _usable(fleet: Fleet, crowd: Crowd, part: Array, found: Equilibrium, over: float) -> bool:
    """Whether every job has its floor, and can use what it is delivered or `over` times less."""
    units = np.bincount(fleet.kind, weights=found.amount / fleet.hours, minlength=fleet.kinds)
    delivered = part * found.utility[crowd.kind]
    within = (delivered <= over * crowd.most) & (part * units[crowd.kind] <= over * crowd.units)
    return bool((within & (over * delivered >= crowd.least)).all())
