"""Coalitions that are written down with their values, and which of them object most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index, Mask
from economics.sharing.coalitions import Coalition
from economics.sharing.tables import CoalitionGame, memberships

AT_ONCE = 24  # objections handed out together


@dataclass(frozen=True, slots=True)
class Listed:
    """All proper coalitions with their values."""

    members: Mask  # (M, N)
    value: Array  # (M,) credits

    @classmethod
    def of(cls, game: CoalitionGame) -> Listed:
        members = memberships(len(game.names))
        return cls(members[1:-1], game.values()[1:-1])

    def worst(self, payoff: Array, *, least: int = 1) -> Coalition | None:
        """Of equal ones the smallest, then the first by mask."""
        size = self.members.sum(axis=1)
        at = np.flatnonzero(size >= least)
        if not at.size:
            return None
        excess = self.value[at] - self.members[at] @ payoff
        near = excess >= excess.max() - 1e-12 * max(1.0, float(np.abs(self.value).max()))
        first = np.flatnonzero(near)[np.argmin(size[at][near])]
        return self._coalition(int(at[first]), float(excess[first]))

    def outside(self, payoff: Array, normals: Index, above: float) -> list[Coalition]:
        excess = self.value - self.members @ payoff
        at = np.flatnonzero((excess > above) & (self.members @ normals != 0).any(axis=1))
        order = at[np.argsort(-excess[at], kind="stable")][:AT_ONCE]
        return [self._coalition(int(row), float(excess[row])) for row in order]

    def _coalition(self, at: int, excess: float) -> Coalition:
        return Coalition(self.members[at], float(self.value[at]), excess)
