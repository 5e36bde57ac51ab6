"""Which coalition objects most to payoffs: looked up where all can be listed, searched beyond.

The *excess* of a coalition is what it could make alone less what it is paid.
"""

from __future__ import annotations

from typing import Protocol

from economics.market import Array, Index
from economics.sharing.coalitions import Coalition
from economics.sharing.game import Game
from economics.sharing.listed import Listed
from economics.sharing.sought import Sought
from economics.sharing.tables import CoalitionGame

LISTED = 12  # sites up to which all coalitions are listed


class Objections(Protocol):
    """The proper coalitions of a game, by their excess over some payoffs."""

    def worst(self, payoff: Array, *, least: int = 1) -> Coalition | None:
        """The proper coalition of at least `least` sites of largest excess; None: there is none."""

    def outside(self, payoff: Array, normals: Index, above: float) -> list[Coalition]:
        """Some coalitions outside a span with an excess above `above`, the worst first.

        `normals` are those of `economics.sharing.span.Span`. Empty: there is none.
        """


def objections_of(game: CoalitionGame) -> Objections:
    """All coalitions up to LISTED sites; beyond, those that a market's oracle finds."""
    if len(game.names) <= LISTED or not isinstance(game, Game):
        return Listed.of(game)
    return Sought(game)
