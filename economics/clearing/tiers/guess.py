"""First rents for markets of many groups: the smoothed dual, by a quasi-Newton method.

With a temperature, every run spreads itself over its lines by their gain; the dual is then smooth
and cheap, whatever the number of groups. The guess only decides which lines are tried first: the
certificate never depends on it.
Source of the method: Nesterov, "Smooth minimization of non-smooth functions" (2005); the entropy
smoothing gives the logit shares.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from economics.clearing.tiers.demand import Demand, even_cuts, runs_of
from economics.market import Array, Index

TEMPERATURES = (0.3, 0.1, 0.03, 0.01)  # of the mean best gain
MOST_STEPS = 100  # quasi-Newton steps at each temperature
PARTS = 2  # runs of each group
MOST_WAYS = 60_000  # lines of runs that the smoothed dual is evaluated on
MANY_GROUPS = 2_000  # beyond, a group is one run


def smoothed_rents(demand: Demand, capacity: Array) -> Array:
    """Rents (P,) near the optimum, credits per GPU-hour."""
    parts = PARTS if demand.groups <= MANY_GROUPS else 1
    runs = runs_of(demand, even_cuts(demand, parts))
    lines = demand.lines
    gain = lines.worth[runs.group] * runs.bid[:, None] - lines.charge[runs.group]
    step = -(-np.count_nonzero(gain > 0) // MOST_WAYS)  # every so many runs speak for the others
    gain[np.arange(runs.count) % max(int(step), 1) > 0] = 0.0
    run, line = np.nonzero(gain > 0)
    if not run.size or not capacity.any():
        return np.zeros(capacity.shape)
    uses = lines.uses(runs.group[run], line)
    gain = gain[run, line]
    begin = np.flatnonzero(np.append(True, run[1:] != run[:-1]))
    weight = runs.weight[run[begin]] * float(max(int(step), 1))
    unit = float(np.average(np.maximum.reduceat(gain, begin), weights=weight))
    rent = np.full(capacity.shape, unit)
    smooth = _Smooth(gain / unit, uses, begin, weight / capacity.sum(), capacity)
    with threadpool_limits(
        limits=1
    ):  # its matrices are tiny: more threads only wait for each other
        for temperature in TEMPERATURES:
            found = minimize(
                smooth.at(temperature),
                rent / unit,
                jac=True,
                method="L-BFGS-B",
                bounds=[(0.0, None)] * rent.size,
                options={"maxiter": MOST_STEPS, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-10},
            )
            rent = np.asarray(found.x) * unit
    return rent


class _Smooth:
    """The smoothed dual over all ways of the runs; units are the mean gain and all capacity."""

    def __init__(
        self,
        gain: Array,
        uses: tuple[Index, Index, Array],
        begin: Index,
        weight: Array,
        capacity: Array,
    ) -> None:
        self.gain = gain  # of each way
        self.way, self.pool, self.hours = uses
        self.once = self.way.size == gain.size
        self.begin, self.weight = begin, weight  # of each run
        self.size = np.diff(np.append(begin, gain.size))
        self.capacity = capacity / capacity.sum()

    def at(self, temperature: float) -> Callable[[Array], tuple[float, Array]]:
        """The dual and its slope, as a function of the rents."""

        def value(rent: Array) -> tuple[float, Array]:
            paid = self.hours * rent[self.pool]
            if not self.once:
                paid = np.bincount(self.way, paid, self.gain.size).astype(np.float64)
            net = (self.gain - paid) / temperature
            best = np.maximum(np.maximum.reduceat(net, self.begin), 0.0)
            likes = np.exp(net - np.repeat(best, self.size))
            total = np.add.reduceat(likes, self.begin) + np.exp(-best)
            worth = float((self.weight * (best + np.log(total))).sum()) * temperature
            share = likes * np.repeat(self.weight / total, self.size)
            used = np.bincount(self.pool, share[self.way] * self.hours, rent.size)
            return float((self.capacity * rent).sum()) + worth, self.capacity - used

        return value
