"""Maximum surplus: what is served is worth most, after reserves, transfer and moving. The default.

    maximise    sum of gain z    over shares z of the columns,
    such that   every pool's GPU-hours, every job's demand, width and floor are kept,
                and a gang is served whole or not at all

Prices support it: no job and no site would rather trade apart (economics.md, 3.2 and 3.3), so it is
the only policy whose divisible rounds need no transfer and leave no regret. It is blind to who is
served: a tenant who bids little may wait for long. Weights, attained service and deadlines play no
part.

Source: Shapley and Shubik, "The assignment game I: the core" (1971); Owen, "On the core of linear
production games" (1975).
Axes: P pools · K columns · A ways · E entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.paths import award as best_award
from economics.clearing.solver import Linear, minimise
from economics.market import Array

if TYPE_CHECKING:
    from economics.policies.fleet import Crowd, Fleet
    from economics.policies.question import Question

NAME = "surplus"


def award(question: Question) -> Array:
    """Share of each column, (K,)."""
    return best_award(question.market, nodes=question.nodes).share
