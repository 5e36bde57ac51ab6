"""Who trains where: the welfare optimum, by a linear programme or by branch and bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics import accounts
from economics.clearing.program import Program, program_of
from economics.clearing.solver import Linear, Solved, minimise
from economics.clearing.ties import Optimum, settle_ties
from economics.market import Array, Market

SMALL = 2_000  # variables up to which branch and bound goes on to EXACT
EXACT = 1e-9  # relative gap
COARSE = 1e-4  # relative gap accepted for large programmes
DUST = 1e-9  # shares below this are not awarded


@dataclass(frozen=True, slots=True)
class Allocation:
    """An award, and how good it is proved to be. Credits per round."""

    program: Program
    share: Array  # (K,)
    welfare: float
    bound: float  # best proven upper bound on welfare
    lp_bound: float  # optimum of the linear relaxation
    proved: bool  # within the gap asked for, before the node limit


def allocate(market: Market, *, nodes: int) -> Allocation:
    """The award of largest welfare; ties go by moves, then job, then pool."""
    program = program_of(market)
    linear = linear_of(program)
    relaxed = minimise(linear)
    best = solve_whole(program, nodes=nodes) if program.integral else relaxed
    values = best.values
    if best.proved:
        values = settle_ties(market, Optimum(program, linear, relaxed, best), nodes=nodes)
    share = cleaned(market, program.shares(values, market.columns))
    welfare = accounts.welfare(market, share)
    lp_bound = max(-relaxed.objective, welfare)
    return Allocation(
        program=program,
        share=share,
        welfare=welfare,
        bound=min(max(-best.bound, welfare), lp_bound),
        lp_bound=lp_bound,
        proved=best.proved,
    )


def linear_of(program: Program) -> Linear:
    """The relaxation, as a minimisation. Rows imply that shares are at most one."""
    rows, variables = program.matrix.shape
    return Linear(
        cost=-program.gain,
        matrix=program.matrix,
        low=np.full(rows, -np.inf),
        high=program.limit,
        least=np.zeros(variables),
        most=np.full(variables, np.inf),
    )


def solve_whole(program: Program, *, nodes: int) -> Solved:
    """Branch and bound, to EXACT for small programmes."""
    relaxed = linear_of(program)
    gap = EXACT if program.gain.size <= SMALL else COARSE
    whole = Linear(
        relaxed.cost,
        relaxed.matrix,
        relaxed.low,
        relaxed.high,
        relaxed.least,
        np.where(program.whole, 1.0, np.inf),
        program.whole,
    )
    return minimise(whole, nodes=nodes, gap=gap)


def cleaned(market: Market, share: Array) -> Array:
    """Shares without solver dust; a gang's are exactly 0 or 1."""
    share = np.where(share < DUST, 0.0, share)
    result: Array = np.where(market.gang[market.job], np.round(share), share)
    return result
