"""The plain form of Pollux, fitted as its authors do, for comparison: see `step_time`.

T_sync grows by the same for every replica beyond two, all numbers of nodes above one are alike. The
loss is the root mean square log error of the compute time and of the step, with 1e-3 (gamma - 1)^2
and 1e-2 of the squared ratios of growth to first cost. Bounded
quasi-Newton from several starts, in the logarithms of the parameters: better scaled than theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from federation.affinity.samples import Sample

Array = NDArray[np.float64]
LOCAL = 0.1  #: of the cost between nodes, where nothing was measured on one node
LEAST, MOST = 1e-8, 1e3
STARTS = ((0.5, 0.001), (0.1, 0.01), (1.0, 0.1), (0.2, 0.1))  # of the mean step


def fit_plain(samples: Sequence[Sample]) -> Callable[[Sequence[Sample]], Array]:
    """A function that foretells step seconds of other samples' configurations."""
    nodes, replicas, batch = _axes(samples)
    step = np.array([one.step_s for one in samples])
    compute = np.array([one.step_s - (one.sync_s or 0.0) for one in samples])

    def loss(logs: Array) -> float:
        values = np.exp(logs)
        grad, foretold = _times(values, nodes, replicas, batch)
        misses = [np.log(grad / compute), np.log(foretold / step)]
        error = sum(float(np.sqrt(np.mean(miss**2))) for miss in misses)
        ratios = (values[3] / values[2]) ** 2 + (values[5] / values[4]) ** 2
        return error + 1e-3 * float(values[6] - 1.0) ** 2 + 1e-2 * float(ratios)

    bounds = np.log([(LEAST, MOST)] * 6 + [(1.0, 10.0)])
    found = [
        minimize(loss, np.log(start), bounds=bounds, method="L-BFGS-B")
        for start in _starts(step, batch)
    ]
    best = np.exp(min(found, key=lambda one: float(one.fun)).x)
    return lambda asked: _times(best, *_axes(asked))[1]


def _starts(step: Array, batch: Array) -> list[list[float]]:
    """Parts of the mean step for the first costs and the growth; per sample for compute."""
    mean, size = float(step.mean()), float(batch.mean())
    return [
        [
            *(alpha * mean, alpha * mean / size),
            *(LOCAL * alpha * mean, LOCAL * beta * mean),
            *(alpha * mean, beta * mean),
            1.001,
        ]
        for alpha, beta in STARTS
    ]


def _axes(samples: Sequence[Sample]) -> tuple[Array, Array, Array]:
    rows = [(one.nodes, one.replicas, one.local_batch) for one in samples]
    nodes, replicas, batch = np.array(rows, dtype=float).T
    return nodes, replicas, batch


def _times(values: Array, nodes: Array, replicas: Array, batch: Array) -> tuple[Array, Array]:
    """Compute and step seconds."""
    grad = values[0] + values[1] * batch
    more = np.maximum(replicas - 2.0, 0.0)
    sync = np.where(nodes > 1, values[4] + values[5] * more, values[2] + values[3] * more)
    sync = np.where(replicas > 1, sync, LEAST)
    gamma = values[6]
    longer = np.maximum(grad, sync)
    total = (grad / longer) ** gamma + (sync / longer) ** gamma
    return grad, longer * total ** (1.0 / gamma)
