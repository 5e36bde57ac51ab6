"""Polyhedra of prices, and the exact point on the face that a solver's point only touches.

An interior-point answer stops a little short of its face, by as much as 1e-6 of a price; two
solvers stop at different places. The face itself is the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr
from scipy.sparse import csr_array, diags_array, vstack

from economics.market import Array, Index, Mask

EXACT = 1e-10  # violation accepted of a polished point
TOUCHING = (1e-5, 1e-6, 1e-7)  # slacks taken for tight, in the order they are tried
POLISH_LOSS = 1e-7  # squared distance a polished point may be further off than the solver's
DENSE = 40_000  # entries of the touching rows up to which they are solved as they are
RANK = 1e-10  # relative size below which a singular value is zero


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


def polished(space: Polyhedron, anchor: Array, point: Array) -> Array:
    """The exact projection on the rows and bounds `point` touches; `point` if that does not fit."""
    reach = float(np.square(point[: anchor.size] - anchor).sum())
    for touching in TOUCHING:
        refined = _on_face(space, anchor, point, touching)
        distance = float(np.square(refined[: anchor.size] - anchor).sum())
        if space.violation(refined) <= EXACT and distance <= reach + POLISH_LOSS:
            return refined
    return point


def _on_face(space: Polyhedron, anchor: Array, point: Array, touching: float) -> Array:
    """Nearest point to the anchor where everything within `touching` of tight is tight."""
    slack = space.matrix @ point - space.least
    rows = np.flatnonzero(space.tight | (slack < touching))
    refined = np.where(point >= touching, point, 0.0)
    # What no touching row has stays where it is, unless the anchor draws it.
    named = np.diff(space.matrix[rows].tocsc().indptr) > 0
    named[: anchor.size] = True
    free = np.flatnonzero((point >= touching) & named)
    if not free.size:
        return refined
    left, right = csr_array(space.matrix[rows][:, free]), space.least[rows]
    aims = np.flatnonzero(free < anchor.size)
    target = anchor[free[aims]]
    if rows.size * free.size <= DENSE:
        refined[free] = _nearest_solution(left.toarray(), right, point[free], aims, target)
    else:
        refined[free] = _without_duals(left, right, point[free], aims, target)
    return refined


def _nearest_solution(left: Array, right: Array, start: Array, aims: Index, target: Array) -> Array:
    """The solution of left @ y = right whose entries `aims` are nearest to `target`."""
    start = start + np.linalg.lstsq(left, right - left @ start, rcond=RANK)[0]
    ways = _null_space(left)
    if ways.size and aims.size:
        start = start + ways @ np.linalg.lstsq(ways[aims], target - start[aims], rcond=RANK)[0]
    return start


def _without_duals(
    left: csr_array, right: Array, start: Array, aims: Index, target: Array
) -> Array:
    """The same for many rows: duals of single rows are put in terms of the prices first."""
    duals = np.setdiff1d(np.arange(start.size), aims)
    prices_part, duals_part = csr_array(left[:, aims]), csr_array(left[:, duals])
    count = np.diff(duals_part.indptr)
    single = np.flatnonzero(count == 1)
    named = duals_part.indices[duals_part.indptr[single]]
    known, first = np.unique(named, return_index=True)
    pivot = single[first]
    per_dual = diags_array(1.0 / duals_part.data[duals_part.indptr[pivot]])
    # dual = offset - slope @ prices, for each dual that some row names alone
    slope = csr_array(per_dual @ prices_part[pivot])
    offset = per_dual @ right[pivot]
    others = np.setdiff1d(np.arange(left.shape[0]), pivot)
    unknown = np.setdiff1d(np.arange(duals.size), known)
    bound = np.diff(csr_array(duals_part[others][:, unknown]).indptr) == 0
    rows = others[bound]
    mixed = csr_array(duals_part[rows][:, known])
    reduced = csr_array(prices_part[rows] - mixed @ slope).toarray()
    some = np.abs(reduced).max(axis=1, initial=0.0) > RANK
    system = np.column_stack([reduced[some], (right[rows] - mixed @ offset)[some]])
    if system.shape[0] > system.shape[1]:  # the triangle has the same solutions
        system = qr(system, mode="r", check_finite=False)[0][: system.shape[1]]
    solved = _nearest_solution(
        system[:, :-1], system[:, -1], start[aims], np.arange(aims.size), target
    )
    result = start.copy()
    result[aims] = solved
    result[duals[known]] = offset - slope @ solved
    return result


def _null_space(matrix: Array) -> Array:
    """Directions that change no row, as columns."""
    if not matrix.size:
        return np.eye(matrix.shape[1])
    # Of many rows only the triangle matters: their span.
    few = (
        qr(matrix, mode="r")[0][: matrix.shape[1]] if matrix.shape[0] > matrix.shape[1] else matrix
    )
    turned, triangle, _ = qr(few.T, mode="full", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    rank = int(np.count_nonzero(sizes > RANK * max(float(sizes[0]), 1.0)))
    directions: Array = turned[:, rank:]
    return directions
