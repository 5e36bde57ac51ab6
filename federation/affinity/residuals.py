"""What the formula leaves: a Gaussian process over configurations, and how far to trust it.

The difference d(x) of log seconds at configuration x has mean 0 and the covariance

    S1^2 n(x,x') k_K  +  S2^2 k_m  +  S3^2 n(x,x') k_K k_m  +  S4^2 [same N, K] k_m
        +  S5^2 k_m'  +  S6^2 [same N, K, m]

with k_K and k_m squared exponentials in log replicas (length 0.5) and log batch (length 1), k_m'
one of short length (0.25), and n 1 for the same number of nodes, 0.6 for two different numbers
above one, 0 between one node and several. So a placement that is slow at one size is slow at its
neighbours, and a batch that is slow is slow everywhere. The last two terms are what neighbours do
not tell: one batch that hits a slow kernel, though the next ones do not, and one cell that differs
for no reason that shows; without them a cell amid measured ones is believed too firmly. Far from
all samples the process returns to 0 and the band opens to its full width (Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, sections 2.2 and 2.7; the formula's parameters are
the linear part of 2.7, linearised at the fit).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack, solve_triangular

from federation.affinity.step_time import Array

S1, S2, S3, S4, S5, S6 = 0.15, 0.08, 0.08, 0.04, 0.08, 0.05
LENGTH_REPLICAS, LENGTH_BATCH, LENGTH_KERNEL = 0.5, 1.0, 0.25
SAME = 1e-9  #: logarithms apart at which two places are one
ACROSS_NODES = 0.6
PRIOR_SD = (S1**2 + S2**2 + S3**2 + S4**2 + S5**2 + S6**2) ** 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where configurations lie: nodes, log replicas, log batch; all (n,)."""

    nodes: Array
    replicas: Array
    batch: Array


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """The process given cells. n cells, p parameters."""

    places: Places
    lower: Array  # (n, n) Cholesky factor of covariance with noise
    weights: Array  # (n,) inverse covariance times differences
    slope: Array  # (n, p) of the formula at the cells
    solved: Array  # (n, p) inverse covariance times slope
    parameters: Array  # (p, p) covariance of the parameters


def covariance(one: Places, other: Places, single: float = S6) -> Array:
    """Of the differences at two lists of places, (n, m); `single` is what stands for S6.

    Few sizes and batches stand for many places, so the kernels are worked out once for each pair
    of distinct values.
    """
    (sizes, size), (batches, batch) = _distinct(one)
    (other_sizes, other_size), (other_batches, other_batch) = _distinct(other)
    by_size, twins = _size_kernel(sizes, other_sizes)
    away = batches[:, None] - other_batches[None, :]
    wide = np.exp(-0.5 * (away / LENGTH_BATCH) ** 2)
    short = np.exp(-0.5 * (away / LENGTH_KERNEL) ** 2)
    rows, columns = np.ix_(size, other_size), np.ix_(batch, other_batch)
    spread = (S3**2 * by_size + S4**2 * twins)[rows]
    spread *= wide[columns]
    spread += (S2**2 * wide + S5**2 * short)[columns]
    spread += (S1**2 * by_size)[rows]
    spread += single**2 * (twins[rows] * (np.abs(away) < SAME)[columns])
    return np.asarray(spread)


def _size_kernel(one: Array, other: Array) -> tuple[Array, Array]:
    """n(x, x') k_K, and which are the same, of sizes (n, 2) and (m, 2); (n, m) each."""
    same = one[:, None, 0] == other[None, :, 0]
    several = (one[:, None, 0] > 1.5) & (other[None, :, 0] > 1.5)
    nodes = np.where(same, 1.0, np.where(several, ACROSS_NODES, 0.0))
    apart = (one[:, None, 1] - other[None, :, 1]) / LENGTH_REPLICAS
    return nodes * np.exp(-0.5 * apart**2), same & (np.abs(apart) < SAME)


def _distinct(
    places: Places,
) -> tuple[tuple[Array, NDArray[np.intp]], tuple[Array, NDArray[np.intp]]]:
    """Distinct (nodes, log replicas) and log batches, each with the place of every row."""
    pairs = np.stack([np.rint(places.nodes), places.replicas], axis=1)
    sizes, size = np.unique(pairs, axis=0, return_inverse=True)
    batches, batch = np.unique(places.batch, return_inverse=True)
    return (sizes, size.reshape(-1)), (batches, batch.reshape(-1))


def likelihood(kernel: Array, difference: Array, noise: Array) -> float:
    """Log likelihood of differences (n,), up to a constant; kernel (n, n), noise variances (n,)."""
    lower = np.linalg.cholesky(kernel + np.diag(noise))
    whitened = solve_triangular(lower, difference, lower=True)
    return float(-0.5 * whitened @ whitened - np.sum(np.log(np.diag(lower))))


def condition(
    places: Places,
    kernel: Array,
    difference: Array,
    noise: Array,
    slope: Array,
    prior_rows: Array,
) -> Process:
    """The process given differences (n,) with noise variances (n,).

    kernel (n, n) is their covariance, slope (n, p) of the formula, prior_rows (k, p).
    """
    lower = np.asarray(np.linalg.cholesky(kernel + np.diag(noise)), float)
    factor = (lower, True)
    solved = cho_solve(factor, slope)
    precision = slope.T @ solved + prior_rows.T @ prior_rows
    parameters = cho_solve(cho_factor(precision), np.eye(len(precision)))
    weights = np.asarray(cho_solve(factor, difference))
    return Process(places, lower, weights, slope, solved, np.asarray(parameters))


def given(process: Process, places: Places, slope: Array) -> tuple[Array, Array]:
    """Mean and variance of the differences at places, with the doubt about the parameters; (m,)."""
    cross = covariance(places, process.places)
    mean = cross @ process.weights
    half = solve_triangular(process.lower, cross.T, lower=True)
    own = np.maximum(PRIOR_SD**2 - np.sum(half**2, axis=0), 0.0)
    rest = slope - cross @ process.solved
    doubt = np.einsum("mi,ij,mj->m", rest, process.parameters, rest)
    return mean, own + np.maximum(doubt, 0.0)


def inverse_covariance(process: Process) -> Array:
    """Of the cells' differences, noise and doubt about the parameters included, (n, n)."""
    half, _ = lapack.dpotri(process.lower, lower=1)
    inverse = np.tril(half) + np.tril(half, -1).T
    return np.asarray(inverse - process.solved @ process.parameters @ process.solved.T)


def left_out(inverse: Array, difference: Array, groups: Array) -> tuple[Array, Array]:
    """Error and variance of each cell as foretold by the cells of other groups, (n,), (n,).

    With Q = `inverse`, a group g left out is foretold with error Q_gg^-1 (Q d)_g and covariance
    Q_gg^-1 (section 5.4.2 there).
    """
    pulled = inverse @ difference
    if len(np.unique(groups)) == len(groups):  # each cell alone: no block to invert
        variance = 1.0 / np.diag(inverse)
        return pulled * variance, np.maximum(variance, 1e-12)
    error, variance = np.empty(len(difference)), np.empty(len(difference))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        block = np.linalg.inv(inverse[np.ix_(rows, rows)])
        error[rows] = block @ pulled[rows]
        variance[rows] = np.diag(block)
    return error, np.maximum(variance, 1e-12)
