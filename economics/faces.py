"""Polyhedra of prices: the optimal face of a linear objective, and the nearest point to an anchor.

A face is described by complementary slackness (which rows are tight, which variables are zero),
never by a cut on the objective: a cut leaves a sliver whose width is the solver's tolerance.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import qr
from scipy.sparse import csr_array, vstack

from economics.clearing.solver import Linear, minimise
from economics.errors import NotCleared
from economics.market import Array, Mask

POSITIVE = 1e-7  # multipliers above this hold their row tight; everything is scaled to about one
EXACT = 1e-10  # violation accepted of a polished point
TOUCHING = (1e-5, 1e-6, 1e-7)  # slacks taken for tight, in the order they are tried
POLISH_LOSS = 1e-7  # squared distance a polished point may be further off than the solver's
MOST_POLISHED = 300_000  # entries of the touching rows up to which a point is polished
RANK = 1e-10  # relative size below which a singular value is zero
ACCURATE = 1e-7  # violation accepted of a point that a solver calls inaccurate


@dataclass(frozen=True, slots=True)
class Polyhedron:
    """{y >= 0: matrix @ y >= least, equal on tight rows, zero on fixed variables}."""

    matrix: csr_array  # (M, Y)
    least: Array  # (M,)
    tight: Mask  # (M,)
    fixed: Mask  # (Y,)

    def with_rows(self, rows: csr_array, least: Array) -> Polyhedron:
        return Polyhedron(
            csr_array(vstack([self.matrix, rows])),
            np.concatenate([self.least, least]),
            np.concatenate([self.tight, np.zeros(least.shape, dtype=bool)]),
            self.fixed,
        )

    def violation(self, point: Array) -> float:
        short = self.least - self.matrix @ point
        worst = np.where(self.tight, np.abs(short), short)
        return float(max(worst.max(initial=0.0), -point.min(initial=0.0)))


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
            return np.maximum(_polished(space, anchor, np.maximum(point, 0.0)), 0.0)
        failures.append(f"{solver}: {status}")
    raise NotCleared("no solver found the nearest prices (" + "; ".join(failures) + ")")


SOLVERS: tuple[tuple[str, dict[str, float]], ...] = (
    ("CLARABEL", {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}),
    ("CLARABEL", {}),
    ("HIGHS", {}),
    ("OSQP", {"eps_abs": 1e-10, "eps_rel": 1e-10, "max_iter": 200_000}),
)


def _polished(space: Polyhedron, anchor: Array, point: Array) -> Array:
    """The exact projection on the rows and bounds the solver's point touches, if it is feasible.

    An interior-point answer stops a little short of its face, by as much as 1e-6 of a price; two
    solvers stop at different places. The face itself is the same for both.
    """
    best = point
    reach = float(np.square(point[: anchor.size] - anchor).sum())
    for touching in TOUCHING:
        refined = _on_face(space, anchor, point, touching)
        distance = float(np.square(refined[: anchor.size] - anchor).sum())
        if space.violation(refined) <= EXACT and distance <= reach + POLISH_LOSS:
            return refined
    return best


def _on_face(space: Polyhedron, anchor: Array, point: Array, touching: float) -> Array:
    """Nearest point to the anchor where everything within `touching` of tight is tight."""
    slack = space.matrix @ point - space.least
    rows = np.flatnonzero(space.tight | (slack < touching))
    zero = point < touching
    free = np.flatnonzero(~zero)
    refined = np.zeros(point.shape)
    if not free.size:
        return refined
    if rows.size * free.size > MOST_POLISHED:
        return point
    left = space.matrix[rows][:, free].toarray()
    start = point[free]
    start = start + np.linalg.lstsq(left, space.least[rows] - left @ start, rcond=RANK)[0]
    ways = _null_space(left)
    aims = free < anchor.size
    if ways.size and aims.any():
        move = np.linalg.lstsq(ways[aims], anchor[free[aims]] - start[aims], rcond=RANK)[0]
        start = start + ways @ move
    refined[free] = start
    return refined


def _null_space(matrix: Array) -> Array:
    """Directions that change no row, as columns."""
    if not matrix.size:
        return np.eye(matrix.shape[1])
    turned, triangle, _ = qr(matrix.T, mode="full", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    rank = int(np.count_nonzero(sizes > RANK * max(float(sizes[0]), 1.0)))
    directions: Array = turned[:, rank:]
    return directions


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
