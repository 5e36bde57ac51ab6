"""The smallest zero-sum transfers after which no site and no coalition is better off alone.

With whole gangs, linear prices can pay a site less than it makes alone, so this step is part of
the mechanism (economics.md, 3.4 step 4). Every site keeps at least its stand-alone value; larger
coalitions at least theirs, less the smallest excess possible where the core is empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.program import Program
from economics.clearing.solver import NoneBelow
from economics.errors import NotCleared
from economics.faces import Polyhedron, nearest, optimal_face
from economics.market import Array
from economics.sharing.coalitions import (
    Coalition,
    blocking,
    coalition_bound,
    coalition_value,
    players,
)

MOST_CUTS = 200  # coalitions added one by one before we give up


@dataclass(frozen=True, slots=True)
class Repair:
    """Transfers, and how stable the payoffs are with them. Credits."""

    transfer: Array  # (N,) + = receives; sums to zero up to rounding
    alone: Array  # (N,) stand-alone values
    least_excess: float  # largest gain left to a coalition of two or more; 0 = in the core
    proved: bool  # no coalition gains more than that; False: none found before the node limit


def repair(program: Program, payoff: Array, *, tolerance: float, nodes: int) -> Repair:
    """Find the transfers, adding the coalition that objects most until none does."""
    alone = _stand_alone(program, payoff, tolerance=tolerance, nodes=nodes)
    objections: list[Coalition] = []
    agreed, least = agree(payoff, alone, objections, tolerance)
    for _ in range(MOST_CUTS):
        try:
            worst = blocking(
                program, agreed, least=2, nodes=nodes, tolerance=tolerance, above=least + tolerance
            )
        except NoneBelow:
            return Repair(agreed - payoff, alone, least, proved=False)
        if worst is None:
            return Repair(agreed - payoff, alone, least, proved=True)
        if not objections:  # somebody will have to pay: nobody below what it makes alone
            alone = _stand_alone(program, np.zeros(payoff.shape), tolerance=0.0, nodes=nodes)
        objections.append(worst)
        agreed, least = agree(payoff, alone, objections, tolerance)
    raise NotCleared(f"{MOST_CUTS} objections did not settle the transfers")


def _stand_alone(program: Program, payoff: Array, *, tolerance: float, nodes: int) -> Array:
    """What each site makes alone, (N,): exact unless a quick bound shows that all have as much."""
    sites = players(program)
    alone, number = np.zeros(payoff.shape), np.arange(payoff.size)
    for site in sites:
        alone[site] = coalition_bound(program, number == site)
    if (payoff >= alone - tolerance).all() or not program.integral:
        return alone
    for site in sites:
        alone[site] = coalition_value(program, number == site, nodes=nodes)
    return alone


def agree(
    payoff: Array, alone: Array, objections: list[Coalition], tolerance: float
) -> tuple[Array, float]:
    """Payoffs nearest to those of the market that meet all objections but for the least excess."""
    size = max(float(np.abs(payoff).max(initial=0.0)), tolerance)
    sites = payoff.size
    if not objections and (payoff >= alone - tolerance).all():
        return payoff, 0.0
    # Variables: what each site has above its stand-alone value (N,), then the excess allowed.
    members = np.array([item.members for item in objections], dtype=float).reshape(-1, sites)
    owed = np.array([item.value for item in objections]) - members @ alone
    rows = np.vstack([np.append(np.ones(sites), 0.0), np.c_[members, np.ones(len(objections))]])
    space = Polyhedron(
        matrix=csr_array(rows),
        least=np.append(max((payoff - alone).sum(), 0.0), owed) / size,
        tight=np.arange(rows.shape[0]) == 0,
        fixed=np.zeros(sites + 1, dtype=bool),
    )
    _, least = optimal_face(space, np.append(np.zeros(sites), 1.0))
    least = least if least * size > tolerance else 0.0
    relaxed = Polyhedron(
        matrix=csr_array(rows[:, :sites]),
        least=space.least - np.append(0.0, np.full(len(objections), least)),
        tight=space.tight,
        fixed=space.fixed[:sites],
    )
    # Where the core is empty its face is thin: leave the projection room for solver rounding.
    room = relaxed.least - np.where(relaxed.tight, 0.0, 1e-9)
    relaxed = Polyhedron(relaxed.matrix, room, relaxed.tight, relaxed.fixed)
    return nearest(relaxed, (payoff - alone) / size) * size + alone, least * size
