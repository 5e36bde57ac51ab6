"""A sum of Gaussian effects whose variances are learned: what kin say of one that was never seen.

    y_i = mean + sum_k f_k(i) + e_i,   cov(f_k(i), f_k(j)) = w_k K_k(i, j),   e_i ~ N(0, s^2)

One K_k says which observations share effect k (same family, same device, near in size). The
variances w and s^2 are those of greatest marginal likelihood (Rasmussen and Williams, Gaussian
Processes for Machine Learning, sections 2.2 and 5.4; in statistics: variance components, Searle,
Casella and McCulloch 1992) times a wide log-normal prior, from a fixed start, so equal data give
equal answers. Few data leave the variances at START: one observation says nothing of spread. What
an effect was not seen of falls back to the mean with its whole variance: an honest, wide band.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]
Item = TypeVar("Item")
Kernel = Callable[[Sequence[Item], Sequence[Item]], Array]  #: (n items, m items) -> (n, m)

START = 0.1  #: variance every effect has until data say otherwise
DOUBT = 3.0  #: standard deviation of the logarithm of a variance around START, before data
BOUNDS = (math.log(1e-6), math.log(1e2))  #: of the log variances
NOISE_FLOOR = 1e-4  #: least variance of the noise: 1 % of the value
BLOCK = 64  #: items whose own variances are taken at once
BAND_SDS = 1.6449  #: deviations either side that hold 90 % of a normal


@dataclass(frozen=True, slots=True)
class Effects(Generic[Item]):
    """What was learned: the variances, and what predicting needs."""

    kernels: tuple[Kernel[Item], ...]
    items: tuple[Item, ...]
    mean: float
    weights: Array  # (K,)
    noise: float  #: variance
    inverse: Array  # (n, n) of the covariance of the observations
    solved: Array  # (n,) inverse times (y - mean)
    widening: float = 1.0  #: factor on every deviation, from what was left out

    def predict(self, items: Sequence[Item]) -> tuple[Array, Array]:
        """Mean and standard deviation of one new observation of each item: (m,) and (m,)."""
        with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
            return self._predicted(items)

    def _predicted(self, items: Sequence[Item]) -> tuple[Array, Array]:
        cross = self._between(items, self.items)
        blocks = [items[at : at + BLOCK] for at in range(0, len(items), BLOCK)]
        own = np.concatenate([np.diag(self._between(block, block)) for block in blocks])
        variance = own - np.einsum("mn,mn->m", cross @ self.inverse, cross)
        spread = self.widening * np.sqrt(np.maximum(variance, 0.0) + self.noise)
        return self.mean + cross @ self.solved, spread

    def means(self, items: Sequence[Item]) -> Array:
        """The means alone: (m,)."""
        with threadpool_limits(limits=1):
            return np.asarray(self.mean + self._between(items, self.items) @ self.solved)

    def _between(self, items: Sequence[Item], others: Sequence[Item]) -> Array:
        """(m, n): covariance of the effects of the ones and the others, without noise."""
        found = np.zeros((len(items), len(others)))
        for weight, kernel in zip(self.weights, self.kernels, strict=True):
            found += weight * kernel(items, others)
        return found

    def left_out(self, groups: Sequence[object]) -> tuple[Array, Array]:
        """Error and deviation of each observation when its whole group is left out: (n,), (n,).

        Closed form: with B the block of the inverse that belongs to the group, the errors are
        B^-1 (inverse y) and their covariance B^-1 (Rasmussen and Williams, section 5.4.2, there
        for groups of one). The variances stay those that all the observations gave.
        """
        error, deviation = np.zeros(len(groups)), np.zeros(len(groups))
        for members in _members(groups):
            block = np.linalg.inv(self.inverse[np.ix_(members, members)])
            error[members] = block @ self.solved[members]
            deviation[members] = np.sqrt(np.diag(block))
        return error, deviation


def learn(
    kernels: Sequence[Kernel[Item]],
    items: Sequence[Item],
    values: Array,
    *,
    groups: Sequence[object] | None = None,
    sample: Sequence[int] | None = None,
) -> Effects[Item]:
    """Effects of greatest likelihood for values (n,) of the items.

    With `sample` the variances are learnt from the items at these places only; all of them still
    inform the prediction.

    With `groups` the deviations are widened until the bands of observations whose whole group was
    left out hold 90 % of them: what a band promises of a new group. Never narrowed.
    ValueError when nothing was observed, or a value is not a finite number.
    """
    if len(items) == 0:
        raise ValueError("Nothing was observed: there is nothing to learn from.")
    if not np.isfinite(values).all():
        raise ValueError("A value is not a finite number: leave it out before learning.")
    with threadpool_limits(limits=1):
        effects = _learnt(kernels, items, values, sample)
        return effects if groups is None else _widened(effects, groups)


def _learnt(
    kernels: Sequence[Kernel[Item]],
    items: Sequence[Item],
    values: Array,
    sample: Sequence[int] | None,
) -> Effects[Item]:
    mean = float(np.mean(values))
    places = list(range(len(items))) if sample is None else list(sample)
    chosen = [items[place] for place in places]
    matrices = np.stack([kernel(chosen, chosen) for kernel in kernels])
    found = _greatest(matrices, values[places] - mean)
    nothing = np.zeros((0, 0))
    variances = Effects(
        tuple(kernels),
        (),
        mean,
        found[:-1],
        float(found[-1]) + NOISE_FLOOR,
        nothing,
        nothing.ravel(),
    )
    return _informed(variances, items, values)


def condition(effects: Effects[Item], items: Sequence[Item], values: Array) -> Effects[Item]:
    """The same variances and mean, informed by these observations instead."""
    with threadpool_limits(limits=1):
        return _informed(effects, items, values)


def _informed(effects: Effects[Item], items: Sequence[Item], values: Array) -> Effects[Item]:
    covariance = effects.noise * np.eye(len(items))
    for weight, kernel in zip(effects.weights, effects.kernels, strict=True):
        covariance += weight * kernel(items, items)
    inverse = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    solved = np.asarray(inverse @ (values - effects.mean))
    return replace(effects, items=tuple(items), inverse=inverse, solved=solved)


def _widened(effects: Effects[Item], groups: Sequence[object]) -> Effects[Item]:
    error, deviation = effects.left_out(groups)
    reach = float(np.quantile(np.abs(error) / deviation, 0.9)) / BAND_SDS
    return replace(effects, widening=max(1.0, reach))


def _greatest(matrices: Array, values: Array) -> Array:
    """Variances (K + 1,), the noise last."""
    start = np.full(len(matrices) + 1, math.log(START))
    found = minimize(
        _unlikeliness,
        start,
        args=(matrices, values),
        jac=True,
        method="L-BFGS-B",
        bounds=[BOUNDS] * len(start),
        options={"maxiter": 100},
    )
    return np.asarray(np.exp(found.x))


def _unlikeliness(logs: Array, matrices: Array, values: Array) -> tuple[float, Array]:
    """Negative log likelihood and its gradient in the log variances (section 5.4.1)."""
    weights = np.exp(logs)
    covariance = _covariance(matrices, weights[:-1], weights[-1] + NOISE_FLOOR)
    factor = cho_factor(covariance, lower=True)
    inverse = cho_solve(factor, np.eye(len(values)))
    solved = inverse @ values
    fit = 0.5 * float(values @ solved) + float(np.log(np.diag(factor[0])).sum())
    shape = inverse - np.outer(solved, solved)
    slopes = 0.5 * np.append(np.einsum("kij,ij->k", matrices, shape), np.trace(shape))
    apart = (logs - math.log(START)) / DOUBT
    return fit + 0.5 * float(apart @ apart), slopes * weights + apart / DOUBT


def _covariance(matrices: Array, weights: Array, noise: float) -> Array:
    return np.asarray(np.tensordot(weights, matrices, axes=1) + noise * np.eye(matrices.shape[1]))


def _members(groups: Sequence[object]) -> list[list[int]]:
    found: dict[object, list[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(group, []).append(place)
    return list(found.values())
