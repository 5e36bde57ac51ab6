"""One linear programme kept in the solver's memory, solved again for one coalition after another.

A coalition's programme is that of all sites with the limits of everybody else's rows at zero
(economics.md, 1.2), so most of what made the last optimum best
still does: the simplex method takes a few steps from one coalition to the next where a cold solve
starts anew.

Axes: M sites of the programme · R rows · V variables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from economics.clearing.program import Program
from economics.clearing.solver import TOLERANCE, WORTH
from economics.errors import NotCleared
from economics.market import Array

Rows = NDArray[np.int32]  # the numbers of rows or columns as the solver takes them

OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "parallel": "off",
    "random_seed": 0,
    "solver": "simplex",
    "presolve": "off",
    "primal_feasibility_tolerance": TOLERANCE,
    "dual_feasibility_tolerance": TOLERANCE,
    # The programme is scaled already, and a perturbed one would have to be solved a second time.
    "simplex_scale_strategy": 0,
    "dual_simplex_cost_perturbation_multiplier": 0.0,
    # Devex weights: no weights to compute anew whenever a basis is set.
    "simplex_dual_edge_weight_strategy": 1,
    "no_unnecessary_rebuild_refactor": False,
}


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What a coalition could make alone if gangs could be split."""

    value: float  # credits
    whole: bool  # every gang is whole all the same, so that this is what they do make


@dataclass(frozen=True, slots=True)
class _Own:
    """What one site's coming and going changes, and to what."""

    rows: Rows  # its rows
    limit: Array  # of those, while it is there
    none: Array  # zeros
    least: Array  # minus infinity
    columns: Rows  # variables with an entry in one of its rows
    zero: Array  # zeros

    @classmethod
    def of(cls, program: Program, limit: Array, site: int) -> _Own:
        rows = np.flatnonzero(program.owner == site).astype(np.int32)
        columns = np.unique(csr_array(program.matrix[rows]).indices).astype(np.int32)
        none, zero = np.zeros(rows.size), np.zeros(columns.size)
        return cls(rows, limit[rows], none, np.full(rows.size, -np.inf), columns, zero)


class Warm:
    """The programme of M sites, numbered 0 to M - 1, and a basis that is best for all of them.

    A coalition is a whole number whose bit i is site i.
    """

    def __init__(self, program: Program, sites: int) -> None:
        largest = abs(program.matrix).max(axis=1).toarray().ravel()
        row = 1.0 / np.where(largest > 0, largest, 1.0)
        spread = float(np.abs(program.gain).sum())
        self._worth = WORTH / spread if spread > 0 else 1.0
        self._gangs = np.flatnonzero(program.whole)
        limit = program.limit * row
        self._own = [_Own.of(program, limit, site) for site in range(sites)]
        self._here = (1 << sites) - 1  # the coalition the solver stands at
        self._absent = np.zeros(program.gain.size, dtype=np.int64)  # (V,) sites each still needs
        self._most = np.append(np.inf, np.zeros(sites))  # by the number of sites it still needs
        self._model = _model(program, row, limit, self._worth)
        self._run()
        self._top = self._model.getBasis()

    def alone(self, mask: int) -> Relaxed:
        """Of a coalition, from the basis of all: the same digits whatever was asked before."""
        self._model.clearSolver()
        self._turn(mask)
        self._model.setBasis(self._top)
        return self._run()

    def next(self, mask: int) -> Relaxed:
        """Of a coalition, from where the solver stands: quick if few sites differ."""
        self._turn(mask)
        return self._run()

    @property
    def steps(self) -> int:
        """Of the simplex method, for the last coalition."""
        return int(self._model.getInfo().simplex_iteration_count)

    def _turn(self, mask: int) -> None:
        """Give the rows of those who join their limits, and zero to those who leave.

        Zero limits keep the variables of those who left at zero; saying so halves the steps.
        """
        turning, self._here = mask ^ self._here, mask
        for site in bits(turning):
            joins, own = mask >> site & 1, self._own[site]
            absent = self._absent[own.columns] + (-1 if joins else 1)
            self._absent[own.columns] = absent
            self._model.changeRowsBounds(  # type: ignore[attr-defined]
                own.rows.size, own.rows, own.least, own.limit if joins else own.none
            )
            self._model.changeColsBounds(
                own.columns.size, own.columns, own.zero, self._most[absent]
            )

    def _run(self) -> Relaxed:
        self._model.run()
        if self._model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            self._model.clearSolver()  # from nothing: where it stood may be what misled it
            self._model.run()
        status = self._model.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise NotCleared(self._model.modelStatusToString(status).lower())
        value = -self._model.getObjectiveValue() / self._worth
        return Relaxed(value + 0.0, self._whole())

    def _whole(self) -> bool:
        if not self._gangs.size:
            return True
        share: Array = np.array(self._model.getSolution().col_value)[self._gangs]
        return bool((np.abs(share - np.round(share)) <= TOLERANCE).all())


def bits(mask: int) -> Iterator[int]:
    """The sites of a coalition, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _model(program: Program, row: Array, limit: Array, worth: float) -> highspy.Highs:
    """The relaxation as a minimisation; rows imply that shares are at most one."""
    matrix = csc_array(program.matrix.multiply(row[:, None]))
    rows, variables = program.matrix.shape
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = variables, rows
    lp.col_cost_ = -program.gain * worth
    lp.col_lower_, lp.col_upper_ = np.zeros(variables), np.full(variables, np.inf)
    lp.row_lower_, lp.row_upper_ = np.full(rows, -np.inf), limit
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = matrix.indptr
    lp.a_matrix_.index_ = matrix.indices
    lp.a_matrix_.value_ = matrix.data
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, option in OPTIONS.items():
        model.setOptionValue(name, option)
    if model.passModel(lp) == highspy.HighsStatus.kError:
        raise NotCleared("the solver refused the model")
    return model
