"""HiGHS behind one function that minimises, and refuses to hand out what was not proved.

Always a minimisation: some versions give the duals of a maximisation with the wrong sign. Nothing
reaches standard output, nothing depends on a clock or on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
from scipy.sparse import csc_array, csr_array

from economics.errors import NotCleared
from economics.market import Array, Mask

TOLERANCE = 1e-9  # of rows scaled to one
WORTH = 1e4  # the objective is scaled so that the largest possible total is about this


@dataclass(frozen=True, slots=True)
class Linear:
    """minimise cost @ z with low <= matrix @ z <= high and bounds[0] <= z <= bounds[1]."""

    cost: Array  # (V,)
    matrix: csr_array  # (R, V)
    low: Array  # (R,)
    high: Array  # (R,)
    least: Array  # (V,)
    most: Array  # (V,)
    whole: Mask | None = None  # (V,) variables that are whole numbers

    @property
    def integral(self) -> bool:
        return self.whole is not None and bool(self.whole.any())


@dataclass(frozen=True, slots=True)
class Solved:
    """An optimum in the caller's units."""

    values: Array  # (V,)
    objective: float
    bound: float  # no solution has a smaller objective
    row_dual: Array  # (R,) change of the optimum per unit of the row's binding side
    reduced_cost: Array  # (V,)
    proved: bool  # False: the node limit came first, `bound` says how far it may be off


def minimise(
    linear: Linear,
    *,
    nodes: int | None = None,
    gap: float = 0.0,
    slack: float = 0.0,
    below: float = np.inf,
) -> Solved:
    """Solve; raises NotCleared unless optimal, or feasible at the node limit when one is given.

    With whole variables the optimum is met to the relative `gap` or the absolute `slack`, and
    only solutions whose objective is less than `below` are looked for: NoneBelow says that there
    are none, or none before the node limit.
    """
    if not linear.cost.size:
        return _nothing(linear)
    scaled = _Scaled.of(linear)
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, option in _options(nodes, gap, slack * scaled.worth).items():
        model.setOptionValue(name, option)
    if np.isfinite(below):
        model.setOptionValue("objective_bound", below * scaled.worth)
    if model.passModel(scaled.lp) == highspy.HighsStatus.kError:
        raise NotCleared("the solver refused the model")
    model.run()
    status = model.getModelStatus()
    info = model.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    proved = status == highspy.HighsModelStatus.kOptimal
    if np.isfinite(below) and not feasible and status in (*_NONE, *_STOPPED):
        raise NoneBelow(proved=status in _NONE)
    if not proved and not (nodes and feasible and status in _STOPPED):
        raise NotCleared(model.modelStatusToString(status).lower())
    return scaled.back(model, proved)


class NoneBelow(NotCleared):
    """No solution has a smaller objective than asked for; unless not proved."""

    def __init__(self, *, proved: bool) -> None:
        super().__init__("no solution below the limit asked for")
        self.proved = proved


_NONE = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kObjectiveBound)
_STOPPED = (highspy.HighsModelStatus.kSolutionLimit, highspy.HighsModelStatus.kIterationLimit)


def _nothing(linear: Linear) -> Solved:
    """The one solution of a programme without variables, if it is one."""
    if (linear.low > 0).any() or (linear.high < 0).any():
        raise NotCleared("infeasible")
    none = np.zeros(0)
    return Solved(none, 0.0, 0.0, np.zeros(linear.low.shape), none, proved=True)


def _options(nodes: int | None, gap: float, slack: float) -> dict[str, bool | int | float | str]:
    options: dict[str, bool | int | float | str] = {
        "output_flag": False,
        "parallel": "off",
        "random_seed": 0,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
        "mip_feasibility_tolerance": TOLERANCE,
        "mip_abs_gap": slack,
        "mip_rel_gap": gap,
    }
    return options if nodes is None else {**options, "mip_max_nodes": nodes}


@dataclass(frozen=True, slots=True)
class _Scaled:
    """The same programme with its rows and objective brought to a common size."""

    linear: Linear
    lp: highspy.HighsLp
    row: Array  # (R,) multiplied into each row
    worth: float  # multiplied into the objective

    @classmethod
    def of(cls, linear: Linear) -> _Scaled:
        rows, variables = linear.matrix.shape
        largest = abs(linear.matrix).max(axis=1).toarray().ravel()
        row = 1.0 / np.where(largest > 0, largest, 1.0)
        spread = float(np.abs(linear.cost) @ np.minimum(np.abs(linear.most), 1.0))
        worth = WORTH / spread if spread > 0 else 1.0
        matrix = csc_array(linear.matrix.multiply(row[:, None]))
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = variables, rows
        lp.col_cost_ = linear.cost * worth
        lp.col_lower_, lp.col_upper_ = linear.least, linear.most
        lp.row_lower_, lp.row_upper_ = linear.low * row, linear.high * row
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = matrix.indptr
        lp.a_matrix_.index_ = matrix.indices
        lp.a_matrix_.value_ = matrix.data
        if linear.whole is not None and linear.integral:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(whole)] for whole in linear.whole]
        return cls(linear, lp, row, worth)

    def back(self, model: highspy.Highs, proved: bool) -> Solved:
        solution, info = model.getSolution(), model.getInfo()
        values = np.clip(np.array(solution.col_value), self.linear.least, self.linear.most)
        integral = self.linear.integral
        if self.linear.whole is not None:
            values = np.where(self.linear.whole, np.round(values), values)
        objective = float(self.linear.cost @ values)
        bound = info.mip_dual_bound / self.worth if integral else objective
        rows, variables = self.linear.matrix.shape
        row_dual = np.zeros(rows) if integral else np.array(solution.row_dual)
        reduced = np.zeros(variables) if integral else np.array(solution.col_dual)
        return Solved(
            values=values,
            objective=objective,
            bound=min(bound, objective),
            row_dual=row_dual * self.row / self.worth,
            reduced_cost=reduced / self.worth,
            proved=proved,
        )
