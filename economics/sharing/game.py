"""The game of a market: what every coalition of its sites could make without the others.

Axes, used in every shape comment:  N sites. A coalition is a whole number whose bit i is site i.
Units: credits per round, or per epoch where a game is made of several rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.sparse import block_diag, csr_array

from economics.book import Book
from economics.clearing.program import Program, program_of
from economics.errors import BadBook, Problem
from economics.market import Array, Index
from economics.sharing.coalitions import Coalition, blocking
from economics.sharing.parts import CHAIN, Part, all_of, parts_of
from economics.sharing.warm import bits

MOST_LISTED = 16  # sites up to which every coalition's value may be asked for at once


@dataclass(eq=False)
class Game:
    """A market as its sites could share it, or several rounds of one side by side.

    The value of a coalition is the sum over the rounds. Values are found when asked for, kept in
    `known`, and may be handed in there, from another process for example: the game is then
    identified by `sha256` and the coalition by its number.
    """

    names: tuple[str, ...]  # (N,)
    programs: tuple[Program, ...] = field(repr=False)  # one a round; owners: places in `names`
    sha256: str  # of the book, or of what the game was made from
    nodes: int  # of branch and bound for each whole-number programme
    known: dict[int, float] = field(default_factory=dict, repr=False)  # {coalition: credits}
    parts: tuple[Part, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.parts = tuple(
            part for program in self.programs for part in parts_of(program, nodes=self.nodes)
        )
        self._blocks = tuple(_joined([part.players for part in self.parts]))
        self._players = sum(self._blocks)
        self._given = frozenset((0, *self.known))

    @property
    def sites(self) -> int:
        """N"""
        return len(self.names)

    @property
    def players(self) -> int:
        """The coalition of all sites with something to sell or to buy; the others never matter."""
        return self._players

    @property
    def blocks(self) -> tuple[int, ...]:
        """Coalitions that never trade with each other and together are the players."""
        return self._blocks

    @property
    def everybody(self) -> int:
        """The coalition of all N sites."""
        return (1 << self.sites) - 1

    @property
    def grand(self) -> float:
        """v(N), credits."""
        return self.value(self.everybody)

    @property
    def alone(self) -> Array:
        """What each site makes alone, (N,) credits."""
        return np.array([self.value(1 << site) for site in range(self.sites)])

    @property
    def doubt(self) -> float:
        """Credits by which a value found here may be too small: 0 unless gangs were cut short."""
        return float(sum(part.doubt for part in self.parts))

    def value(self, mask: int) -> float:
        """What a coalition makes alone, credits; 0 for nobody.

        Raises NotCleared where the solver proves nothing.
        """
        found = self.known.get(mask)
        if found is None:
            found = sum((self._of_block(mask & block) for block in self._blocks), start=0.0)
            self.known[mask] = found
        return found

    def values(self) -> Array:
        """The values of all coalitions by number, (2^N,); raises BadBook beyond 16 sites."""
        if self.sites > MOST_LISTED:
            raise BadBook((Problem("sites", _too_many(self.sites)),))
        total = np.zeros(1 << self.sites)
        for block in self._blocks:
            total += self.block_values(block)[_compressed(block, self.sites)]
        return total

    def block_values(self, block: int) -> Array:
        """The values of all coalitions of a block by number within it, (2^M,)."""
        members = list(bits(block))
        if len(members) > MOST_LISTED:
            raise BadBook((Problem("sites", _too_many(len(members))),))
        return np.array([self._of_block(mask) for mask in all_of(members)])

    def walk(self, masks: Sequence[int], seen: dict[int, dict[int, float]]) -> Array:
        """Values of coalitions that differ little from one to the next, as many as `masks`.

        `seen` is what one sequence of walks keeps between them, empty at first: with the same
        walks it gives the same digits, whatever else was asked of the game. Values that were
        handed in are taken as they are.
        """
        if all(mask & block in self._given for mask in masks for block in self._blocks):
            return values_of(self, masks)
        total = np.zeros(len(masks))
        for at, part in enumerate(self.parts):
            total += part.walk([part.within(mask) for mask in masks], seen.setdefault(at, {}))
        return total

    def worst(
        self, payoff: Array, *, least: int = 1, tolerance: float, above: float | None = None
    ) -> Coalition | None:
        """The coalition of at least `least` sites, short of all, that gains most over payoffs (N,).

        Exact for any number of sites: one programme with a switch for each of them (economics.md,
        section 2). None when no excess is more than `above` (default: `tolerance`); with `above`
        at minus infinity always the worst one, if there is any. Raises NotCleared where the node
        limit comes before a proof.
        """
        if self.sites - 1 < least:
            return None
        return blocking(
            self.program,
            payoff,
            least=least,
            nodes=self.nodes,
            tolerance=tolerance,
            above=above,
            sites=np.arange(self.sites),
            prove=True,
        )

    @cached_property
    def program(self) -> Program:
        """All rounds as one programme, side by side."""
        return self.programs[0] if len(self.programs) == 1 else stacked(self.programs)

    def _of_block(self, mask: int) -> float:
        """The value of a coalition of one block."""
        found = self.known.get(mask)
        if found is None:
            found = 0.0
            for part in self.parts:
                found += part.value(part.within(mask))
            self.known[mask] = found
        return found


def game_of(book: Book, known: Mapping[int, float] | None = None) -> Game:
    """The game of a book, gangs included; `known` are values found before, by coalition."""
    program = program_of(book.market)
    return Game(book.sites, (program,), book.sha256, book.rules.nodes, dict(known or {}))


def values_of(game: Game, masks: Sequence[int]) -> Array:
    """The values of these coalitions, in their order, (len(masks),) credits."""
    return np.array([game.value(mask) for mask in masks], dtype=float)


def batches(game: Game, count: int) -> tuple[tuple[int, ...], ...]:
    """The coalitions whose values give all others, dealt to at most `count` workers.

    Coalitions that are solved in one chain stay together.
    """
    runs = [run for block in game.blocks for run in _runs(game, block)]
    dealt = [runs[at::count] for at in range(min(count, len(runs)))]
    return tuple(tuple(mask for run in share for mask in run) for share in dealt)


def _runs(game: Game, block: int) -> Iterator[tuple[int, ...]]:
    """The coalitions of a block, in runs that share their chains."""
    largest = max(
        (part for part in game.parts if part.players & block), key=lambda part: part.sites.size
    )
    order = largest.order() if largest.chained else range(largest.sites.size)
    first = [int(largest.sites[at]) for at in order[:CHAIN]]
    turns = all_of(first)
    for base in all_of([site for site in bits(block) if site not in first]):
        yield tuple(base | turn for turn in turns if base | turn)


def stacked(programs: Sequence[Program]) -> Program:
    """Several programmes of the same sites side by side, as one. Pools and columns lose their
    numbers; what a coalition may do is the same."""
    parts = [replace(program, pools=0) for program in programs]
    return Program(
        matrix=csr_array(block_diag([part.matrix for part in parts], format="csr")),
        pools=0,
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("limit", "owner", "gain", "hours", "whole", "column", "payer")
        },
    )


def coalition_sums(payoff: Array) -> Array:
    """What each coalition is paid together, by number, (2^N,), of payoffs (N,)."""
    sums = np.zeros(1)
    for amount in payoff:
        sums = np.concatenate([sums, sums + amount])
    return sums


def _compressed(block: int, sites: int) -> Index:
    """For every coalition of all sites, the number of its members in the block, (2^N,)."""
    number = np.arange(1 << sites, dtype=np.int64)
    result: Index = np.zeros(number.shape, dtype=np.int64)
    for at, site in enumerate(bits(block)):
        result |= (number >> site & 1) << at
    return result


def _joined(masks: Sequence[int]) -> list[int]:
    """Unions of the masks that overlap, directly or through others, in order of first site."""
    blocks: list[int] = []
    for mask in masks:
        apart = [block for block in blocks if not block & mask]
        joined = mask
        for block in blocks:
            joined |= block if block & mask else 0
        blocks = [*apart, joined]
    return sorted(blocks, key=lambda block: block & -block)


def _too_many(sites: int) -> str:
    return (
        f"{sites} of them have 2^{sites} coalitions; all are listed up to {MOST_LISTED}, "
        "beyond that values are sampled"
    )
