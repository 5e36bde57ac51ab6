"""Maximum surplus: what is served is worth most, after reserves, transfer and moving. The default.

    maximise    sum of gain z    over shares z of the columns,
    such that   every pool's GPU-hours, every job's demand, width and floor are kept,
                and a gang is served whole or not at all

Prices support it: no job and no site would rather trade apart, so it is the only policy whose
divisible rounds leave no regret. It is blind to who is served: a tenant who bids little may wait
for long. Weights, attained service and deadlines play no part.

`most` is the same for jobs that their kind says everything about, bid included: one programme with
a row for each kind, whatever the number of jobs. With equal bids it is the largest throughput.

Source: Shapley and Shubik, "The assignment game I: the core" (1971); Owen, "On the core of linear
production games" (1975).
Axes: P pools · K columns · A ways · E entries · Q pairs.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.paths import award as best_award
from economics.clearing.solver import Linear, minimise
from economics.market import Array
from economics.policies.fleet import Crowd, Fleet
from economics.policies.question import Question

NAME = "surplus"


def award(question: Question) -> Array:
    """Share of each column, (K,). Raises NotCleared when the solver proves no optimum."""
    return best_award(question.market, nodes=question.nodes).share


def most(fleet: Fleet, crowd: Crowd, worth: Array) -> tuple[float, Array]:
    """The largest total of worth, (A,) of a unit of each way, and the units one job takes, (Q,).

    Demands and floors play no part. Pairs are those of `fleet.ways_of(crowd.kind)`.
    """
    entry, way = fleet.ways_of(crowd.kind)
    pools, pairs = fleet.capacity.size, np.arange(entry.size)
    held = crowd.count * crowd.units
    rows = np.concatenate([fleet.pool[way], pools + entry])
    entries = np.concatenate([fleet.hours[way], np.ones(entry.size)])
    size = (pools + crowd.kind.size, entry.size)
    solved = minimise(
        Linear(
            cost=-worth[way],
            matrix=csr_array((entries, (rows, np.concatenate([pairs, pairs]))), shape=size),
            low=np.full(size[0], -np.inf),
            high=np.concatenate([fleet.capacity, held]),
            least=np.zeros(entry.size),
            most=np.full(entry.size, np.inf),
        )
    )
    return -solved.objective, solved.values / crowd.count[entry]
