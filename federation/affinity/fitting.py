"""Parameters of the step-time formula from cells: robust, with priors, from several starts.

Minimised over theta, with r the differences of log seconds (steps, and single passes where the
wait is known), each cell with precision w = 1 / (MISFIT^2 + NOISE^2 / samples):

    sum_i 2 c^2 (sqrt(1 + w_i r_i^2 / c^2) - 1)  +  sum_k ((a_k theta - b_k) / sd_k)^2

the pseudo-Huber loss of a normal error and normal priors. Levenberg and Marquardt's method with
the analytic gradient; the weights of the loss are renewed in each step. theta is kept in bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from federation.affinity.network_prior import NetworkPrior, Normal
from federation.affinity.step_time import (
    FIXED,
    GRAD,
    GRAD_SAMPLE,
    LOCAL,
    LOCAL_GROWTH,
    NODE,
    NODE_GROWTH,
    OVERLAP,
    Array,
    Runs,
    Times,
    times,
)
from federation.affinity.tally import Cells

MISFIT = 0.05  #: what the formula misses even with many samples, in log seconds
NOISE = 0.05  #: of one sample
CUT = 2.0  #: c: standard deviations from which the loss grows linearly
STEPS = 60
FIRST_STEPS = 12  #: of each start, before the best goes on
CLOSE = 1e-6  #: relative gain below which a descent stops
NODE_COUNTS = 12  #: most numbers of nodes with a factor of their own
STARTS = ((-2.5, 0.0), (-0.5, 0.0), (-1.5, 1.5))  #: overlap, and log factor on the first costs
BOUNDS = 14.0  #: theta stays within so many logarithms of its prior mean
LARGE = 1e6  #: sd of a prior row that says nothing


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is fitted."""

    runs: Runs
    log_step: Array  # (n,)
    precision: Array  # (n,)
    has_compute: Array  # (n,) precision of log_compute, 0 where the wait is not known
    log_compute: Array  # (n,)
    node_counts: tuple[int, ...]
    rows: Array  # (k, p) of the priors, divided by their standard deviation
    wish: Array  # (k,)
    power: float  # p of the growth with replicas

    def times(self, theta: Array) -> Times:
        """What the formula says of the cells."""
        return times(theta, self.node_counts, self.runs, self.power)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A local optimum."""

    theta: Array
    loss: float


def node_counts_of(cells: Cells) -> tuple[int, ...]:
    """Numbers of nodes that get a factor: the most sampled, at least two nodes."""
    nodes = np.rint(cells.nodes).astype(np.int64)
    found, place = np.unique(nodes, return_inverse=True)
    counts = np.bincount(place, weights=cells.count)
    ranked = sorted(
        (-float(count), int(number))
        for number, count in zip(found, counts, strict=True)
        if number >= 2
    )
    return tuple(sorted(number for _, number in ranked[:NODE_COUNTS]))


def target(cells: Cells, factor: Array, prior: NetworkPrior) -> Target:
    """What to fit to cells; `factor` (n,) multiplies their compute time."""
    runs = Runs(cells.nodes, cells.replicas, cells.batch, cells.accumulation, factor)
    counts = node_counts_of(cells)
    rows, wish = _priors(cells, counts, prior)
    known = cells.computes > 0
    return Target(
        runs,
        cells.log_step,
        1.0 / (MISFIT**2 + NOISE**2 / cells.count),
        np.where(known, 1.0 / (MISFIT**2 + NOISE**2 / np.maximum(cells.computes, 1.0)), 0.0),
        cells.log_compute,
        counts,
        rows,
        wish,
        prior.power,
    )


def search(aim: Target) -> Found:
    """A few steps from each of STARTS, then the best to its end; ties go to the first."""
    centre = prior_mean(aim)
    found = []
    for overlap, shift in STARTS:
        start = centre.copy()
        start[OVERLAP] = overlap
        start[[LOCAL, NODE]] += shift
        found.append(descend(aim, start, FIRST_STEPS))
    return descend(aim, min(found, key=lambda one: one.loss).theta)


def prior_mean(aim: Target) -> Array:
    """theta at the centre of the priors."""
    return np.asarray(np.linalg.solve(aim.rows, aim.wish))


def descend(aim: Target, start: Array, steps: int = STEPS) -> Found:
    """Levenberg and Marquardt's method from one start."""
    centre = prior_mean(aim)
    low, high = centre - BOUNDS, centre + BOUNDS
    theta = np.clip(start, low, high)
    loss, gradient, curvature = _terms(aim, theta)
    damping = 1e-3
    for _ in range(steps):
        diagonal = np.diag(np.diag(curvature))
        step = cho_solve(cho_factor(curvature + damping * diagonal), -gradient)
        tried = np.clip(theta + step, low, high)
        there = _terms(aim, tried)
        if there[0] > loss:
            damping *= 8.0
            if damping > 1e8:
                break
            continue
        gain = loss - there[0]
        theta, (loss, gradient, curvature) = tried, there
        damping = max(damping / 8.0, 1e-9)
        if gain <= CLOSE * (1.0 + loss):
            break
    return Found(theta, float(loss))


def _terms(aim: Target, theta: Array) -> tuple[float, Array, Array]:
    """Loss, gradient (p,) and Gauss-Newton curvature (p, p), all of half the sum."""
    at = aim.times(theta)
    loss, gradient, curvature = 0.0, np.zeros(len(theta)), np.zeros((len(theta), len(theta)))
    for difference, precision, slope in (
        (at.log_step - aim.log_step, aim.precision, at.step_gradient),
        (at.log_grad - aim.log_compute, aim.has_compute, at.grad_gradient),
    ):
        root = np.sqrt(1.0 + precision * difference**2 / CUT**2)
        weight = precision / root
        loss += float(CUT**2 * np.sum(root - 1.0))
        gradient += slope.T @ (weight * difference)
        curvature += slope.T @ (weight[:, None] * slope)
    miss = aim.rows @ theta - aim.wish
    loss += 0.5 * float(miss @ miss)
    return loss, gradient + aim.rows.T @ miss, curvature + aim.rows.T @ aim.rows


def _priors(cells: Cells, counts: tuple[int, ...], prior: NetworkPrior) -> tuple[Array, Array]:
    """Rows and wishes of the normal priors, square and invertible; (p, p), (p,).

    The compute time is centred at half the shortest time seen for its fixed part and as much for a
    typical batch, each to a factor e^2; the first cost of an all-reduce at a twentieth of a step on
    one node and a half over several, to a factor e^1.5, unless the prior knows better.
    """
    size = FIXED + len(counts)
    seen = np.where(cells.computes > 0, cells.log_compute, cells.log_step)
    base = float(seen.min()) - np.log(2.0)
    typical = float(seen.mean())
    batch = float(np.log(cells.batch).mean())
    rows = np.eye(size)
    rows[LOCAL_GROWTH, LOCAL] = rows[NODE_GROWTH, NODE] = -1.0
    beliefs: list[Normal] = [(0.0, LARGE)] * size
    beliefs[GRAD] = (base, 2.0)
    beliefs[GRAD_SAMPLE] = (typical - np.log(2.0) - batch, 2.0)
    beliefs[LOCAL] = prior.local_s or (typical + np.log(0.05), 1.5)
    beliefs[NODE] = prior.node_s or (typical + np.log(0.5), 1.5)
    beliefs[LOCAL_GROWTH] = prior.local_growth
    beliefs[NODE_GROWTH] = prior.node_growth
    beliefs[OVERLAP] = prior.overlap
    for place, count in enumerate(counts):
        beliefs[FIXED + place] = prior.factor(count)
    mean, deviation = np.array(beliefs).T
    return rows / deviation[:, None], mean / deviation
