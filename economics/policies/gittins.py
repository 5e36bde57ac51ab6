"""2D-Gittins: the jobs most likely to finish for the service they take first.

    G(a) = P(S - a <= D | S > a) / E[min(S - a, D) | S > a]

for the service a that a job attained, the total service S of past jobs and a quantum D, all in
GPU-seconds: `gittins_index.py` has the estimator. Jobs are served by falling index, those of one
index together by maximum surplus, then less attained service, then the id. A job that attained
more than every past job has an index of 0 and comes last.

Parameters: `samples`, the total services of past jobs, which must be given; `quantum`, 16 GPU-hours
unless given, like the threshold of `las.py`. The index of a job is looked up at whole quanta, so
there are never more levels than quanta up to the largest sample.

Source: Gu and others, "Tiresias: a GPU cluster manager for distributed deep learning" (NSDI 2019).
"""

from __future__ import annotations

import numpy as np

from economics.market import Array
from economics.policies.gittins_index import Experience
from economics.policies.priority import serve_in_levels
from economics.policies.question import Question
from economics.policies.settings import positive, positives

NAME = "gittins"
QUANTUM = 57_600.0  # GPU-seconds


def award(question: Question) -> Array:
    """Share of each column, (K,)."""
    experience = Experience.of(
        positives(question.parameters, "samples", None),
        positive(question.parameters, "quantum", QUANTUM),
    )
    priority = experience.priority(question.attained)
    _, level = np.unique(-priority, return_inverse=True)
    return serve_in_levels(
        question.market, level.astype(np.int64), question.attained, nodes=question.nodes
    )
