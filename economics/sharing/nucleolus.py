"""The nucleolus: the payoffs at which the largest complaint is least, then the next, and so on.

Schmeidler (1969) defined it; the sequence of linear programmes is that of Maschler, Peleg and
Shapley (1979). After each, the coalitions that hold the optimum are settled, and with them their
span; it ends when the span is everything, after at most N - 1 programmes. Kohlberg (1971) gives
the proof from outside, in `economics.sharing.balance`.
"""

from __future__ import annotations

from dataclasses import dataclass

from economics.errors import NotCleared
from economics.market import Array
from economics.sharing.excesses import SAME, Lowest, Search
from economics.sharing.objections import Objections, objections_of
from economics.sharing.tables import CoalitionGame, mask_of


@dataclass(frozen=True, slots=True)
class Level:
    """Coalitions whose excess cannot be lower once those of the levels before are as they are."""

    excess: float  # credits
    coalitions: tuple[int, ...]  # masks, ascending; with those before they are balanced


@dataclass(frozen=True, slots=True)
class Nucleolus:
    """Payoffs, and the levels of excess that leave no other. Credits."""

    payoff: Array  # (N,) sums to the value of all together
    least_excess: float  # of the least core; above 0 the core is empty. 0 with less than two sites
    levels: tuple[Level, ...]  # excess descends


def nucleolus(game: CoalitionGame, objections: Objections | None = None) -> Nucleolus:
    """The nucleolus: in the core whenever that is not empty, else in the least core.

    Exact over all coalitions up to 12 sites; beyond, coalitions are added as the oracle finds
    them, to the same end. No site has less than alone. Raises NotCleared when the sites make more
    one by one than all together, or when a solver proves nothing. `objections` are the game's own
    when left out.
    """
    search = Search.of(objections or objections_of(game), game.alone, game.grand)
    levels: list[Level] = []
    while search.span.rank < len(game.names):
        before = search.span.rank
        lowest = search.lowest()
        for coalition in lowest.holding:
            search.settle(coalition, lowest.excess)
        if search.span.rank == before:
            raise NotCleared("no coalition holds the least excess")
        levels = _joined(levels, lowest, SAME * search.size)
    return Nucleolus(search.payoff(), levels[0].excess if levels else 0.0, tuple(levels))


def _joined(levels: list[Level], lowest: Lowest, same: float) -> list[Level]:
    """The levels with one more, or with the last one wider where the excess is the same."""
    masks = {mask_of(coalition.members) for coalition in lowest.holding}
    if levels and levels[-1].excess - lowest.excess <= same:
        last = levels.pop()
        return [*levels, Level(last.excess, tuple(sorted(masks | set(last.coalitions))))]
    return [*levels, Level(lowest.excess, tuple(sorted(masks)))]
