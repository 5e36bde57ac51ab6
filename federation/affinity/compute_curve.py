"""Where the time of one pass departs from a line in the batch.

Kernels are chosen by batch size, input pipelines saturate and memory runs out, so T_grad is not
alpha + beta m. What passes without waiting took (their step less its wait, or one replica alone)
departs from the line by exp(d(log m)), with d a Gaussian process of one dimension: standard
deviation 0.15, length 0.35 in log batch. It is 0 far from the batches that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from federation.affinity.step_time import Array
from federation.affinity.tally import Cells

DEVIATION, LENGTH = 0.15, 0.35
NOISE = 0.04  #: of one cell, in log seconds
FLOOR = 0.02  #: of any batch, however many cells it has
PER_DOUBLING = 8.0  #: batches closer than an eighth of a doubling are one


@dataclass(frozen=True, slots=True)
class ComputeCurve:
    """d as a function of the batch."""

    batches: tuple[float, ...]  # log samples on one GPU, rising
    weights: tuple[float, ...]

    def factor(self, batch: Array) -> Array:
        """exp(d), (n,), of batches (n,) in samples."""
        if not self.batches:
            return np.ones(len(batch))
        apart = np.log(batch)[:, None] - np.array(self.batches)[None, :]
        return np.asarray(np.exp(_kernel(apart) @ np.array(self.weights)))


STRAIGHT = ComputeCurve((), ())


def passes(cells: Cells) -> tuple[Array, Array]:
    """Which cells say how long a pass takes, and its log seconds; (n,) bool, (n,)."""
    alone = (cells.replicas < 1.5) & (cells.computes == 0)
    per_pass = cells.log_step - np.log(cells.accumulation + 1.0)
    return alone | (cells.computes > 0), np.where(alone, per_pass, cells.log_compute)


def bend(cells: Cells, log_line: Array) -> ComputeCurve:
    """The departures from the line that was fitted; log_line (n,) is its log seconds.

    Each batch counts with the median of its cells, which one slow machine does not move.
    """
    known, log_pass = passes(cells)
    if not known.any():
        return STRAIGHT
    batch = np.log(cells.batch[known])
    off = (log_pass - log_line)[known]
    bins = np.rint(batch / np.log(2.0) * PER_DOUBLING).astype(np.int64)
    centres, medians, noise = [], [], []
    for one in np.unique(bins):
        rows = bins == one
        centres.append(float(batch[rows].mean()))
        medians.append(float(np.median(off[rows])))
        noise.append(FLOOR**2 + NOISE**2 / int(rows.sum()))
    at = np.array(centres)
    covariance = _kernel(at[:, None] - at[None, :]) + np.diag(noise)
    weights = cho_solve(cho_factor(covariance), np.array(medians))
    return ComputeCurve(tuple(centres), tuple(float(weight) for weight in weights))


def _kernel(apart: Array) -> Array:
    return np.asarray(DEVIATION**2 * np.exp(-0.5 * (apart / LENGTH) ** 2))
