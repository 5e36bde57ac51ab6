"""What a sharing rule asks of a game of coalitions, and a game that is given as a table.

A *mask* is a coalition as a whole number: bit i is set when site i takes part. Axes: N sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from economics.market import Array, Mask


class CoalitionGame(Protocol):
    """The value of each coalition, credits."""

    @property
    def names(self) -> tuple[str, ...]: ...  # (N,)
    @property
    def grand(self) -> float: ...  # value of all together
    @property
    def alone(self) -> Array: ...  # (N,) value of each site alone
    def value(self, mask: int) -> float: ...
    def values(self) -> Array: ...  # (2^N,) by mask


def mask_of(members: Mask) -> int:
    """The coalition as a whole number."""
    return sum(1 << at for at in np.flatnonzero(members).tolist())


def memberships(sites: int) -> Mask:
    """Who is in each coalition, (2^N, N): row m is the coalition of mask m."""
    found: Mask = (np.arange(1 << sites)[:, None] >> np.arange(sites)) % 2 == 1
    return found


@dataclass(frozen=True, slots=True)
class TableGame:
    """A game whose values are written down: for examples, and for what is no market at all."""

    names: tuple[str, ...]
    table: Array  # (2^N,) credits by mask; the empty coalition is worth nothing

    @classmethod
    def of(cls, names: str, values: Mapping[str, float]) -> TableGame:
        """One letter for each site; coalitions as their letters, 0 where none is given.

        >>> TableGame.of("AB", {"A": 1.0, "AB": 3.0}).table.tolist()
        [0.0, 1.0, 0.0, 3.0]
        """
        table = np.zeros(1 << len(names))
        for letters, value in values.items():
            table[sum(1 << names.index(letter) for letter in letters)] = value
        return cls(tuple(names), table)

    @property
    def grand(self) -> float:
        return float(self.table[-1])

    @property
    def alone(self) -> Array:
        single: Array = self.table[1 << np.arange(len(self.names))]
        return single

    def value(self, mask: int) -> float:
        return float(self.table[mask])

    def values(self) -> Array:
        return self.table
