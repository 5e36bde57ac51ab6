"""Shares by budget when jobs can use only so much: a few linear programmes of slopes.

    maximise    sum over jobs of w_j log(delivered_j)
    such that   pools sell what they have, and each job keeps to its units, its demand and its floor

At given rents every job's best delivery is known exactly: its own slope w_j / u meets the lower
hull of its ways (`fleet.py`). Jobs of one kind whose best rates lie between the same outputs are a
run, as in `pressure.py`, and scale together; the logarithm of the scale is cut into a few chords.
The programme over runs gives new rents, and with them new best deliveries; the chords get shorter
each time. What is left of the deliveries after they are fitted into the pools is the answer.

The certificate does not rest on the method. At any rents λ >= 0 the optimum is at most

    λ C + sum over jobs of max over u of (w_j log u - cost_j(u; λ)),

and both sides are computed job by job.

Axes: P pools · E jobs · V corners of a hull · R runs · X variables (a run and one of its ways) ·
H chords.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise
from economics.errors import NotCleared
from economics.market import Array, Index
from economics.policies.fleet import Crowd, Fleet, Hull
from economics.policies.pressure import Pressure

CHORDS = 16  # to a logarithm
WIDEST = 2.0  # scales are looked at from exp(-this) to exp(this), at first
SHRINK = 0.2  # of the range when the scales were within it; chords are an eighth of the range
GROW = 2.0  # of the range when one was not
STEEP = 8.0  # slope below the range, times that of a chord to its lower end
NARROWEST = 1e-5
EDGE = 1e-9
ENOUGH = 1e-5  # a gap, per unit of budget, that is accepted when no smaller one is found
MOST_PROGRAMMES = 30


@dataclass(frozen=True, slots=True)
class Shared:
    """Deliveries, and how far they are proved to be from the best at most."""

    delivered: Array  # (E,) Msamples
    gap: float  # per unit of budget
    programmes: int


def share(fleet: Fleet, crowd: Crowd, budget: Array, rent: Array, *, gap: float) -> Shared:
    """Maximise the sum of budget (E,) x log(delivered), from first rents (P,), to a proved gap.

    Every entry is one job. Raises NotCleared when MOST_PROGRAMMES do not prove ENOUGH, and as
    "infeasible" when promises are more than the pools can deliver.
    """
    pressure, claim = Pressure(fleet, crowd), budget / budget.sum()
    best = _Best(np.inf, rent / budget.sum(), -np.inf, crowd.least)
    span = WIDEST
    for programme in range(1, MOST_PROGRAMMES + 1):
        wanted = best_deliveries(fleet, crowd, claim, best.rent)
        runs = _Runs.of(pressure, claim, wanted, span)
        scale, rent = runs.solve()
        delivered = _fitted(pressure, runs.wanted * scale[runs.run])
        best = best.with_delivered(claim, delivered)
        best = best.with_rents(lambda at: largest(fleet, crowd, claim, at), rent)
        if best.gap <= (gap if programme < MOST_PROGRAMMES else ENOUGH):
            return Shared(best.delivered, best.gap, programme)
        span = min(span * GROW, WIDEST) if runs.at_edge(scale) else max(span * SHRINK, NARROWEST)
    raise NotCleared("the slopes did not settle")


@dataclass(frozen=True, slots=True)
class _Best:
    """The smallest bound and the best deliveries so far."""

    bound: float
    rent: Array  # (P,)
    worth: float
    delivered: Array  # (E,)

    @property
    def gap(self) -> float:
        return self.bound - self.worth

    def with_rents(self, bound: Callable[[Array], float], rent: Array) -> _Best:
        """The best rents between those at hand and others: the bound is convex."""
        if not np.isfinite(self.bound):
            return replace(self, bound=bound(rent), rent=rent)
        way = minimize_scalar(
            lambda part: bound(self.rent + part * (rent - self.rent)),
            bounds=(0.0, 1.0),
            method="bounded",
            options={"xatol": 1e-3},
        )
        found = self.rent + float(way.x) * (rent - self.rent)
        for at in (rent, found):
            if bound(at) < self.bound:
                self = replace(self, bound=bound(at), rent=at)
        return self

    def with_delivered(self, claim: Array, delivered: Array) -> _Best:
        if not (delivered > 0).all():
            return self
        worth = float(claim @ np.log(delivered))
        return self if worth <= self.worth else replace(self, worth=worth, delivered=delivered)


def best_deliveries(fleet: Fleet, crowd: Crowd, budget: Array, rent: Array) -> Array:
    """What each job wants at these rents: the most of budget x log less what it costs, (E,)."""
    hull, kind, limited = Hull.of(fleet, rent), crowd.kind, np.isfinite(crowd.units)
    slope, corner = hull.slope[kind], hull.output[kind]
    end = np.where(limited, crowd.units, 1.0)[:, None] * corner[:, 1:]
    end = np.where(limited[:, None], end, np.inf)
    last = np.where(limited, hull.last[kind], 1)  # one without limit never leaves its first way
    there = np.arange(end.shape[1]) < last[:, None]
    matched = np.full(end.shape, np.inf)  # where the slope of the logarithm is that of the hull
    np.divide(budget[:, None], slope[:, :-1], out=matched, where=slope[:, :-1] > 0)
    wanted = np.where(there, np.minimum(end, matched), 0.0).max(axis=1)
    best: Array = np.clip(wanted, crowd.least, np.maximum(crowd.reach(fleet), crowd.least))
    return best


def largest(fleet: Fleet, crowd: Crowd, budget: Array, rent: Array) -> float:
    """No deliveries have a larger sum of budget x log than this, whatever the rents."""
    wanted = best_deliveries(fleet, crowd, budget, rent)
    cost = Hull.of(fleet, rent).price(crowd, wanted)
    return float(rent @ fleet.capacity + budget @ np.log(wanted) - cost.sum())


def _fitted(pressure: Pressure, wanted: Array) -> Array:
    """As much of what is wanted, over what was promised, as the pools can deliver, (E,)."""
    crowd = pressure.crowd
    wanted = np.clip(wanted, crowd.least, np.maximum(crowd.reach(pressure.fleet), crowd.least))
    part = pressure.press(crowd.least, wanted).part
    fitted: Array = crowd.least + part * (wanted - crowd.least)
    return fitted


@dataclass(frozen=True, slots=True)
class _Runs:
    """Jobs that scale together, and the chords of their logarithm."""

    pressure: Pressure
    wanted: Array  # (E,) Msamples at a scale of 1
    run: Index  # (E,)
    kind: Index  # (R,)
    claim: Array  # (R,)
    total: Array  # (R,) Msamples wanted
    units: Array  # (R,) units; inf = no limit
    ends: Array  # (R, H + 2) scales between which the chords are; from 1 for promises, else from 0

    @classmethod
    def of(cls, pressure: Pressure, claim: Array, wanted: Array, span: float) -> _Runs:
        fleet, crowd = pressure.fleet, pressure.crowd
        full = wanted >= crowd.reach(fleet) * (1 - EDGE)
        least = ~full & (crowd.least > 0) & (wanted <= crowd.least * (1 + EDGE))
        rate = (wanted / crowd.units)[:, None]
        corner = (np.abs(fleet.edges[crowd.kind] - rate) <= EDGE * rate).any(axis=1)
        mark = full + 2 * least + 3 * (corner & ~full & ~least)
        code, first, run = np.unique(
            4 * pressure.codes(wanted) + mark, return_index=True, return_inverse=True
        )
        low, high = np.exp(-span * ~least[first]), np.exp(span * ~full[first])
        grid = np.linspace(0.0, 1.0, CHORDS + 1)
        scales = low[:, None] * (high / low)[:, None] ** grid

        def summed(amount: Array) -> Array:
            return np.bincount(run, weights=amount, minlength=code.size).astype(np.float64)

        return cls(
            pressure,
            wanted,
            run,
            crowd.kind[first],
            summed(claim),
            summed(wanted),
            summed(crowd.units),
            np.concatenate([np.where(least[first], 1.0, 0.0)[:, None], scales], axis=1),
        )

    def solve(self) -> tuple[Array, Array]:
        """The best scales, (R,), and the rents that say so, (P,)."""
        fleet = self.pressure.fleet
        run, way = fleet.ways_of(self.kind)
        chords, value = self._chords()
        runs, pools = self.kind.size, fleet.capacity.size
        of = np.repeat(np.arange(runs), chords.shape[1])
        variable, chord = np.arange(run.size), run.size + np.arange(of.size)
        held = np.isfinite(self.units)
        matrix = csr_array(
            (
                np.concatenate(
                    [fleet.hours[way], held[run], fleet.output[way], -self.total[of]], dtype=float
                ),
                (
                    np.concatenate(
                        [fleet.pool[way], pools + run, pools + runs + run, pools + runs + of]
                    ),
                    np.concatenate([variable, variable, variable, chord]),
                ),
            ),
            shape=(pools + 2 * runs, run.size + of.size),
        )
        free = np.full(runs, np.inf)
        solved = minimise(
            Linear(
                cost=-np.concatenate([np.zeros(run.size), value.ravel()]),
                matrix=matrix,
                low=np.concatenate([np.full(pools + runs, -np.inf), self.total * self.ends[:, 0]]),
                high=np.concatenate([fleet.capacity, self.units, free]),
                least=np.zeros(run.size + of.size),
                most=np.concatenate([np.full(run.size, np.inf), chords.ravel()]),
            )
        )
        scale = self.ends[:, 0] + solved.values[run.size :].reshape(chords.shape).sum(axis=1)
        return scale, np.maximum(-solved.row_dual[:pools], 0.0)

    def _chords(self) -> tuple[Array, Array]:
        """Length of each chord and the slope of its run's worth along it, (R, H + 1)."""
        length = np.diff(self.ends, axis=1)
        slope = np.diff(np.log(self.ends[:, 1:]), axis=1) / length[:, 1:]
        slope = np.concatenate([STEEP * slope[:, :1], slope], axis=1)
        return length, self.claim[:, None] * slope

    def at_edge(self, scale: Array) -> bool:
        """Whether a scale may want to be outside the range that was looked at."""
        below = (self.ends[:, 0] == 0) & (scale <= self.ends[:, 1] * (1 + EDGE))
        above = (self.ends[:, -1] > 1) & (scale >= self.ends[:, -1] * (1 - EDGE))
        return bool((below | above).any())
