"""Polyhedra of prices: the optimal face of a linear objective, and the nearest point to an anchor.

A face is described by complementary slackness (which rows are tight, which variables are zero),
never by a cut on the objective: a cut leaves a sliver whose width is the solver's tolerance.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise
from economics.errors import NotCleared
from economics.market import Array
from economics.polyhedra import Polyhedron, polished

__all__ = ["Polyhedron", "nearest", "optimal_face"]

POSITIVE = 1e-7  # multipliers above this hold their row tight; everything is scaled to about one
ACCURATE = 1e-7  # violation accepted of a point that a solver calls inaccurate


def optimal_face(space: Polyhedron, cost: Array) -> tuple[Polyhedron, float]:
    """All points of `space` where cost @ y is least, and that least."""
    found = minimise(
        Linear(
            cost=cost,
            matrix=space.matrix,
            low=space.least,
            high=np.where(space.tight, space.least, np.inf),
            least=np.zeros(cost.shape),
            most=np.where(space.fixed, 0.0, np.inf),
        )
    )
    size = np.abs(cost).max(initial=0.0) or 1.0
    face = replace(
        space,
        tight=space.tight | (np.abs(found.row_dual) > POSITIVE * size),
        fixed=space.fixed | (found.reduced_cost > POSITIVE * size),
    )
    return face, found.objective


def nearest(space: Polyhedron, anchor: Array) -> Array:
    """The y whose first entries are nearest to `anchor` (Euclidean); those entries are unique."""
    size = space.fixed.size
    free = np.flatnonzero(~space.fixed)
    point = np.zeros(size)
    if not free.size:
        return point
    reduced = Polyhedron(
        csr_array(space.matrix[:, free]), space.least, space.tight, space.fixed[free]
    )
    aims = free[free < anchor.size]
    point[free] = _project(reduced, anchor[aims])
    return point


def _project(space: Polyhedron, anchor: Array) -> Array:
    failures = []
    for solver, options in SOLVERS:
        status, point = _solve_projection(space, anchor, solver, options)
        if point is not None and space.violation(point) <= ACCURATE:
            return np.maximum(polished(space, anchor, np.maximum(point, 0.0)), 0.0)
        failures.append(f"{solver}: {status}")
    raise NotCleared("no solver found the nearest prices (" + "; ".join(failures) + ")")


SOLVERS: tuple[tuple[str, dict[str, float]], ...] = (
    ("CLARABEL", {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}),
    ("CLARABEL", {}),
    ("HIGHS", {}),
    ("OSQP", {"eps_abs": 1e-10, "eps_rel": 1e-10, "max_iter": 200_000}),
)


def _solve_projection(
    space: Polyhedron, anchor: Array, solver: str, options: dict[str, float]
) -> tuple[str, Array | None]:
    import cvxpy as cp  # noqa: PLC0415 it costs 0.6 s, and only this solve needs it

    point = cp.Variable(space.fixed.size, nonneg=True)
    rules = []
    for rows, relation in ((space.tight, "tight"), (~space.tight, "loose")):
        if rows.any():
            left = space.matrix[rows] @ point
            rules.append(
                left == space.least[rows] if relation == "tight" else left >= space.least[rows]
            )
    distance = cp.sum_squares(point[: anchor.size] - anchor) if anchor.size else cp.Constant(0.0)
    problem = cp.Problem(cp.Minimize(distance), rules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "may be inaccurate": the caller measures it instead
        try:
            problem.solve(solver=solver, **options)
        except cp.SolverError as error:
            return str(error), None
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or point.value is None:
        return problem.status, None
    return problem.status, np.asarray(point.value, dtype=np.float64)
