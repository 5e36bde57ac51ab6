"""The linear span of coalitions, in exact fractions: no tolerance decides a rank.

Once the payoff of some coalitions is settled, so is that of every coalition in their span.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from economics.market import Index, Mask

Row = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Rows in reduced echelon form: each has a one at its pivot, where all others have nothing."""

    sites: int
    rows: tuple[tuple[int, Row], ...] = ()  # (pivot, row)

    @property
    def rank(self) -> int:
        return len(self.rows)

    def left_of(self, members: Mask) -> Row:
        """What of a coalition the span does not reach; all zero when it is in the span."""
        left = [Fraction(int(inside)) for inside in members]
        for pivot, row in self.rows:
            factor = left[pivot]
            if factor:
                left = [mine - factor * theirs for mine, theirs in zip(left, row, strict=True)]
        return tuple(left)

    def misses(self, members: Mask) -> Mask:
        """Which coalitions (M, N) are no linear combination of those in the span, (M,)."""
        missed: Mask = (members @ self.normals() != 0).any(axis=1)
        return missed

    def joined_by(self, members: Mask) -> Span:
        """The span with one more coalition; itself when that is in it already."""
        left = self.left_of(members)
        pivot = next((at for at, entry in enumerate(left) if entry), None)
        if pivot is None:
            return self
        new = tuple(entry / left[pivot] for entry in left)
        cleared = tuple(
            (at, tuple(mine - row[pivot] * theirs for mine, theirs in zip(row, new, strict=True)))
            for at, row in self.rows
        )
        return Span(self.sites, (*cleared, (pivot, new)))

    def normals(self) -> Index:
        """Whole-number vectors, (N, N - rank): a coalition is in the span iff all give zero."""
        pivots = {pivot for pivot, _ in self.rows}
        columns = []
        for free in range(self.sites):
            if free in pivots:
                continue
            normal = [Fraction(0)] * self.sites
            normal[free] = Fraction(1)
            for pivot, row in self.rows:
                normal[pivot] = -row[free]
            whole = lcm(*(entry.denominator for entry in normal))
            columns.append([int(entry * whole) for entry in normal])
        found: Index = np.array(columns, dtype=np.int64).reshape(len(columns), self.sites).T
        return found
