"""The same policies written down plainly, a row for each job: what the fast ones are tested by.

Also where to start from for an objective of one's own. cvxpy in flat sparse form, one variable for
each pair of a job and one of its ways, constraints by name, the solver by name. Every crowd here
has one job to an entry.

Axes: P pools · E jobs · Q pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from economics.errors import NotCleared
from economics.market import Array, Mask
from economics.policies.filling import Curve
from economics.policies.fleet import Crowd, Fleet

SAME = 1e-6  # of the largest delivery; closer ones are equal


@dataclass(frozen=True, slots=True)
class Plain:
    """A problem's variable, what it delivers, and what every policy keeps to."""

    units: Any  # cvxpy variable (Q,)
    delivered: Any  # cvxpy expression (E,) Msamples
    kept: dict[str, Any]  # constraints


def plain(fleet: Fleet, crowd: Crowd) -> Plain:
    """The pairs of a fleet and a crowd as one flat variable."""
    import cvxpy as cp  # noqa: PLC0415 takes half a second, and only references need it

    job, way = fleet.ways_of(crowd.kind)
    size = (crowd.kind.size, job.size)
    pairs = np.arange(job.size)
    units = cp.Variable(job.size, nonneg=True)
    delivery = csr_array((fleet.output[way], (job, pairs)), shape=size)
    taking = csr_array(
        (fleet.hours[way], (fleet.pool[way], pairs)), shape=(fleet.capacity.size, job.size)
    )
    held = np.flatnonzero(np.isfinite(crowd.units))
    wanting = np.flatnonzero(np.isfinite(crowd.most))
    delivered = delivery @ units
    together = csr_array((np.ones(job.size), (job, pairs)), shape=size)
    kept = {
        "pools sell what they have": taking @ units <= fleet.capacity,
        "jobs keep to their units": (together @ units)[held] <= crowd.units[held],
        "nobody is delivered more than wanted": delivered[wanting] <= crowd.most[wanting],
        "promises are kept": delivered >= crowd.least,
    }
    return Plain(units, delivered, kept)


def largest_total(fleet: Fleet, crowd: Crowd, worth: Array) -> tuple[float, Array]:
    """Maximise the worth, (E,) per Msample, of what is delivered; and what is, (E,)."""
    import cvxpy as cp  # noqa: PLC0415

    problem = plain(fleet, crowd)
    total = _solved(cp.Maximize(worth @ problem.delivered), problem.kept, cp.HIGHS)
    return total, problem.delivered.value


def highest_level(fleet: Fleet, crowd: Crowd, pace: Array) -> tuple[float, Array]:
    """Maximise t with delivered >= pace t: max-min fairness, and makespan with t = 1/T."""
    return _highest(fleet, crowd, pace, np.zeros(pace.shape), np.ones(pace.shape, dtype=bool))


def lexicographic(fleet: Fleet, crowd: Crowd, pace: Array) -> Array:
    """Max-min fairness to the end, (E,): those that cannot rise above the level are held there.

    Whether a job can rise is asked of a programme of its own: for a few jobs only.
    """
    rising, held = np.ones(pace.shape, dtype=bool), crowd.least.copy()
    while rising.any():
        level, _ = _highest(fleet, crowd, pace, held, rising)
        floor = np.where(rising, np.maximum(pace * level, crowd.least), held)
        stuck = [
            job for job in np.flatnonzero(rising) if not _can_rise(fleet, crowd, int(job), floor)
        ]
        if not stuck:
            raise NotCleared("the levels did not settle")
        rising[stuck] = False
        held = np.where(rising, held, floor)
    return held


def smallest_ratio(fleet: Fleet, crowd: Crowd, curve: Curve) -> tuple[float, Array]:
    """Minimise the largest ρ = lead + pace / delivered, the finish time over that alone."""
    import cvxpy as cp  # noqa: PLC0415

    problem = plain(fleet, crowd)
    ratio = curve.lead + cp.multiply(curve.pace, cp.inv_pos(problem.delivered))
    value = _solved(cp.Minimize(cp.max(ratio)), problem.kept, cp.CLARABEL)
    return value, problem.delivered.value


def largest_product(fleet: Fleet, crowd: Crowd, budget: Array) -> tuple[float, Array]:
    """Maximise the sum of budget x log(delivered): the Eisenberg-Gale programme."""
    import cvxpy as cp  # noqa: PLC0415

    problem = plain(fleet, crowd)
    value = _solved(cp.Maximize(budget @ cp.log(problem.delivered)), problem.kept, cp.CLARABEL)
    return value, problem.delivered.value


def _highest(
    fleet: Fleet, crowd: Crowd, pace: Array, held: Array, rising: Mask
) -> tuple[float, Array]:
    import cvxpy as cp  # noqa: PLC0415

    problem, level = plain(fleet, crowd), cp.Variable(nonneg=True)
    raised = np.where(rising, pace, 0.0)
    rules = {
        **problem.kept,
        "everybody is at the level": problem.delivered >= raised * level,
        "nobody falls back": problem.delivered >= np.where(rising, 0.0, held),
    }
    value = _solved(cp.Maximize(level), rules, cp.HIGHS)
    return value, problem.delivered.value


def _can_rise(fleet: Fleet, crowd: Crowd, job: int, floor: Array) -> bool:
    """Whether a job can be delivered more when nobody is delivered less."""
    import cvxpy as cp  # noqa: PLC0415

    problem, slack = plain(fleet, crowd), SAME * float(floor.max())
    rules = {**problem.kept, "nobody falls back": problem.delivered >= floor - slack / 1e3}
    most = _solved(cp.Maximize(problem.delivered[job]), rules, cp.HIGHS)
    return bool(most > floor[job] + slack)


def _solved(objective: Any, rules: dict[str, Any], solver: str) -> float:
    """The optimum; raises NotCleared unless the solver proved it."""
    import cvxpy as cp  # noqa: PLC0415

    problem = cp.Problem(objective, list(rules.values()))
    try:
        problem.solve(solver=solver)
    except cp.error.SolverError as reason:
        raise NotCleared(str(reason)) from None
    if problem.status != cp.OPTIMAL:
        raise NotCleared(problem.status)
    return float(problem.value)
