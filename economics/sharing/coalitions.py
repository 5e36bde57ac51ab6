"""What a coalition of sites could make alone, and which coalition would gain most by leaving.

The oracle is one programme with a binary per site (economics.md, section 2): exact for any number
of sites, no enumeration of 2^n coalitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack, vstack

from economics.clearing.allocation import linear_of, solve_whole
from economics.clearing.program import Program
from economics.clearing.solver import Linear, NoneBelow, Solved, minimise
from economics.errors import NotCleared
from economics.market import Array, Index, Mask


@dataclass(frozen=True, slots=True)
class Coalition:
    """A set of sites, and what it could make alone beyond what it is paid. Credits."""

    members: Mask  # (N,)
    value: float
    excess: float


def players(program: Program) -> Index:
    """Sites that have something to sell or to buy; the others never matter."""
    touched = np.diff(program.matrix.indptr) > 0
    return np.unique(program.owner[touched])


def alone(program: Program, members: Mask) -> Program:
    """The programme of these sites with nobody else."""
    inside = members[program.owner]
    crosses = np.asarray(abs(csr_array(program.matrix[~inside])).sum(axis=0)).ravel() > 0
    kept = np.flatnonzero(~crosses)
    return Program(
        matrix=csr_array(program.matrix[inside][:, kept]),
        limit=program.limit[inside],
        owner=program.owner[inside],
        gain=program.gain[kept],
        hours=program.hours[kept],
        whole=program.whole[kept],
        column=program.column[kept],
        payer=program.payer[inside],
        pools=int(np.count_nonzero(inside[: program.pools])),
    )


def coalition_value(program: Program, members: Mask, *, nodes: int) -> float:
    """Largest welfare of these sites with nobody else, credits."""
    return -coalition_optimum(program, members, nodes=nodes).objective


def coalition_optimum(program: Program, members: Mask, *, nodes: int) -> Solved:
    """What these sites would do with nobody else, as a minimisation of minus their welfare."""
    part = alone(program, members)
    return solve_whole(part, nodes=nodes) if part.integral else minimise(linear_of(part))


def coalition_bound(program: Program, members: Mask) -> float:
    """What these sites could make alone if gangs could be split: at least their value, quickly."""
    return -minimise(linear_of(alone(program, members))).objective


def blocking(
    program: Program,
    payoff: Array,
    *,
    least: int = 1,
    nodes: int,
    tolerance: float,
    above: float | None = None,
    sites: Index | None = None,
    prove: bool = False,
) -> Coalition | None:
    """The coalition of at least `least` sites, short of all, with the largest excess over `payoff`.

    None when no coalition's excess is more than `above` (default: `tolerance`); the excess is the
    largest to within `tolerance`, credits. `sites` are those who may leave together (default: the
    players; name them all where a site with nothing to trade is paid or pays something). Raises
    NoneBelow(proved=False) where the node limit comes before any is found, and with `prove` also
    NotCleared where it comes before the found one is proved the largest.
    """
    sites = players(program) if sites is None else sites
    if sites.size - 1 < least:
        return None
    above = tolerance if above is None else above
    try:
        solved = minimise(
            secession(program, payoff, sites, least), nodes=nodes, slack=tolerance, below=-above
        )
    except NoneBelow as nothing:
        if not nothing.proved:
            raise
        return None
    if prove and not solved.proved:
        raise NotCleared("the node limit came before the worst coalition was proved")
    variables = program.gain.size
    members = np.zeros(payoff.shape, dtype=bool)
    members[sites[solved.values[variables:] > 0.5]] = True
    value = float(program.gain @ solved.values[:variables])
    found = Coalition(members, value, value - float(payoff[members].sum()))
    return found if found.excess > above else None


def secession(program: Program, payoff: Array, sites: Index, least: int) -> Linear:
    """The programme with a switch for each site: off, all its rows have a limit of zero."""
    count, variables = sites.size, program.gain.size
    place = np.full(payoff.shape, -1)
    place[sites] = np.arange(count)
    used = np.flatnonzero((np.diff(program.matrix.indptr) > 0) & (program.limit != 0))
    turned_on = csr_array(
        (-program.limit[used], (used, place[program.owner[used]])),
        shape=(program.limit.size, count),
    )
    size = csr_array(np.append(np.zeros(variables), np.ones(count))[None, :])
    return Linear(
        cost=np.concatenate([-program.gain, payoff[sites]]),
        matrix=csr_array(vstack([hstack([program.matrix, turned_on]), size])),
        low=np.append(np.full(program.limit.size, -np.inf), float(least)),
        high=np.append(np.zeros(program.limit.size), float(count - 1)),
        least=np.zeros(variables + count),
        most=np.append(np.where(program.whole, 1.0, np.inf), np.ones(count)),
        whole=np.append(program.whole, np.ones(count, dtype=bool)),
    )
