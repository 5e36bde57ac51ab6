"""Among awards of equal welfare, the one the tie rule names."""

from __future__ import annotations

from economics.clearing.program import Program
from economics.clearing.solver import Solved
from economics.market import Array, Market


def settle_ties(market: Market, program: Program, best: Solved) -> Array:
    """Values of the variables, (V,)."""
    return best.values
