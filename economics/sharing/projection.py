"""The point of the core nearest to payoffs that are not in it, such as the Shapley value.

Where the core is empty, the nearest point at which no coalition of two or more has more than the
least excess. The steps are those of the core repair: meet all objections, ask who objects now.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.errors import NotCleared
from economics.market import Array
from economics.sharing.coalitions import Coalition
from economics.sharing.objections import Objections, objections_of
from economics.sharing.repair import agree
from economics.sharing.span import Span
from economics.sharing.tables import CoalitionGame

MOST_ROUNDS = 200  # of adding those who object
CLOSE = 1e-8  # of the value of all together: excesses below this are rounding


@dataclass(frozen=True, slots=True)
class Projected:
    """Stable payoffs, and what is left to the coalition that objects most. Credits."""

    payoff: Array  # (N,) sums to what the target sums to; no site has less than alone
    least_excess: float  # of coalitions of two or more; 0 = in the core


def projected(
    game: CoalitionGame, target: Array, objections: Objections | None = None
) -> Projected:
    """The stable payoffs nearest (Euclidean) to `target` (N,), credits.

    `target` sums to the value of all together. Raises NotCleared when that does not give every
    site its own value, or a solver proves nothing.
    """
    tolerance = CLOSE * max(1.0, abs(game.grand))
    if target.sum() < game.alone.sum() - 100 * tolerance:
        raise NotCleared("the payoffs sum to less than the sites make one by one")
    known, alone = objections or objections_of(game), game.alone
    everybody = np.ones(target.shape, dtype=bool)
    normals = Span(target.size).joined_by(everybody).normals()  # all proper coalitions
    cuts: list[Coalition] = []
    for _ in range(MOST_ROUNDS):
        payoff, least = agree(target, alone, cuts, tolerance)
        fresh = known.outside(payoff, normals, least + tolerance)
        if not fresh:
            return Projected(payoff, least)
        cuts += fresh
    raise NotCleared(f"{MOST_ROUNDS} rounds of objections did not settle the payoffs")
