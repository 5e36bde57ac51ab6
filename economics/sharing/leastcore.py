"""The least core: payoffs at which the largest excess of any coalition is as small as it can be.

Maschler, Peleg and Shapley (1979). A least excess above zero says that the core is empty, and what
every remedy leaves to the coalition that objects most; below zero it says how much room there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from economics.errors import NotCleared
from economics.faces import Polyhedron, nearest
from economics.market import Array
from economics.sharing.coalitions import Coalition
from economics.sharing.excesses import NEWS, SAME, Lowest, Search
from economics.sharing.objections import Objections, objections_of
from economics.sharing.tables import CoalitionGame

MOST_ROUNDS = 200  # of adding coalitions to the projection


@dataclass(frozen=True, slots=True)
class LeastCore:
    """The least excess, and one point that has it. Credits."""

    excess: float
    payoff: Array  # (N,) sums to the value of all together; no site has less than alone


def least_core(
    game: CoalitionGame, target: Array, objections: Objections | None = None
) -> LeastCore:
    """The least excess, and the point of the least core nearest (Euclidean) to `target` (N,).

    With less than two sites nobody can object, and the excess is 0. Raises NotCleared as
    `economics.sharing.nucleolus.nucleolus` does.
    """
    search = Search.of(objections or objections_of(game), game.alone, game.grand)
    if search.span.rank == len(game.names):
        return LeastCore(0.0, search.payoff())
    lowest = search.lowest()
    return LeastCore(lowest.excess, _nearest(search, lowest, target))


def _nearest(search: Search, lowest: Lowest, target: Array) -> Array:
    """Cuts are added to the face on which the holding coalitions have exactly the least excess."""
    span, holding = search.span, []
    for coalition in lowest.holding:  # dependent equations add nothing but rounding
        wider = span.joined_by(coalition.members)
        if wider.rank > span.rank:
            span = wider
            holding.append(coalition)
    known = {one.members.tobytes() for one in holding}
    others = [one for one in search.rows if one.members.tobytes() not in known]
    known |= {one.members.tobytes() for one in others}
    for _ in range(MOST_ROUNDS):
        payoff = _projected(search, lowest.excess, holding, others, target)
        above = lowest.excess + NEWS * search.size
        objecting = search.objections.outside(payoff, span.normals(), above)
        fresh = [one for one in objecting if one.members.tobytes() not in known]
        if not fresh:  # what a coalition that was asked still objects to is rounding
            return payoff
        others += fresh
        known |= {one.members.tobytes() for one in fresh}
    raise NotCleared(f"{MOST_ROUNDS} rounds of objections did not settle the payoffs")


def _projected(
    search: Search,
    excess: float,
    holding: list[Coalition],
    others: list[Coalition],
    target: Array,
) -> Array:
    """The nearest payoffs that give these coalitions their value less the excess, or more."""
    sites = target.size
    rows = np.array([one.members for one in [*holding, *others]], dtype=float).reshape(-1, sites)
    owed = np.array([one.value - excess for one in [*holding, *others]]) - rows @ search.alone
    [(everybody, grand)] = search.settled
    tight = np.arange(len(owed) + 1) <= len(holding)
    room = np.where(tight, 0.0, SAME)
    space = Polyhedron(
        matrix=csr_array(np.vstack([everybody, rows])),
        least=np.append(max(grand - search.alone.sum(), 0.0), owed) / search.size - room,
        tight=tight,
        fixed=np.zeros(sites, dtype=bool),
    )
    found: Array = nearest(space, (target - search.alone) / search.size) * search.size
    return found + search.alone
