"""Who would rather leave: the coalitions with the largest excess over what they are paid.

The excess is what a coalition makes alone less what it is paid; its *slack* is minus that: below
zero it blocks. All coalitions are listed up to 12 sites; beyond, the oracle of the core finds the
worst, and the next ones in the parts of the space that are left without it (Lawler, A procedure for
computing the k best solutions to discrete optimization problems, Management Science 18, 1972).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from economics.clearing.program import program_of
from economics.incentives.bootstrap import Figure, Sample
from economics.incentives.sampling import Plan
from economics.incentives.study import Outcome, studied
from economics.market import Array
from economics.sharing.dividend import between
from economics.sharing.game import Game, coalition_sums
from economics.sharing.tables import mask_of

SHOWN = 3  # of each rule
STILL = 1e-6  # an excess below this, times the value of all, is solver rounding
FORCED = 8.0  # times the value of all: what makes a site take part, or stay away
RULES = ("market", "dividend", "nucleolus")


@dataclass(frozen=True, slots=True)
class Objection:
    """A coalition that is among the first to leave under a rule. Credits per round."""

    rule: str
    sites: tuple[str, ...]
    slack: Figure  # what it is paid beyond what it makes alone; below zero it blocks
    blocks: bool  # below zero by more than rounding


@dataclass(frozen=True, slots=True)
class _Row:
    """Payoffs of a round under each rule, and the values of some coalitions."""

    payoff: dict[str, Array]  # {rule: (N,)}
    values: dict[int, float]  # {coalition: credits}

    def slack(self, rule: str, mask: int) -> float:
        paid = self.payoff[rule]
        inside = (mask >> np.arange(paid.size)) % 2 == 1
        return float(paid[inside].sum()) - self.values[mask]


def objections(plan: Plan, outcomes: Sequence[Outcome], alpha: float) -> tuple[Objection, ...]:
    """The first three coalitions of each rule; none where sites differ from round to round."""
    sites = outcomes[0].sites
    if any(row.sites != sites for row in outcomes) or len(sites) < 2:
        return ()
    payoffs = [_payoffs(row, alpha) for row in outcomes]
    listed = outcomes[0].values is not None
    worst = _listed(plan, outcomes, payoffs) if listed else _searched(plan, sites, payoffs)
    wanted = sorted({mask for masks in worst.values() for mask in masks})
    values = (
        [dict(zip(wanted, np.array(row.values)[wanted].tolist(), strict=True)) for row in outcomes]
        if listed
        else [_values(plan, at, wanted) for at in range(len(outcomes))]
    )
    sample = plan.sample([_Row(*pair) for pair in zip(payoffs, values, strict=True)])
    size = max(1.0, abs(outcomes[0].value))
    return tuple(
        _objection(sample, rule, mask, sites, size) for rule in RULES for mask in worst[rule]
    )


def _payoffs(row: Outcome, alpha: float) -> dict[str, Array]:
    market, target = np.array(row.market), np.array(row.nucleolus)
    ends = dict(zip(RULES, (0.0, alpha, 1.0), strict=True))
    return {rule: between(market, target, part) for rule, part in ends.items()}


def _objection(
    sample: Sample[_Row], rule: str, mask: int, sites: tuple[str, ...], size: float
) -> Objection:
    slack = sample.mean(lambda row: row.slack(rule, mask))
    members = tuple(name for at, name in enumerate(sites) if mask >> at & 1)
    return Objection(rule, members, slack, slack.value < -STILL * size)


def _listed(
    plan: Plan, outcomes: Sequence[Outcome], payoffs: Sequence[dict[str, Array]]
) -> dict[str, list[int]]:
    """The coalitions of least mean slack over the rounds; of equal ones the first by mask."""
    found = {}
    rounds = len(plan.rounds)
    for rule in RULES:
        slack = sum(
            coalition_sums(payoffs[at][rule]) - np.array(outcomes[at].values)
            for at in range(rounds)
        )
        inner: Array = np.asarray(slack, dtype=float)[1:-1] / rounds
        rounded = np.round(inner / (STILL * max(1.0, abs(outcomes[0].value))))
        found[rule] = [int(at) + 1 for at in np.argsort(rounded, kind="stable")[:SHOWN]]
    return found


def _searched(
    plan: Plan, sites: tuple[str, ...], payoffs: Sequence[dict[str, Array]]
) -> dict[str, list[int]]:
    """The same by the oracle, on the game of all rounds together."""
    books = [studied(document) for document in plan.rounds]
    programs = tuple(program_of(book.market) for book in books)
    game = Game(sites, programs, books[0].sha256, books[0].rules.nodes)
    return {
        rule: worst_of(game, np.sum([row[rule] for row in payoffs[: len(books)]], axis=0))
        for rule in RULES
    }


def _values(plan: Plan, at: int, masks: Sequence[int]) -> dict[int, float]:
    book = studied(plan.documents[at])
    game = Game(book.sites, (program_of(book.market),), book.sha256, book.rules.nodes)
    return {mask: game.value(mask) for mask in masks}


def worst_of(game: Game, payoff: Array, *, count: int = SHOWN) -> list[int]:
    """The proper coalitions of largest excess over payoffs (N,), worst first, by the oracle."""
    search = _Search(game, payoff)
    found: list[int] = []
    open_parts = [part for part in [search.best(0, 0)] if part is not None]
    while open_parts and len(found) < count:
        best = max(open_parts, key=lambda part: part.excess)
        open_parts.remove(best)
        found.append(best.mask)
        open_parts += search.without(best)
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """The coalitions with some sites inside and some outside, and the worst of them."""

    inside: int
    outside: int
    mask: int
    excess: float


@dataclass(frozen=True, slots=True)
class _Search:
    game: Game
    payoff: Array  # (N,)

    def best(self, inside: int, outside: int) -> _Part | None:
        """The worst coalition of a part; None when it holds no proper one."""
        size = max(1.0, abs(self.game.grand), float(np.abs(self.payoff).sum()))
        sites = np.arange(self.payoff.size)
        push = (outside >> sites) % 2 - (inside >> sites) % 2
        worst = self.game.worst(
            self.payoff + FORCED * size * push, tolerance=STILL * size, above=-np.inf
        )
        if worst is None:
            return None
        mask = mask_of(worst.members)
        if mask & outside or mask & inside != inside:
            return None
        return _Part(inside, outside, mask, worst.value - float(self.payoff[worst.members].sum()))

    def without(self, part: _Part) -> list[_Part]:
        """The part without its worst coalition, cut so that no coalition is in two pieces."""
        pieces = []
        inside, outside = part.inside, part.outside
        for site in range(self.payoff.size):
            bit = 1 << site
            if (inside | outside) & bit:
                continue
            if part.mask & bit:
                pieces.append(self.best(inside, outside | bit))
                inside |= bit
            else:
                pieces.append(self.best(inside | bit, outside))
                outside |= bit
        return [piece for piece in pieces if piece is not None]
