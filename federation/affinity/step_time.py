"""Seconds of a data-parallel training step as a formula of few parameters, with its gradient.

With N nodes, K replicas, m samples on a GPU in one pass and s passes of accumulation:

    T_grad = alpha_grad + beta_grad m
    T_sync = 0                                          K = 1
             alpha_local + beta_local h(K)              N = 1, K >= 2
             v_N (alpha_node + beta_node h(K))          N >= 2
    T_step = s T_grad + (T_grad^gamma + T_sync^gamma)^(1/gamma)

This is the form of Qiao and others, "Pollux: Co-adaptive Cluster Scheduling for Goodput-Optimized
Deep Learning", OSDI 2021, with two changes. There h(K) = K - 2: every replica more costs the same.
A ring sends 2 (K - 1)/K of the gradient over each link, which saturates like -1/K, and a tree takes
log2 K rounds; nothing that is in use grows faster in the small sizes that are measured first. So

    h_p(K) = (2^-p - K^-p) / (p log 2),     h_0(K) = log2 K - 1,

which is the ring at p = 1, the tree at p = 0, and at p = 1/2 lies between: that is what we use, and
the distance to either end goes into the band. h is 0 at two replicas. Second, v_N is a factor for
each number of nodes that was measured, drawn towards 1: two nodes share one pair of links, more
nodes a ring of them. More nodes than were measured take the factor of the greatest number that was,
if that is at least three: v_N levels off once there is a ring. gamma in [1, 10] is 1 without
overlap of the two times; their longer one at full overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BETWEEN = 0.5  #: p
GRAD, GRAD_SAMPLE, LOCAL, LOCAL_GROWTH, NODE, NODE_GROWTH, OVERLAP = range(7)
FIXED = 7  #: parameters before the factors of the node counts
MOST_OVERLAP = 10.0
RING = 3  #: nodes from which links make a ring; two share one pair of links
NEVER = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Configurations as arrays, all (n,), and what their compute time is multiplied by."""

    nodes: Array
    replicas: Array
    batch: Array
    accumulation: Array
    factor: Array  # (n,) departure of the compute time from a line in the batch


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """Predicted log seconds and their gradients, in the logarithms that `Theta` names."""

    log_step: Array  # (n,)
    log_grad: Array  # (n,) of one pass
    step_gradient: Array  # (n, p)
    grad_gradient: Array  # (n, p)
    sync: Array  # (n,) seconds


def growth(replicas: Array, power: float = BETWEEN) -> Array:
    """h(K), in units of the first doubling; 0 at K <= 2."""
    size = np.maximum(replicas, 2.0)
    if power == 0.0:
        return np.asarray(np.log2(size) - 1.0)
    return np.asarray((2.0**-power - size**-power) / (power * np.log(2.0)))


def overlap(value: Array | float) -> Array:
    """gamma of its unbounded parameter."""
    return np.asarray(1.0 + (MOST_OVERLAP - 1.0) / (1.0 + np.exp(-np.asarray(value))))


def columns_of(nodes: Array, node_counts: tuple[int, ...]) -> NDArray[np.int64]:
    """The place of each run's node factor in the parameters, -1 where it has none, (n,).

    More nodes than ever measured take the factor of the most that were, if those make a ring.
    """
    places = np.full(len(nodes), -1, dtype=np.int64)
    for place, count in enumerate(node_counts):
        places[np.rint(nodes) == count] = FIXED + place
    if node_counts and node_counts[-1] >= RING:
        places[np.rint(nodes) > node_counts[-1]] = FIXED + len(node_counts) - 1
    return places


def times(theta: Array, node_counts: tuple[int, ...], runs: Runs, power: float = BETWEEN) -> Times:
    """Evaluate the formula. theta (p,): logarithms, but for OVERLAP; see the module."""
    scale = np.exp(theta)
    grad = (scale[GRAD] + scale[GRAD_SAMPLE] * runs.batch) * runs.factor
    grad_gradient = np.zeros((len(grad), len(theta)))
    grad_gradient[:, GRAD] = scale[GRAD] * runs.factor / grad
    grad_gradient[:, GRAD_SAMPLE] = 1.0 - grad_gradient[:, GRAD]
    sync, sync_gradient = _sync(theta, node_counts, runs, power)
    gamma = float(overlap(theta[OVERLAP]))
    longer = np.maximum(grad, sync)
    powers = (grad / longer) ** gamma, (sync / longer) ** gamma
    total = powers[0] + powers[1]
    last = longer * total ** (1.0 / gamma)
    step = runs.accumulation * grad + last
    # d last / d log x = last * (x / longer)^gamma / total for x in (grad, sync)
    by_grad = (runs.accumulation * grad + last * powers[0] / total) / step
    by_sync = last * powers[1] / total / step
    gradient = by_grad[:, None] * grad_gradient + by_sync[:, None] * sync_gradient
    gradient[:, OVERLAP] = _by_overlap(gamma, (grad / longer, sync / longer), powers) * last / step
    return Times(np.log(step), np.log(grad), gradient, grad_gradient, sync)


def _by_overlap(gamma: float, ratios: tuple[Array, Array], powers: tuple[Array, Array]) -> Array:
    """d log last / d theta[OVERLAP], (n,)."""
    total = powers[0] + powers[1]
    logs = sum(
        part * np.log(np.maximum(ratio, NEVER)) for part, ratio in zip(powers, ratios, strict=True)
    )
    by_gamma = logs / (gamma * total) - np.log(total) / gamma**2
    slope = (gamma - 1.0) * (MOST_OVERLAP - gamma) / (MOST_OVERLAP - 1.0)
    return np.asarray(by_gamma * slope)


def _sync(
    theta: Array, node_counts: tuple[int, ...], runs: Runs, power: float
) -> tuple[Array, Array]:
    """Seconds of the all-reduce, and d log of it / d theta; (n,), (n, p)."""
    shape = growth(runs.replicas, power)
    spread = runs.nodes > 1.5
    fixed = np.exp(np.where(spread, theta[NODE], theta[LOCAL]))
    grown = np.exp(np.where(spread, theta[NODE_GROWTH], theta[LOCAL_GROWTH])) * shape
    places = columns_of(runs.nodes, node_counts)
    factor = np.exp(np.where(places >= 0, theta[places], 0.0))
    alone = runs.replicas < 1.5
    sync = np.where(alone, 0.0, factor * (fixed + grown))
    gradient = np.zeros((len(sync), len(theta)))
    share = np.where(alone, 0.0, fixed / (fixed + grown))
    rest = np.where(alone, 0.0, 1.0 - share)
    rows = np.arange(len(sync))
    gradient[rows, np.where(spread, NODE, LOCAL)] = share
    gradient[rows, np.where(spread, NODE_GROWTH, LOCAL_GROWTH)] = rest
    has = (places >= 0) & ~alone
    gradient[rows[has], places[has]] = 1.0
    return sync, gradient
