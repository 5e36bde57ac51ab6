"""2D-LAS: the jobs that attained least service first, in a few queues, each by maximum surplus.

    queue of job j = 1 + #{i : W_j >= t_i},    W_j = GPU-seconds job j has attained so far

for the thresholds t_1 < t_2 < ... in GPU-seconds. Queue 1 is served first, then queue 2 from what
is left, and so on; inside a queue the award of largest surplus is made, and between equals less
attained service goes first, then the id.

Parameter: `thresholds`. One of 16 GPU-hours unless given: a job of eight GPUs is not put back after
its first round of an hour, and on the public Philly trace that threshold did well whether or not
running jobs went first inside a queue, while one GPU-hour did well only if they did.

Source: Gu and others, "Tiresias: a GPU cluster manager for distributed deep learning" (NSDI 2019).
"""

from __future__ import annotations

from economics.market import Array
from economics.policies.priority import serve_in_levels
from economics.policies.question import Question
from economics.policies.queues import queue_of
from economics.policies.settings import positives

NAME = "las"
THRESHOLDS = (57_600.0,)  # GPU-seconds


def award(question: Question) -> Array:
    """Share of each column, (K,)."""
    thresholds = positives(question.parameters, "thresholds", THRESHOLDS)
    return serve_in_levels(
        question.market,
        queue_of(question.attained, thresholds),
        question.attained,
        nodes=question.nodes,
    )
