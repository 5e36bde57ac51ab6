"""Max-min fairness: the job served worst is served as well as can be, then the next, and so on.

    lexicographically maximise, smallest first,
        delivered_j / (what j's claim on every pool it may use would deliver)
    such that pools, demands, widths and floors are kept

Speeds differ by pool, so GPU-hours are no measure of what a job has: delivered samples are, over
those of the job's own share (*heterogeneity-aware*). The lowest ratio is at least one, unless the
job can use no more: nobody does better by taking its share of every pool and going alone. Raising
goes on until no job can have more without another at or below it having less, so nothing that
somebody could use lies idle. Doubling a claim doubles what the job is raised to.

Bids play no part beyond admitting a column. Gangs are decided as parts of the round and then placed
whole (`whole.py`). What is paid for moving is not weighed, but a job stays on equal terms.

Source: Narayanan, Santhanam, Kazhamiaka, Phanishayee and Zaharia, "Heterogeneity-aware cluster
scheduling policies for deep learning workloads" (OSDI 2020), which solves one programme with a row
for each job; water-filling and runs of kinds are ours (`filling.py`, `pressure.py`).
Axes: J jobs · K columns · E entries.
"""

from __future__ import annotations

from economics.market import Array
from economics.policies.awards import award_by
from economics.policies.board import Board
from economics.policies.entitlements import entitlements
from economics.policies.filling import Curve, fill
from economics.policies.question import Question

NAME = "max_min"


def award(question: Question) -> Array:
    """Share of each column, (K,). Raises NotCleared when floors do not fit together."""
    own = entitlements(question).output

    def plan(board: Board) -> Array:
        curve = Curve.straight(own[board.jobs])
        return fill(board.fleet, board.crowd, curve)[0].need

    return award_by(question, plan)
