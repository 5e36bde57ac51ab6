"""The programme over runs, solved by HiGHS directly. Every answer is feasible for the jobs.

Runs whose best line nobody doubts are lumped together, a few bounded variables for each pool that
need no row; the others have a variable for each line tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
from scipy.sparse import csc_array

from economics.clearing.tiers.demand import Demand, Runs
from economics.errors import NotCleared
from economics.market import Array, Index, Mask

TOLERANCE = 1e-9  # of rows scaled to one
LUMPS = 4  # variables of a pool's sure runs
WORTH = 1e4  # the objective is scaled so that the largest possible total is about this


@dataclass(frozen=True, slots=True)
class Tried:
    """Which lines of which runs the programme has."""

    open: Mask  # (R, M) a variable of its own
    sure: Mask  # (R,) lumped, on its best line
    best: Index  # (R,)


@dataclass(frozen=True, slots=True)
class Served:
    """An award of runs, and the rents that support it among the lines tried."""

    run: Index  # (A,)
    line: Index  # (A,)
    share: Array  # (A,) of the run
    rent: Array  # (P,) credits per GPU-hour
    value: float  # credits
    rows: int


def solve_runs(demand: Demand, runs: Runs, gain: Array, tried: Tried, capacity: Array) -> Served:
    """Maximise the gain of the runs; `gain` (R, M) is per unit of weight at reserve prices."""
    lumps = _Lumps.of(demand, runs, gain, tried)
    run, line = np.nonzero(tried.open)
    numbered, rows_of = np.unique(run, return_inverse=True)
    size = np.where(capacity > 0, capacity, 1.0)
    count, pools = run.size, capacity.size
    weight = runs.weight[run]
    way, pool, hours = demand.lines.uses(runs.group[run], line)
    matrix = csc_array(
        (
            np.concatenate(
                [hours * weight[way] / size[pool], np.ones(count), lumps.hours / size[lumps.pool]]
            ),
            (
                np.concatenate([pool, pools + rows_of, lumps.pool]),
                np.concatenate([way, np.arange(count), count + np.arange(lumps.pool.size)]),
            ),
        ),
        shape=(pools + numbered.size, count + lumps.pool.size),
    )
    worth = np.concatenate([gain[run, line] * weight, lumps.gain])
    share, dual = _highs(
        worth,
        matrix,
        np.concatenate([np.full(count, np.inf), np.ones(lumps.pool.size)]),
        np.concatenate([(capacity > 0).astype(float), np.ones(numbered.size)]),
    )
    shares = np.concatenate([share[:count], share[count:][lumps.member]])
    taken = shares > 0
    return Served(
        run=np.concatenate([run, lumps.run])[taken],
        line=np.concatenate([line, tried.best[lumps.run]])[taken],
        share=shares[taken],
        rent=np.maximum(dual[:pools], 0.0) / size,
        value=float(worth @ share),
        rows=pools + numbered.size,
    )


@dataclass(frozen=True, slots=True)
class _Lumps:
    """Sure runs of one pool of about equal gain per GPU-hour, as one."""

    run: Index  # (S,) the sure runs
    member: Index  # (S,) the lump of each
    pool: Index  # (L,)
    hours: Array  # (L,)
    gain: Array  # (L,)

    @classmethod
    def of(cls, demand: Demand, runs: Runs, gain: Array, tried: Tried) -> _Lumps:
        sure = np.flatnonzero(tried.sure)
        line, group = tried.best[sure], runs.group[sure]
        pool, weight = demand.lines.pool[group, line], runs.weight[sure]
        hours = demand.lines.hours[group, line] * weight
        worth = gain[sure, line] * weight
        sort = np.lexsort((worth / hours, pool))
        begin = np.searchsorted(pool[sort], pool[sort])
        size = np.searchsorted(pool[sort], pool[sort], side="right") - begin
        part = np.empty(sure.size, dtype=np.int64)
        part[sort] = (np.arange(sure.size) - begin) * np.minimum(LUMPS, size) // size
        lump, member = np.unique(pool * LUMPS + part, return_inverse=True)
        return cls(
            sure,
            member,
            lump // LUMPS,
            np.bincount(member, hours, lump.size).astype(float),
            np.bincount(member, worth, lump.size).astype(float),
        )


def _highs(worth: Array, matrix: csc_array, most: Array, high: Array) -> tuple[Array, Array]:
    """Shares, and duals of the rows (credits per row of size one). Always a minimisation."""
    columns, rows = worth.size, high.size
    if not columns:
        return np.zeros(0), np.zeros(rows)
    spread = float(np.abs(worth).sum())
    scale = WORTH / spread if spread > 0 else 1.0
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, option in _OPTIONS.items():
        model.setOptionValue(name, option)
    refused = model.passModel(
        *(columns, rows, matrix.nnz, 1, 1, 0.0),
        *(-worth * scale, np.zeros(columns), most, np.full(rows, -np.inf), high),
        *(matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data),
        np.zeros(columns, dtype=np.int32),
    )
    if refused == highspy.HighsStatus.kError:
        raise NotCleared("the solver refused the model")
    model.run()
    status = model.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise NotCleared(model.modelStatusToString(status).lower())
    solution = model.getSolution()
    share = np.clip(np.array(solution.col_value), 0.0, 1.0)
    return share, -np.array(solution.row_dual) / scale


_OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "parallel": "off",
    "presolve": "off",  # the programmes are small: looking for reductions costs more than it saves
    "random_seed": 0,
    "primal_feasibility_tolerance": TOLERANCE,
    "dual_feasibility_tolerance": TOLERANCE,
}
