"""The parts a market falls into when no job of one set of sites can run at another's.

A coalition's value is the sum over the parts, so sites that never trade with each other never
multiply the work, and sites with nothing to trade at all are in no part.

Axes: M sites of a part. A coalition of a part is a whole number whose bit i is the part's site i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from economics.clearing.program import Program
from economics.market import Index, Mask
from economics.sharing.coalitions import coalition_optimum
from economics.sharing.warm import Relaxed, Warm

CHAINED_UP_TO = 12  # sites of a part up to which its coalitions are solved in chains
CHAIN = 5  # sites that take turns within a chain: it has 2^CHAIN coalitions
SETTLED = 1e-9  # relative gap below which a whole-number optimum counts as the value itself


class Part:
    """Sites that trade with each other, and what their coalitions make alone."""

    def __init__(self, program: Program, sites: Index, *, nodes: int) -> None:
        self.program = program  # of these sites only; owners are numbered within the part
        self.sites = sites  # (M,) their numbers in the market
        self.doubt = 0.0  # credits by which a value found so far may be too small
        self._numbers: tuple[int, ...] = tuple(sites.tolist())
        self._first = self._numbers == tuple(range(len(self._numbers)))
        self._all = (1 << len(self._numbers)) - 1
        self._nodes = nodes
        self._known: dict[int, float] = {0: 0.0}
        self._warm: Warm | None = None
        self._order: tuple[int, ...] | None = None

    @property
    def players(self) -> int:
        """The sites of the part as a coalition of the market."""
        return sum(1 << site for site in self._numbers)

    @property
    def chained(self) -> bool:
        """Whether coalitions are solved in chains, not one by one."""
        return self.sites.size <= CHAINED_UP_TO and not self.program.integral

    def within(self, mask: int) -> int:
        """The part's coalition of a coalition of the market."""
        if self._first:  # the market's first sites: numbered alike in both
            return mask & self._all
        return sum((mask >> site & 1) << at for at, site in enumerate(self._numbers))

    def value(self, mask: int) -> float:
        """What a coalition of the part makes alone, credits; asked twice, solved once.

        Its digits depend on the coalition alone, not on what was asked before: a coalition is
        solved from the optimum of all sites, or at its place in a chain that starts there.
        """
        if mask not in self._known:
            if self.chained and not self._extreme(mask):
                self._solve_chain(mask)
            else:
                self._known[mask] = self._settled(mask, self._solver().alone(mask))
        return self._known[mask]

    def walk(self, masks: Sequence[int], seen: dict[int, float]) -> list[float]:
        """Values of coalitions that differ little from one to the next; `seen` is added to."""
        if self.sites.size <= CHAINED_UP_TO or self.program.integral:
            return [self.value(mask) for mask in masks]
        seen.setdefault(0, 0.0)
        started = False
        for mask in masks:
            if mask not in seen:
                warm = self._solver()
                seen[mask] = (warm.next(mask) if started else warm.alone(mask)).value
                started = True
        return [seen[mask] for mask in masks]

    def order(self) -> tuple[int, ...]:
        """The sites, those first whose leaving all others takes the solver the fewest steps.

        The first take turns most often in a chain, which halves its steps.
        """
        if self._order is None:
            sites, steps = range(self.sites.size), []
            for site in sites:
                mask = self._all ^ (1 << site)
                relaxed = self._solver().alone(mask)
                steps.append(self._solver().steps)
                if mask not in self._known:
                    self._known[mask] = self._settled(mask, relaxed)
            self._order = tuple(sorted(sites, key=lambda site: (steps[site], site)))
        return self._order

    def _solve_chain(self, mask: int) -> None:
        """The values of all coalitions of the chain that this one is in, in Gray-code order."""
        turns = self.order()[:CHAIN]
        coalitions = all_of(turns)
        base = mask & ~coalitions[-1]
        warm, started = self._solver(), False
        for code in gray_codes(len(turns)):
            link = base | coalitions[code]
            if self._extreme(link):
                continue
            relaxed = warm.next(link) if started else warm.alone(link)
            self._known[link], started = relaxed.value, True

    def _settled(self, mask: int, relaxed: Relaxed) -> float:
        """The value of a coalition whose relaxation is solved."""
        if relaxed.whole:
            return relaxed.value
        members: Mask = np.array([mask >> at & 1 for at in range(self.sites.size)], dtype=bool)
        found = coalition_optimum(self.program, members, nodes=self._nodes)
        doubt = found.objective - found.bound
        if doubt > SETTLED * abs(found.objective):
            self.doubt = max(self.doubt, doubt)
        return -found.objective

    def _extreme(self, mask: int) -> bool:
        """Nobody, one site, all but one or all: these are asked for singly, and in no chain."""
        size = mask.bit_count()
        return size <= 1 or size >= self.sites.size - 1

    def _solver(self) -> Warm:
        if self._warm is None:
            self._warm = Warm(self.program, self.sites.size)
        return self._warm


def parts_of(program: Program, *, nodes: int) -> tuple[Part, ...]:
    """The parts of a market, by their first site."""
    touched = np.flatnonzero(np.diff(program.matrix.indptr) > 0)
    matrix, owner = csr_array(program.matrix[touched]), program.owner[touched]
    if not owner.size:
        return ()
    entries = matrix.tocoo()
    joins = csr_array(
        (np.ones(entries.nnz), (owner[entries.row], entries.col)),
        shape=(int(owner.max()) + 1, program.gain.size),
    )
    _, label = connected_components(joins @ joins.T, directed=False)
    parts = []
    for at in np.unique(label[owner]).tolist():
        sites = np.unique(owner[label[owner] == at])
        rows = np.flatnonzero(label[owner] == at)
        columns = np.unique(entries.col[label[owner[entries.row]] == at])
        part = Program(
            matrix=csr_array(matrix[rows][:, columns]),
            limit=program.limit[touched[rows]],
            owner=np.searchsorted(sites, owner[rows]).astype(np.int64),
            gain=program.gain[columns],
            hours=program.hours[columns],
            whole=program.whole[columns],
            column=program.column[columns],
            payer=program.payer[touched[rows]],
            pools=int(np.count_nonzero(touched[rows] < program.pools)),
        )
        parts.append(Part(part, sites, nodes=nodes))
    return tuple(sorted(parts, key=lambda part: int(part.sites[0])))


def all_of(sites: Sequence[int]) -> list[int]:
    """Every coalition of some sites; bit i of its place in the list stands for the i-th site."""
    masks = [0]
    for site in sites:
        masks += [mask | 1 << site for mask in masks]
    return masks


def gray_codes(bits: int) -> Iterator[int]:
    """All numbers of so many bits, from the largest code on, one bit changed at each step."""
    for number in range((1 << bits) - 1, -1, -1):
        yield number ^ (number >> 1)
