"""How wide a band must be to hold nine of ten new measurements.

The process of `residuals` foretells each cell from all other cells, and from the cells of other
(nodes, replicas) alone. Its deviations are multiplied by the factor that makes the bands hold nine
tenths of what it foretold so, the greater of the two, with the noise of single measurements, as
repeated ones show it, on top (split conformal prediction: Lei and others, Distribution-Free
Predictive Inference for Regression, 2018; here with groups left out in turn).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from federation.affinity.step_time import Array
from federation.affinity.tally import Cells

HELD = 0.9  #: share of measurements that a band holds
DEVIATIONS = NormalDist().inv_cdf(0.5 + HELD / 2)
PLAIN_NOISE = 0.05  #: log seconds from one measurement of a configuration to the next
NOISE_WEIGHT = 4.0  #: measurements that PLAIN_NOISE counts for
STRIDE, CLIMBS = 2.0, 5  #: of the search for the noise
NOISES = (0.01**2, 0.5**2)
PLAIN_WEIGHT = 4.0  #: groups that a scale of 1 counts for
SCALES = (0.1, 4.0)
LEAST_VARIANCE = 1e-6
OUTLYING = 9.0  #: three deviations of the median repeat
FEW_GROUPS = 4  #: with fewer, no size is left out whole


def noise_variance(cells: Cells) -> float:
    """Of log seconds from one measurement of a cell to the next, by repeated ones alone."""
    freedom, seen = _repeats(cells)
    return (NOISE_WEIGHT * PLAIN_NOISE**2 + seen) / (NOISE_WEIGHT + freedom)


def repeats_suffice(cells: Cells) -> bool:
    """Whether as many measurements repeat another as there are cells: they then say the noise."""
    return _repeats(cells)[0] >= len(cells.count)


def noise_score(cells: Cells, noise: float) -> float:
    """Log likelihood of what repeated measurements differ by, with PLAIN_NOISE as some of them."""
    freedom, seen = _repeats(cells)
    weight = NOISE_WEIGHT + freedom
    return -0.5 * (weight * math.log(noise) + (seen + NOISE_WEIGHT * PLAIN_NOISE**2) / noise)


def likeliest_noise(score: Callable[[float], float], start: float) -> float:
    """The noise variance of greatest score among start times powers of STRIDE, climbing."""
    best, height = start, score(start)
    for stride in (STRIDE, 1.0 / STRIDE):
        climbed = False
        for _ in range(CLIMBS):
            tried = best * stride
            there = score(tried) if NOISES[0] <= tried <= NOISES[1] else -math.inf
            if there <= height:
                break
            best, height, climbed = tried, there, True
        if climbed:
            break
    return best


def _repeats(cells: Cells) -> tuple[float, float]:
    """How many measurements repeat another, and the sum of squares that they differ by.

    No cell says more than OUTLYING times the variance of the median repeat: a sample in fifty that
    took five times as long is not the noise of the others. `throughput` trusts its cell less.
    """
    repeated = cells.count > 1
    if not repeated.any():
        return 0.0, 0.0
    freedom = cells.count[repeated] - 1.0
    variance = cells.count[repeated] * cells.spread[repeated] / freedom
    # the median of chi squared over its freedom, which is below 1 (Wilson and Hilferty, 1931)
    level = variance / (1.0 - 2.0 / (9.0 * freedom)) ** 3
    order = np.argsort(level, kind="stable")
    share = np.cumsum(freedom[order]) / freedom.sum()
    middle = level[order][np.searchsorted(share, 0.5)]
    kept = np.minimum(variance, OUTLYING * middle)
    return float(freedom.sum()), float(np.sum(freedom * kept))


def ways_to_leave_out(cells: Cells) -> tuple[Array, ...]:
    """Groups of cells that are foretold by the others, (n,) each: every cell alone, and sizes.

    What a size teaches of its own batches is another matter than what other sizes teach of it: a
    band is to hold both a cell amid measured ones and a size that was not measured. Sizes are left
    out only where there are some.
    """
    alone = np.arange(len(cells.count), dtype=float)
    pairs = np.stack([np.rint(cells.nodes), np.rint(cells.replicas)], axis=1)
    found, place = np.unique(pairs, axis=0, return_inverse=True)
    if len(found) < FEW_GROUPS:
        return (alone,)
    return alone, np.asarray(place.reshape(-1), dtype=float)


def scale(cells: Cells, error: Array, variance: Array, groups: Array, noise: float) -> float:
    """What deviations of the model are multiplied by, apart from the noise of a measurement.

    error, variance (n,) are of cells left out, the noise of their mean included. A cell of several
    samples stands for two measurements, one deviation to each side of its mean; one with outliers
    is taken to vary like the others around a mean that is not known so well. Each measurement needs
    a factor to be held: |missed| = DEVIATIONS sqrt(factor^2 model + noise).
    """
    model = np.maximum(variance - noise / cells.count, LEAST_VARIANCE)
    wild = cells.spread > OUTLYING * noise
    side = np.sqrt(np.where(wild, noise, cells.spread))
    unsure = np.sqrt(np.where(wild, cells.spread / cells.count, 0.0))
    error = np.sign(error) * np.maximum(np.abs(error) - unsure, 0.0)
    missed = np.concatenate([error - side, error + side]) / DEVIATIONS
    needed = np.sqrt(np.maximum(missed**2 - noise, 0.0) / np.tile(model, 2))
    weight = np.tile(cells.count / 2.0, 2)
    order = np.argsort(needed, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    point = float(needed[order][np.searchsorted(share, HELD)])
    many = len(np.unique(groups))
    drawn = (many * point + PLAIN_WEIGHT) / (many + PLAIN_WEIGHT)
    return float(np.clip(drawn, *SCALES))
