"""Coalitions that object, found by one programme with a binary for each site.

Beyond a dozen sites nobody lists 2^N coalitions. The oracle of `economics.sharing.coalitions` asks
for the one of largest excess; here it can also be told to leave out a whole span: for at least one
normal of the span, the coalition's product with it must not be zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import block_array, csr_array

from economics.clearing.solver import Linear, NoneBelow, minimise
from economics.errors import NotCleared
from economics.market import Array, Index, Mask
from economics.sharing.coalitions import Coalition, secession
from economics.sharing.game import Game
from economics.sharing.listed import Listed
from economics.sharing.tables import mask_of

EXACT = 1e-9  # of the value of all together: how much less than the largest an excess may be


class Sought:
    """The coalitions of a market: those met before are asked first, then all, by one search.

    Values are quick to find one by one, searches are not. So from the worst coalitions met we go
    on to those that differ from them by one site, until that leads to no worse ones; only where
    nobody met objects, a search says who does, or that nobody does.
    """

    def __init__(self, game: Game) -> None:
        self._game = game
        self._program = game.program
        self._met = Listed(np.zeros((0, game.sites), dtype=bool), np.zeros(0))
        self._masks: set[int] = set()  # of those met
        self._left: set[int] = set()  # met, and all who differ from it by one site

    def worst(self, payoff: Array, *, least: int = 1) -> Coalition | None:
        """The proper coalition of at least `least` sites of largest excess; None: there is none.

        Raises NotCleared at the node limit, as all here.
        """
        if payoff.size <= least:
            return None
        return self._found(self._question(payoff, least), payoff, above=-np.inf)

    def outside(self, payoff: Array, normals: Index, above: float) -> list[Coalition]:
        """Some coalitions outside a span with an excess above `above`; empty: there is none."""
        self._climb(payoff, normals)
        if known := self._met.outside(payoff, normals, above):
            return known
        question = self._question(payoff, 1)
        if 0 < normals.shape[1] < payoff.size - 1:  # else every proper coalition is outside
            question = _leaving_out(question, normals)
        found = self._found(question, payoff, above)
        if found is None:
            return []
        self._meet(found.members[None, :])
        return [found]

    def _climb(self, payoff: Array, normals: Index) -> None:
        """Meet the neighbours of the worst coalitions met, until all of them have been left."""
        while True:
            known = self._met.outside(payoff, normals, -np.inf)
            members = next((c.members for c in known if mask_of(c.members) not in self._left), None)
            if members is None:
                return
            self._left.add(mask_of(members))
            near = members ^ np.eye(members.size, dtype=bool)
            size = near.sum(axis=1)
            self._meet(near[(size > 0) & (size < members.size)])

    def _meet(self, coalitions: Mask) -> None:
        """Write down coalitions (M, N) with their values."""
        masks = [mask_of(row) for row in coalitions]
        new = [at for at, mask in enumerate(masks) if mask not in self._masks]
        self._masks.update(masks)
        value = np.array([self._game.value(masks[at]) for at in new], dtype=float)
        met = self._met
        self._met = Listed(np.vstack([met.members, coalitions[new]]), np.append(met.value, value))

    def _question(self, payoff: Array, least: int) -> Linear:
        return secession(self._program, payoff, np.arange(payoff.size), least)

    def _found(self, question: Linear, payoff: Array, above: float) -> Coalition | None:
        slack = EXACT * max(1.0, abs(self._game.grand))
        try:
            solved = minimise(question, nodes=self._game.nodes, slack=slack, below=-above)
        except NoneBelow as nothing:
            if nothing.proved:
                return None
            raise
        if not solved.proved:
            raise NotCleared("the node limit came before the worst coalition was proved")
        first = self._program.gain.size
        members = solved.values[first : first + payoff.size] > 0.5
        value = self._game.value(mask_of(members))  # to its last digit: it will be settled on
        excess = value - float(payoff[members].sum())
        return Coalition(members, value, excess) if excess > above else None


def _leaving_out(question: Linear, normals: Index) -> Linear:
    """One of two binaries for each normal says that its product is at least 1, or at most -1."""
    sites, count = normals.shape
    columns = question.cost.size
    first = question.least.size - sites
    product = csr_array((count, columns)).tolil()
    product[:, first:] = normals.T
    product = csr_array(product)
    below = np.minimum(normals, 0).sum(axis=0).astype(float)  # the least the product can be
    above = np.maximum(normals, 0).sum(axis=0).astype(float)
    positive, negative = _diagonal(below - 1.0), _diagonal(-above - 1.0)
    one = csr_array(np.ones((1, count)))
    matrix = block_array(
        [
            [question.matrix, None, None],
            [product, positive, None],
            [-product, None, negative],
            [None, one, one],
        ]
    )
    return replace(
        question,
        cost=np.append(question.cost, np.zeros(2 * count)),
        matrix=csr_array(matrix),
        low=np.concatenate([question.low, below, -above, [1.0]]),
        high=np.append(question.high, np.full(2 * count + 1, np.inf)),
        least=np.append(question.least, np.zeros(2 * count)),
        most=np.append(question.most, np.ones(2 * count)),
        whole=np.append(_whole(question), np.ones(2 * count, dtype=bool)),
    )


def _diagonal(entries: Array) -> csr_array:
    at = np.arange(entries.size)
    return csr_array((entries, (at, at)))


def _whole(question: Linear) -> Mask:
    return np.zeros(question.cost.shape, dtype=bool) if question.whole is None else question.whole
