"""How hard given needs press on the pools: one small linear programme, kept between solves.

    minimise s    such that, for every pool p and every run r of jobs,
    sum over ways of hours x          <= s C_p            (dual: the rent)
    sum over the run's ways of x      <= units of the run
    sum over its ways of output x     >= needs of the run

The needs can be met when s <= 1. A *run* is the jobs of one kind whose need per unit lies between
the outputs of two ways that are next to each other. Runs are exact: no way of theirs delivers
strictly between those outputs, so whatever the run as a whole can be delivered can be dealt out to
its jobs (`dealt`), each within its own units. Only right-hand sides change from one set of needs to
the next, so every solve starts from the basis of the last one.

Axes: P pools · A ways · E entries · R runs · X variables (a run and one of its ways) · Q pairs (an
entry and one of its kind's ways, in order).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import highspy
import numpy as np

from economics.errors import NotCleared
from economics.market import Array, Index
from economics.policies.fleet import Crowd, Fleet

TOLERANCE = 1e-9
OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "parallel": "off",
    "presolve": "off",  # the programmes are small, and a basis is at hand
    "random_seed": 0,
    "primal_feasibility_tolerance": TOLERANCE,
    "dual_feasibility_tolerance": TOLERANCE,
}


@dataclass(frozen=True, slots=True)
class Pressed:
    """The least overload at which needs are met, and what each run takes then."""

    overload: float  # s
    rent: Array  # (P,) per GPU-hour; all pools together are worth 1
    run: Index  # (E,) number of each entry's run
    of: Index  # (X,) run
    way: Index  # (X,)
    taken: Array  # (X,) units


class Pressure:
    """The programme of one fleet and one crowd."""

    def __init__(self, fleet: Fleet, crowd: Crowd) -> None:
        limited = np.isfinite(crowd.units)
        several = np.bincount(crowd.kind[limited], minlength=fleet.kinds) > 1
        self.fleet = fleet
        self.crowd = crowd
        self._limited = limited
        self._cut = limited & several[crowd.kind]  # entries that are cut by their need per unit
        self._programme: _Programme | None = None

    def press(self, need: Array) -> Pressed:
        """Meet these needs, Msamples for each job of an entry (E,), with the least overload.

        Raises NotCleared when the solver does not prove an optimum.
        """
        programme = self._with_runs(self._codes(need))
        programme.require(self.crowd, need)
        return programme.solve()

    def settle(self, need: Array, taste: Array) -> Pressed:
        """Meet the same needs, without overload, at the least cost; `taste` (A,) is per unit.

        The answer is the only one when no two sets of ways cost the same.
        """
        overload = max(1.0, self.press(need).overload)
        programme = self._with_runs(self._codes(need))
        programme.prefer(taste, overload)
        self._programme = None
        settled = programme.solve()
        return replace(settled, taken=settled.taken / overload)

    def bin_of(self, need: Array) -> Index:
        """Outputs of its kind below each entry's need per unit, (E,); 0 for a kind of equals."""
        rate = need / self.crowd.units
        below = (self.fleet.edges[self.crowd.kind] < rate[:, None]).sum(axis=1)
        number: Index = np.where(self._cut, below, 0)
        return number

    def _codes(self, need: Array) -> Index:
        """A number for each entry's run, (E,); entries without a limit are runs of their own."""
        bins = self.fleet.edges.shape[1] + 1
        place = np.where(self._limited, self.bin_of(need), bins - 1)
        return self.crowd.kind * bins + place

    def _with_runs(self, code: Index) -> _Programme:
        """The programme at hand if it has these runs, else one that has them too."""
        wanted, known = np.unique(code), self._programme
        if known is None or not np.isin(wanted, known.code).all():
            bins = self.fleet.edges.shape[1] + 1
            wanted = wanted if known is None else np.union1d(wanted, known.code)
            self._programme = known = _Programme(self.fleet, wanted, wanted // bins)
        known.run = np.searchsorted(known.code, code)
        return known


class _Programme:
    """The programme of given runs, in the solver. Rows: pools, then units, then needs."""

    def __init__(self, fleet: Fleet, code: Index, kind: Index) -> None:
        self.code = code  # (R,) ascending
        self.run: Index = np.zeros(0, dtype=np.int64)  # (E,) run of each entry
        self._of, self._way = fleet.ways_of(kind)
        self._size = np.where(fleet.capacity > 0, fleet.capacity, 1.0)
        self._rows = np.arange(
            fleet.capacity.size, fleet.capacity.size + 2 * code.size, dtype=np.int32
        )
        self._top = np.where(np.isfinite(fleet.edges), fleet.edges, 0.0).max(axis=1, initial=0.0)[
            kind
        ]
        self._top = np.where(self._top > 0, self._top, 1.0)
        self._model = self._passed(fleet)

    def _passed(self, fleet: Fleet) -> highspy.Highs:
        of, way, pools, runs = self._of, self._way, fleet.capacity.size, self.code.size
        index = np.stack([fleet.pool[way], pools + of, pools + runs + of], axis=1).ravel()
        entry = np.stack(
            [
                fleet.hours[way] / self._size[fleet.pool[way]],
                np.ones(of.size),
                fleet.output[way] / self._top[of],
            ],
            axis=1,
        ).ravel()
        start = np.append(np.arange(of.size) * 3, of.size * 3)
        rows, infinite = pools + 2 * runs, np.inf
        cost = np.zeros(of.size + 1)
        cost[-1] = 1.0
        model = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, option in OPTIONS.items():
            model.setOptionValue(name, option)
        refused = model.passModel(
            *(of.size + 1, rows, index.size + pools, 1, 1, 0.0),
            *(cost, np.zeros(of.size + 1), np.full(of.size + 1, infinite)),
            *(np.full(rows, -infinite), np.append(np.zeros(pools), np.full(2 * runs, infinite))),
            start.astype(np.int32),
            np.append(index, np.arange(pools)).astype(np.int32),
            np.append(entry, np.full(pools, -1.0)),
            np.zeros(of.size + 1, dtype=np.int32),
        )
        if refused == highspy.HighsStatus.kError:
            raise NotCleared("the solver refused the model")
        return model

    def require(self, crowd: Crowd, need: Array) -> None:
        """Set the units and the needs of every run; a run nobody is in has none."""
        runs = self.code.size
        units = np.bincount(self.run, weights=crowd.count * crowd.units, minlength=runs)
        needs = np.bincount(self.run, weights=crowd.count * need, minlength=runs) / self._top
        free = np.full(runs, np.inf)
        self._model.changeRowsBounds(  # type: ignore[attr-defined]
            self._rows.size, self._rows, np.append(-free, needs), np.append(units, free)
        )

    def prefer(self, taste: Array, overload: float) -> None:
        """From now on minimise the cost of units, at this overload."""
        last = self._of.size
        cost = np.append(taste[self._way], 0.0)
        self._model.changeColsCost(last + 1, np.arange(last + 1, dtype=np.int32), cost)
        self._model.changeColBounds(last, 0.0, overload)

    def solve(self) -> Pressed:
        self._model.run()
        status = self._model.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise NotCleared(self._model.modelStatusToString(status).lower())
        solution = self._model.getSolution()
        values = np.maximum(np.array(solution.col_value), 0.0)
        dual = np.array(solution.row_dual)[: self._size.size]
        return Pressed(
            overload=float(values[-1]),
            rent=np.maximum(-dual, 0.0) / self._size,
            run=self.run,
            of=self._of,
            way=self._way,
            taken=values[:-1],
        )
