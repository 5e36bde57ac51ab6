"""What is believed of the all-reduce of a pool before a class was measured there.

Two sources: the other classes of the pool (the links are the same for all, so the overlap, the
growth with replicas and the cost of two nodes against more are each drawn from one distribution),
and the size of the gradient with the speed of the links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from federation.affinity.step_time import (
    BETWEEN,
    FIXED,
    LOCAL,
    LOCAL_GROWTH,
    NODE,
    NODE_GROWTH,
    OVERLAP,
    Array,
)

Normal = tuple[float, float]  #: mean and standard deviation
FACTOR: Normal = (0.0, 0.5)  #: log v_N
LEAST_SPREAD = 0.3  #: classes of a pool differ by at least this much
WEIGHT = 3.0  #: classes that the plain prior counts for


@dataclass(frozen=True, slots=True)
class NetworkPrior:
    """Normal beliefs. Ratios and factors are natural logarithms; seconds are log seconds.

    The plain one says: growth of the order of the first cost, some overlap, two nodes like many.
    """

    local_growth: Normal = (-0.5, 1.5)  # log of growth over first cost, on one node
    node_growth: Normal = (-0.9, 1.5)  # the same over several nodes
    overlap: Normal = (-1.5, 1.0)  # of gamma's unbounded parameter
    factors: tuple[tuple[int, Normal], ...] = field(default=())  # log v_N by number of nodes
    power: float = BETWEEN  # p of the growth with replicas: 1 like a ring, 0 like a tree
    local_s: Normal | None = None  # log seconds of the all-reduce of two replicas, one node
    node_s: Normal | None = None  # log seconds over two nodes or more

    def factor(self, nodes: int) -> Normal:
        return dict(self.factors).get(nodes, FACTOR)


PLAIN = NetworkPrior()


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What one class says of the pool: its parameters and their standard deviations, both (p,)."""

    theta: Array
    deviation: Array
    node_counts: tuple[int, ...]


def pool_prior(classes: Sequence[Fitted]) -> NetworkPrior:
    """The distribution that the classes of a pool were drawn from, by moments.

    Each is weighted by 1 / (its variance + the plain variance); the plain prior counts for WEIGHT
    classes, so that two classes do not make a rule.
    """
    ordered = sorted(classes, key=lambda one: tuple(one.theta))
    counts = sorted({count for one in ordered for count in one.node_counts})
    return NetworkPrior(
        local_growth=_ratio(ordered, LOCAL_GROWTH, LOCAL, PLAIN.local_growth),
        node_growth=_ratio(ordered, NODE_GROWTH, NODE, PLAIN.node_growth),
        overlap=_ratio(ordered, OVERLAP, None, PLAIN.overlap),
        factors=tuple((count, _factor(ordered, count)) for count in counts),
    )


def _ratio(classes: Sequence[Fitted], upper: int, lower: int | None, plain: Normal) -> Normal:
    values = [one.theta[upper] - (0.0 if lower is None else one.theta[lower]) for one in classes]
    spreads = [
        float(np.hypot(one.deviation[upper], 0.0 if lower is None else one.deviation[lower]))
        for one in classes
    ]
    return _pooled([float(value) for value in values], spreads, plain)


def _factor(classes: Sequence[Fitted], nodes: int) -> Normal:
    known = [one for one in classes if nodes in one.node_counts]
    places = [FIXED + one.node_counts.index(nodes) for one in known]
    return _pooled(
        [float(one.theta[place]) for one, place in zip(known, places, strict=True)],
        [float(one.deviation[place]) for one, place in zip(known, places, strict=True)],
        FACTOR,
    )


def _pooled(values: list[float], deviations: list[float], plain: Normal) -> Normal:
    """Mean and spread of the classes, with the plain prior as WEIGHT classes at its mean."""
    mean, spread = plain
    if not values:
        return plain
    weights = [spread**2 / (spread**2 + deviation**2) for deviation in deviations]
    total = WEIGHT + sum(weights)
    centre = (WEIGHT * mean + sum(w * v for w, v in zip(weights, values, strict=True))) / total
    scatter = sum(w * (v - centre) ** 2 for w, v in zip(weights, values, strict=True))
    variance = (WEIGHT * spread**2 + scatter) / total
    return centre, max(LEAST_SPREAD, float(np.sqrt(variance)))
