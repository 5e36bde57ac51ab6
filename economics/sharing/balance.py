"""Whether payoffs are the nucleolus, proved from outside by Kohlberg's criterion (1971).

Payoffs are the nucleolus if and only if at every level of excess the coalitions at or above it,
with the sites that have no more than their own value, are *balanced*: positive weights on the
coalitions, and non-negative ones on those sites, cover every site equally. Coalitions in the span
of balanced ones keep them balanced, so only those that widen the span are looked at, and it ends
when the span is everything.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise
from economics.errors import NotCleared
from economics.market import Array, Mask
from economics.sharing.span import Span
from economics.sharing.tables import CoalitionGame, memberships

SAME_LEVEL = 1e-7  # of the size of the game: excesses this near are one level


def balanced(coalitions: Mask, bearing: Mask | None = None) -> bool:
    """Whether weights of at least one on `coalitions` (M, N) cover every site equally.

    `bearing` (N,) are sites that may have a weight alone, of zero or more.
    """
    count, sites = coalitions.shape
    single = np.eye(sites)[np.zeros(sites, dtype=bool) if bearing is None else bearing]
    columns = np.vstack([coalitions.astype(float), single, -np.ones((1, sites))])
    try:
        minimise(
            Linear(
                cost=np.ones(columns.shape[0]),
                matrix=csr_array(columns.T),
                low=np.zeros(sites),
                high=np.zeros(sites),
                least=np.append(np.ones(count), np.zeros(columns.shape[0] - count)),
                most=np.full(columns.shape[0], np.inf),
            )
        )
    except NotCleared as reason:
        if "infeasible" in reason.status:
            return False
        raise
    return True


def is_nucleolus(game: CoalitionGame, payoff: Array) -> bool:
    """Kohlberg's criterion over all coalitions of a game; for games whose values can be listed."""
    members, value = memberships(len(game.names))[1:-1], game.values()[1:-1]
    size = max(float(np.abs(game.values()).max(initial=0.0)), 1e-12)
    same = SAME_LEVEL * size
    if abs(payoff.sum() - game.grand) > same or (payoff < game.alone - same).any():
        return False
    bearing = payoff <= game.alone + same
    excess = value - members @ payoff
    order = np.argsort(-excess, kind="stable")
    span, taken, at = Span(payoff.size).joined_by(np.ones(payoff.shape, dtype=bool)), [], 0
    while span.rank < payoff.size:
        level = order[at:][excess[order[at:]] >= excess[order[at]] - same]
        fresh = level[span.misses(members[level])]
        at += level.size
        if not fresh.size:
            continue
        taken += fresh.tolist()
        if not balanced(members[taken], bearing):
            return False
        for row in fresh:
            span = span.joined_by(members[row])
    return True
