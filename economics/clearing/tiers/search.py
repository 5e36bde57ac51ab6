"""Bid tiers: solve the runs, look where jobs disagree with their run, cut there, again.

Each round of the search ends with an award that is feasible for every job and with a bound that
holds for every job, so the gap between them is a proof, whatever was tried and whatever guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.clearing.tiers.demand import Demand, Runs, even_cuts, runs_of
from economics.clearing.tiers.envelope import bound_at, choices
from economics.clearing.tiers.guess import smoothed_rents
from economics.clearing.tiers.master import Served, Tried, solve_runs
from economics.errors import NotCleared
from economics.market import Array, Index, Mask

FEW_RUNS = 600  # runs up to which the first programme has all lines
FIRST_PARTS = 6  # runs of each group in it
WIDE = 0.5  # lines tried at first, by how much dearer than the best they are
NARROW = 0.02
GUESSED = 0.1  # the same when the first rents are a guess
REMEMBERED = 0.1  # or those of an earlier round
AROUND = (0.98, 0.993, 1.007, 1.02)  # times those: where their runs are cut as well
BESIDE = 0.02  # the same around rents that were looked at on the way
MOST_ROUNDS = 60
MET = 1e-9  # relative gap that solver tolerances can hide


@dataclass(frozen=True, slots=True)
class Tiers:
    """An award of runs, the rents that support it, and how good it is proved to be."""

    runs: Runs
    served: Served
    rent: Array  # (P,) of the best bound, credits per GPU-hour
    value: float  # credits the award is worth
    bound: float  # no award of the jobs is worth more
    rounds: int

    @property
    def gap(self) -> float:
        """Relative to the bound."""
        return max(self.bound - self.value, 0.0) / max(self.bound, 1e-12)


def tiers_of(
    demand: Demand, capacity: Array, *, tolerance: float, start: Array | None = None
) -> Tiers:
    """The best award to a relative gap of `tolerance`; 0 asks for a proof to solver accuracy.

    `start`, rents (P,) of an earlier round, changes the time and not the bound: an award to a
    proof is made canonical by whoever asks for it (allocation.py).
    Raises NotCleared when the solver proves nothing, or the gap stops shrinking above 1e-7.
    """
    return _Search(demand, capacity, start).run(tolerance)


class _Search:
    """The state of one search."""

    def __init__(self, demand: Demand, capacity: Array, start: Array | None) -> None:
        self.demand, self.capacity = demand, capacity
        self.looked: list[Array] = []  # rents met on the way
        self.cut: Index
        self.rent: Array | None = None  # centre: the rents of the best bound so far
        self.bound = np.inf
        self.margin = np.inf
        if start is not None:
            self.cut, self.margin = demand.start, REMEMBERED
            for factor in AROUND:
                self.cut = np.union1d(self.cut, choices(demand, start * factor).begin)
            self._look(start)
        elif FIRST_PARTS * demand.groups <= FEW_RUNS:
            self.cut = even_cuts(demand, FIRST_PARTS)
        else:
            self.cut, self.margin = demand.start, GUESSED
            self._look(smoothed_rents(demand, capacity))

    def run(self, tolerance: float) -> Tiers:
        for number in range(1, MOST_ROUNDS + 1):
            runs = runs_of(self.demand, self.cut)
            served = self._solve(runs)
            cuts, had = self.cut.size, self.bound
            self._look(served.rent)
            gap = (self.bound - served.value) / max(self.bound, 1e-12)
            settled = self.cut.size == cuts and not self.bound < had
            if gap <= max(tolerance, MET) and (tolerance > 0 or self.cut.size == cuts):
                return self._found(runs, served, number)
            if (settled and not self._widen()) or number == MOST_ROUNDS:
                if gap <= max(tolerance, 1e-7):
                    return self._found(runs, served, number)
                break
        raise NotCleared(f"the tiers stopped at a gap of {gap:.1e}")

    def _found(self, runs: Runs, served: Served, number: int) -> Tiers:
        assert self.rent is not None  # noqa: S101 every round looks at rents
        return Tiers(runs, served, self.rent, served.value, float(self.bound), number)

    def _look(self, rent: Array) -> None:
        """What the jobs say to these rents: a bound, and where the runs must be cut."""
        chosen = choices(self.demand, rent)
        bound = bound_at(self.capacity, rent, chosen)
        self.looked.append(rent)
        self.cut = np.union1d(self.cut, chosen.begin)
        if bound < self.bound:
            if self.rent is not None:
                self.margin = max(min(self.margin / 2, WIDE), NARROW)
            self.rent, self.bound = rent, bound

    def _widen(self) -> bool:
        """Nothing new came: try more lines. False when all are tried."""
        if np.isinf(self.margin):
            return False
        self.margin = self.margin * 4 if self.margin < 100 else np.inf
        return True

    def _solve(self, runs: Runs) -> Served:
        lines = self.demand.lines
        gain = lines.worth[runs.group] * runs.bid[:, None] - lines.charge[runs.group]
        return solve_runs(self.demand, runs, gain, self._tried(runs, gain), self.capacity)

    def _tried(self, runs: Runs, gain: Array) -> Tried:
        useful = gain > 0
        best = np.zeros(runs.count, dtype=np.int64)
        if self.rent is None or np.isinf(self.margin):
            return Tried(useful, np.zeros(runs.count, dtype=bool), best)
        net, paid = self._net(runs, gain, self.rent)
        best = net.argmax(axis=1)
        top = net[np.arange(runs.count), best]
        near = _near(net, paid * self.margin)
        clear = top > self.margin * paid[np.arange(runs.count), best]
        sure = clear & (np.count_nonzero(near & useful, axis=1) == 1)
        sure &= self.demand.lines.single(runs.group, best)
        for rent in self.looked:
            other, _ = self._net(runs, gain, rent)
            sure &= (other.argmax(axis=1) == best) & (other.max(axis=1) > 0)
            near |= _near(other, paid * BESIDE)
        return Tried(near & useful & ~sure[:, None], sure, best)

    def _net(self, runs: Runs, gain: Array, rent: Array) -> tuple[Array, Array]:
        """Gain per unit of weight after rents, and what the line costs in all, (R, M) each."""
        lines = self.demand.lines
        rents = lines.rents(rent)
        paid = np.where(np.isfinite(lines.charge), lines.charge + rents, 0.0)
        return gain - rents[runs.group], paid[runs.group]


def _near(net: Array, margin: Array) -> Mask:
    best = np.maximum(net.max(axis=1), 0.0)
    near: Mask = net >= best[:, None] - margin
    return near
