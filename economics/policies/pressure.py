"""How far the pools can go from needs they meet to larger ones: one linear programme, kept warm.

    maximise τ <= 1    such that, for every pool p and every run r of jobs,
    sum over ways of hours x          <= C_p                          (dual: the rent)
    sum over the run's ways of x      <= units of the run
    sum over its ways of output x     >= first needs + τ (last needs - first needs) of the run

A *run* is the jobs of one kind whose last need per unit lies between the outputs of two ways that
are next to each other. Runs are exact at τ = 1: no way of theirs delivers strictly between those
outputs, so whatever the run as a whole can be delivered can be dealt out to its jobs (`deal.py`),
each within its own units. Below 1 they are a relaxation, so the rents bound what is possible. From
one set of needs to the next only a column and right-hand sides change, and runs are added: every
solve starts from the last basis.

Axes: P pools · A ways · E entries · R runs · X variables (a run and one of its ways).
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from economics.errors import NotCleared
from economics.market import Array, Index, Mask
from economics.policies.fleet import Crowd, Fleet, Hull, normalised

FEW_WAYS = 1_000  # all in the programme from the start
TOLERANCE = 1e-9
TIGHT = 1e-9  # what pools give above all they have, so that rounding stops nothing
ROOM = 1e-8  # the same when needs are final; what is dealt out is then scaled down
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
    """How far along needs can be met, and what each run takes then."""

    part: float  # of the way from the needs given first to those given last
    rent: Array  # (P,) per GPU-hour; zero when all needs can be met
    run: Index  # (E,) number of each entry's run
    of: Index  # (X,) run, ascending
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
        self._top = np.maximum(fleet.ways[crowd.kind] - 1, 0)
        self._programme: _Programme | None = None

    def press(self, base: Array, goal: Array) -> Pressed:
        """Go from needs that can be met to larger ones, Msamples for each job of an entry (E,).

        Raises NotCleared when the solver does not prove an optimum, as "infeasible" when the first
        needs cannot be met.
        """
        programme = self._with_runs(goal)
        programme.require(self.crowd, base, goal)
        return programme.solve()

    def settle(self, need: Array, taste: Array) -> Pressed:
        """Meet needs at the least cost; `taste` (A,) is that of a unit.

        The answer is the only one when no two sets of ways cost the same.
        """
        programme = self._with_runs(need)
        programme.require(self.crowd, need, need)
        programme.prefer(taste)
        self._programme = None
        return programme.solve()

    def bin_of(self, need: Array) -> Index:
        """Outputs of its kind below each entry's need per unit, (E,); 0 for a kind of equals."""
        rate = need / self.crowd.units
        below = (self.fleet.edges[self.crowd.kind] < rate[:, None]).sum(axis=1)
        number: Index = np.where(self._cut, np.minimum(below, self._top), 0).astype(np.int64)
        return number

    def codes(self, need: Array) -> Index:
        """A number for each entry's run, (E,); entries without a limit are runs of their own."""
        bins = self.fleet.edges.shape[1] + 1
        place = np.where(self._limited, self.bin_of(need), bins - 1)
        code: Index = self.crowd.kind * bins + place
        return code

    def _with_runs(self, need: Array) -> _Programme:
        """The programme, with a row pair for each of these runs; basis and older runs are kept."""
        if self._programme is None:
            self._programme = _Programme(self.fleet)
        bins, code = self.fleet.edges.shape[1] + 1, self.codes(need)
        new = np.setdiff1d(code, self._programme.code)
        self._programme.add(new, new // bins)
        self._programme.enter(code)
        return self._programme


class _Programme:
    """The programme in the solver.

    Variables: τ, then a run and a way each. Rows: pools, then units and needs of each run in turn.
    With many ways only those are in it that some rents made worth using; the others are priced at
    every optimum, and enter when one would better it.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.code: Index = np.zeros(0, dtype=np.int64)  # (R,)
        self._fleet = fleet
        self._open = _worth_using(fleet)  # (A,)
        self._taste = np.zeros(fleet.kind.size)  # (A,) cost of a unit
        self._run: Index = np.zeros(0, dtype=np.int64)  # (E,) run of each entry
        self._of: Index = np.zeros(0, dtype=np.int64)  # (X,)
        self._way: Index = np.zeros(0, dtype=np.int64)  # (X,)
        self._column: Index = np.zeros(0, dtype=np.int64)  # (X,) in the solver; 0 = not there
        self._columns = 1
        self._top = np.zeros(0)  # (R,) largest output of a unit
        self._step = np.zeros(0)  # (R,) how much a need grows on the way
        self._size = np.where(fleet.capacity > 0, fleet.capacity, 1.0)
        self._model = _empty(fleet.capacity.size)

    def add(self, code: Index, kind: Index) -> None:
        """Add runs of these kinds."""
        if not code.size:
            return
        of, way = self._fleet.ways_of(kind)
        rows, free, none = 2 * code.size, np.full(2 * code.size, np.inf), np.zeros(0, np.int32)
        self._model.addRows(rows, -free, free, 0, none, none, np.zeros(0))
        self._of = np.append(self._of, self.code.size + of)
        self._way = np.append(self._way, way)
        self._column = np.append(self._column, np.zeros(of.size, dtype=np.int64))
        self.code = np.append(self.code, code)
        self._top = np.append(self._top, self._fleet.quickest[kind])
        self._step = np.append(self._step, np.zeros(code.size))
        self._let_in()

    def _let_in(self) -> None:
        """Give the solver every variable whose way is open."""
        new = np.flatnonzero(self._open[self._way] & (self._column == 0))
        if not new.size:
            return
        fleet, of, way = self._fleet, self._of[new], self._way[new]
        first = fleet.capacity.size + 2 * of
        index = np.stack([fleet.pool[way], first, first + 1], axis=1).ravel()
        used = fleet.hours[way] / self._size[fleet.pool[way]]
        output = fleet.output[way] / self._top[of]
        entry = np.stack([used, np.ones(of.size), output], axis=1).ravel()
        self._model.addCols(
            *(of.size, self._taste[way], np.zeros(of.size), np.full(of.size, np.inf)),
            *(index.size, np.arange(of.size, dtype=np.int32) * 3, index.astype(np.int32), entry),
        )
        self._column[new] = self._columns + np.arange(new.size)
        self._columns += new.size

    def enter(self, code: Index) -> None:
        """Which run each entry is in from now on, (E,)."""
        order = np.argsort(self.code)
        self._run = order[np.searchsorted(self.code, code, sorter=order)]

    def require(self, crowd: Crowd, base: Array, goal: Array) -> None:
        """Set the units and the needs of every run; a run nobody is in has none."""
        runs, pools, free = self.code.size, self._size.size, np.full(self.code.size, np.inf)
        units = np.bincount(self._run, weights=crowd.count * crowd.units, minlength=runs)
        first = np.bincount(self._run, weights=crowd.count * base, minlength=runs) / self._top
        more = np.bincount(self._run, weights=crowd.count * (goal - base), minlength=runs)
        self._model.changeRowsBounds(  # type: ignore[attr-defined]
            2 * runs,
            np.arange(pools, pools + 2 * runs, dtype=np.int32),
            np.stack([-free, first], axis=1).ravel(),
            np.stack([units, free], axis=1).ravel(),
        )
        step = -more / self._top
        for run in np.flatnonzero(step != self._step).tolist():
            self._model.changeCoeff(pools + 2 * run + 1, 0, step[run])
        self._step = step

    def prefer(self, taste: Array) -> None:
        """From now on minimise the cost of units, and let pools give a little more than all."""
        self._taste = taste
        there = self._column > 0
        cost = np.zeros(self._columns)
        cost[self._column[there]] = taste[self._way[there]]
        self._model.changeColsCost(cost.size, np.arange(cost.size, dtype=np.int32), cost)
        for pool in range(self._size.size):
            self._model.changeRowBounds(pool, -np.inf, 1.0 + ROOM)

    def solve(self) -> Pressed:
        """The optimum over all ways, in the programme or not."""
        while True:
            self._model.run()
            status = self._model.getModelStatus()
            if status == highspy.HighsModelStatus.kInfeasible and not self._open.all():
                self._open[:] = True
            elif status != highspy.HighsModelStatus.kOptimal:
                raise NotCleared(self._model.modelStatusToString(status).lower())
            elif not self._better_ways(dual := np.array(self._model.getSolution().row_dual)):
                break
            self._let_in()
        values = np.maximum(np.array(self._model.getSolution().col_value), 0.0)
        pools = self._size.size
        return Pressed(
            part=float(values[0]),
            rent=np.maximum(-dual[:pools], 0.0) / self._size,
            run=self._run,
            of=self._of,
            way=self._way,
            taken=np.where(self._column > 0, values[self._column], 0.0),
        )

    def _better_ways(self, dual: Array) -> bool:
        """Open the way that would better each run most; False when none would."""
        if self._open.all():
            return False
        fleet, way, pools = self._fleet, self._way, self._size.size
        pool = fleet.pool[way]
        unit, need = dual[pools::2][self._of], dual[pools + 1 :: 2][self._of]
        rent = dual[:pools][pool] * fleet.hours[way] / self._size[pool]
        cost = self._taste[way] - rent - unit - need * fleet.output[way] / self._top[self._of]
        cost = np.where(self._open[way], 0.0, cost)
        best = np.full(self.code.size, -TOLERANCE)
        np.minimum.at(best, self._of, cost)
        found = (cost < -TOLERANCE) & (cost <= best[self._of])
        self._open[way[found]] = True
        return bool(found.any())


def _worth_using(fleet: Fleet) -> Mask:
    """All ways if they are few, else those that are cheapest for something at even rents, (A,)."""
    if fleet.kind.size <= FEW_WAYS:
        return np.ones(fleet.kind.size, dtype=bool)
    hull = Hull.of(fleet, normalised(np.ones(fleet.capacity.shape), fleet.capacity))
    corner = hull.output[fleet.kind]
    worth: Mask = (corner[:, 1:] == fleet.output[:, None]).any(axis=1)
    return worth


def _empty(pools: int) -> highspy.Highs:
    """The programme of no runs: go all the way."""
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, option in OPTIONS.items():
        model.setOptionValue(name, option)
    none = np.zeros(0, dtype=np.int32)
    refused = model.passModel(
        *(1, pools, 0, 1, 1, 0.0, -np.ones(1), np.zeros(1), np.ones(1)),
        *(np.full(pools, -np.inf), np.full(pools, 1.0 + TIGHT), np.zeros(2, dtype=np.int32)),
        *(none, np.zeros(0), np.zeros(1, dtype=np.int32)),
    )
    if refused == highspy.HighsStatus.kError:
        raise NotCleared("the solver refused the model")
    return model
