"""The least largest excess of the coalitions whose payoff is still open: one linear programme.

    minimise e  with  x(S) + e >= v(S)      every coalition S outside the span of the settled ones
                      x(S) = what was settled for S
                      x_i >= v(i)

Rows are written only for coalitions that object; whoever objects to the answer is added until
nobody does, so a game of any size is solved over a few dozen rows: constraint generation, as
Hallefjord, Helming and Joernsten (1995) use it for the nucleolus of implicitly given games.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise
from economics.errors import NotCleared
from economics.market import Array, Mask
from economics.sharing.coalitions import Coalition
from economics.sharing.objections import Objections
from economics.sharing.span import Span

SAME = 1e-9  # of the size of the game: excesses this near are one
NEWS = 1e-8  # of the size: what an objection must exceed the excess found by; rows in it do not
SHORT = 1e-3  # of the size: what all together may make less than one by one, by solvers' gaps
HELD = 1e-7  # multipliers above this hold their row; those of one programme sum to one
MOST_ROUNDS = 500  # of adding those who object


@dataclass(frozen=True, slots=True)
class Lowest:
    """An optimum: nobody whose payoff is open has an excess above `excess`."""

    payoff: Array  # (N,) credits
    excess: float  # credits
    holding: tuple[Coalition, ...]  # with exactly this excess at every optimum


@dataclass(slots=True)
class Search:
    """The coalitions met so far, and those whose payoff is settled."""

    objections: Objections
    alone: Array  # (N,)
    size: float  # credits; the programme is solved in units of it
    room: float  # in that unit: how far below its own value a site has to be, by solvers' gaps
    settled: list[tuple[Mask, float]]  # coalition, and the credits it gets
    span: Span
    rows: list[Coalition] = field(default_factory=list)

    @classmethod
    def of(cls, objections: Objections, alone: Array, grand: float) -> Search:
        """Nothing is settled but the payoff of all together; raises NotCleared without a payoff
        that gives every site its own value."""
        size = max(abs(grand), float(np.abs(alone).max(initial=0.0))) or 1.0
        short = (float(alone.sum()) - grand) / size
        if short > SHORT:
            raise NotCleared("the sites make more one by one than all together")
        everybody = np.ones(alone.shape, dtype=bool)
        return cls(
            objections=objections,
            alone=alone,
            size=size,
            room=max(short, 0.0),
            settled=[(everybody, grand)] if alone.size else [],
            span=Span(alone.size).joined_by(everybody),
        )

    def settle(self, coalition: Coalition, excess: float) -> None:
        """From now on the coalition gets its value less the excess, if that is news."""
        wider = self.span.joined_by(coalition.members)
        if wider.rank > self.span.rank:
            self.span = wider
            self.settled.append((coalition.members, coalition.value - excess))

    def payoff(self) -> Array:
        """The payoffs, when all are settled, (N,)."""
        sites = self.alone.size
        members = np.array([row for row, _ in self.settled], dtype=float).reshape(sites, sites)
        found: Array = np.linalg.solve(members, np.array([amount for _, amount in self.settled]))
        return found

    def lowest(self) -> Lowest:
        """Solve, and add who objects, until nobody does."""
        normals = self.span.normals()
        self.rows = self._open([*self.rows, *self._single()])
        for _ in range(MOST_ROUNDS):
            found = self._solved()
            above = found.excess + NEWS * self.size
            fresh = self._add(self.objections.outside(found.payoff, normals, above))
            if not fresh:
                return found
        raise NotCleared(f"{MOST_ROUNDS} rounds of objections did not settle the payoffs")

    def _single(self) -> list[Coalition]:
        """Every site alone: one is outside the span while any is, which bounds the programme."""
        sites = np.eye(self.alone.size, dtype=bool)
        return [Coalition(row, float(self.alone[at]), 0.0) for at, row in enumerate(sites)]

    def _open(self, coalitions: list[Coalition]) -> list[Coalition]:
        """Those whose payoff is not settled, each once."""
        once = {one.members.tobytes(): one for one in coalitions}
        members = np.array([one.members for one in once.values()])
        kept = np.flatnonzero(self.span.misses(members))
        found = list(once.values())
        return [found[at] for at in kept]

    def _add(self, coalitions: list[Coalition]) -> bool:
        """Whether any of them is new."""
        known = {row.members.tobytes() for row in self.rows}
        fresh = [one for one in coalitions if one.members.tobytes() not in known]
        self.rows += fresh
        return bool(fresh)

    def _solved(self) -> Lowest:
        """The programme over the rows so far, in what each site has above its own value."""
        sites, count = self.alone.size, len(self.rows)
        # A settled payoff is what it is: a bound on it would only meet its rounding.
        unsettled = self.span.misses(np.eye(sites, dtype=bool))
        room = self.room + SAME * len(self.settled)  # every settled one adds its rounding
        open_rows = np.array([row.members for row in self.rows], dtype=float).reshape(-1, sites)
        closed = np.array([members for members, _ in self.settled], dtype=float)
        owed = np.array([row.value for row in self.rows]) - open_rows @ self.alone
        given = np.array([amount for _, amount in self.settled]) - closed @ self.alone
        matrix = np.vstack(
            [np.c_[open_rows, np.ones(count)], np.c_[closed, np.zeros(len(self.settled))]]
        )
        low = np.concatenate([owed, given]) / self.size
        solved = minimise(
            Linear(
                cost=np.append(np.zeros(sites), 1.0),
                matrix=csr_array(matrix),
                low=low,
                high=np.append(np.full(count, np.inf), given / self.size),
                least=np.append(np.where(unsettled, -room, -np.inf), -np.inf),
                most=np.full(sites + 1, np.inf),
            )
        )
        held = np.flatnonzero(solved.row_dual[:count] > HELD)
        return Lowest(
            payoff=solved.values[:sites] * self.size + self.alone,
            excess=solved.objective * self.size,
            holding=tuple(self.rows[at] for at in held),
        )
