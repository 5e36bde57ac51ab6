"""Lowest and highest supporting price of a pool, the prices of all other pools free.

Rents and the jobs' duals y with hours x rent + duals >= gain for every way to run support the
award; limit @ y less the welfare is the regret of sites and jobs at those rents. The prices of
least regret are a face of that polyhedron (economics.md, 3.3 and 3.4): for a divisible book without
price caps the regret is zero there, and the face is the set of all equilibrium prices. In a book
with gangs or caps nobody may trade at a loss and no rent passes its cap. Two small linear
programmes give the ends of one pool's rent on that face.

The Euclidean price rule of pricing.py picks one point; this says how much room it had. As in that
rule a rent is at most the best gain any job has in the pool, or where floors hold it higher, that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from economics import accounts
from economics.clearing.program import Program, program_of
from economics.clearing.solver import Linear, minimise
from economics.curves.cleared import Cleared
from economics.faces import Polyhedron, optimal_face
from economics.market import Array, Index, Market


@dataclass(frozen=True, slots=True)
class Interval:
    """Supporting prices of one pool, credits per GPU-hour."""

    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Duals of the relaxation, each scaled so that its largest entry per GPU-hour is one."""

    program: Program
    unit: float  # credits per GPU-hour of the dearest way to run
    dual: Array  # (R,) credits per row unit of a scaled dual of one


def price_intervals(cleared: Cleared, pools: Iterable[int]) -> dict[int, Interval]:
    """Interval of each of these pools, by pool.

    Raises NotCleared when a solver proves no optimum.
    """
    market, asked = cleared.book.market, sorted(set(pools))
    bidden = np.zeros(market.pools, dtype=bool)
    bidden[market.pool] = True
    at_reserve = {
        pool: Interval(float(market.reserve[pool]), float(market.reserve[pool])) for pool in asked
    }
    wanted = [pool for pool in asked if bidden[pool]]
    if not wanted:
        return at_reserve
    scaled = _scaled(program_of(market))
    face = _least_regret(market, cleared.share, scaled)
    return at_reserve | {pool: _ends(cleared, face, scaled, pool) for pool in wanted}


def _scaled(program: Program) -> _Scaled:
    per_hour = abs(program.matrix) @ diags_array(1.0 / program.hours)
    largest = csr_array(per_hour).max(axis=1).toarray().ravel()
    unit = float(np.max(program.gain / program.hours))
    return _Scaled(program, unit, unit / np.where(largest > 0, largest, 1.0))


def _least_regret(market: Market, share: Array, scaled: _Scaled) -> Polyhedron:
    program = scaled.program
    by_hour = diags_array(1.0 / (program.hours * scaled.unit))
    support = csr_array(by_hour @ program.matrix.T @ diags_array(scaled.dual))
    unused = np.diff(program.matrix.indptr) == 0  # rows no variable is in
    space = Polyhedron(
        support,
        program.gain / (program.hours * scaled.unit),
        np.zeros(support.shape[0], dtype=bool),
        unused,
    )
    capped = np.flatnonzero(np.isfinite(market.ceiling))
    if not market.divisible or capped.size:
        space = space.with_rows(*_no_loss(market, share, scaled, support.shape[1]))
        caps = csr_array(
            (np.full(capped.size, -1.0), (np.arange(capped.size), capped)),
            shape=(capped.size, support.shape[1]),
        )
        space = space.with_rows(caps, -market.ceiling[capped] / scaled.unit)
    regret = program.limit * scaled.dual / (scaled.unit * max(market.capacity.sum(), 1.0))
    face, _ = optimal_face(space, regret)
    return face


def _no_loss(market: Market, share: Array, scaled: _Scaled, rows: int) -> tuple[csr_array, Array]:
    """What each served job without a floor pays above reserves is at most what it gains."""
    gain = accounts.job_gain(market, share)
    hours = csr_array(
        (market.gpu_hours * share, (market.job, market.pool)), shape=(market.jobs, rows)
    )
    total = hours.sum(axis=1)
    served: Index = np.flatnonzero((total > 0) & (market.floor == 0))
    per_hour = diags_array(1.0 / total[served])
    return csr_array(-(per_hour @ hours[served])), -gain[served] / total[served] / scaled.unit


def _ends(cleared: Cleared, face: Polyhedron, scaled: _Scaled, pool: int) -> Interval:
    market, reserve = cleared.book.market, float(cleared.book.market.reserve[pool])
    lowest = _extreme(face, pool, 1.0, np.inf) * scaled.unit
    here = market.pool == pool
    best = float((market.gain[here] / market.gpu_hours[here]).max())
    most = max(best, lowest, float(cleared.price[pool]) - reserve)
    highest = _extreme(face, pool, -1.0, most / scaled.unit) * scaled.unit
    return Interval(reserve + lowest, reserve + max(highest, lowest))


def _extreme(face: Polyhedron, pool: int, sign: float, most: float) -> float:
    """Scaled rent of the pool, `most` at most, where sign x rent is least on the face."""
    cost, upper = np.zeros(face.fixed.size), np.where(face.fixed, 0.0, np.inf)
    cost[pool], upper[pool] = sign, min(upper[pool], most)
    wanted = Linear(
        cost=cost,
        matrix=face.matrix,
        low=face.least,
        high=np.where(face.tight, face.least, np.inf),
        least=np.zeros(cost.shape),
        most=upper,
    )
    return float(minimise(wanted).values[pool])
