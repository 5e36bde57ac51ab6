"""What if a site left? Leave-one-out for every site of a book."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from economics.incentives.bootstrap import Figure, Sample
from economics.incentives.sampling import Books, Document, Plan
from economics.incentives.study import cleared, studied
from economics.sharing.game import game_of


@dataclass(frozen=True, slots=True)
class Leaving:
    """What changes when one site leaves. Credits per round, with 95 % intervals."""

    site: str
    rounds: int
    unit: str  # what was drawn again for the intervals: rounds or jobs
    draws: int
    rest: Figure  # what all others make together without it
    standalone: Figure  # what it makes alone
    payoff: Figure  # what it has in the federation at market prices
    marginal: Figure  # what all make together less `rest`
    loses: Figure  # payoff less standalone: what it gives up
    others_lose: Figure  # what the others have with it at market prices, less `rest`


@dataclass(frozen=True, slots=True)
class Rests:
    """One round without each of its sites in turn. Credits; N sites sorted by name."""

    sites: tuple[str, ...]  # (N,)
    value: float  # of all together
    rest: tuple[float, ...]  # (N,) of all but this one
    alone: tuple[float, ...]  # (N,)
    market: tuple[float, ...]  # (N,)


@dataclass(frozen=True, slots=True)
class LeaveQuestion:
    """One round; independent of all others."""

    document: Document

    def answer(self) -> Rests:
        """Raises BadBook, NotCleared."""
        book = studied(self.document)
        game = game_of(book)
        return Rests(
            sites=book.sites,
            value=game.grand,
            rest=tuple(game.value(game.everybody ^ (1 << at)) for at in range(len(book.sites))),
            alone=tuple(game.alone.tolist()),
            market=tuple(cleared(book).payoff.tolist()),
        )


def leave(books: Books, *, seed: int = 0, draws: int | None = None) -> tuple[Leaving, ...]:
    """Every site of one book, or of the books of several rounds, by name. Raises BadBook."""
    plan = Plan.of(books, seed=seed, draws=draws)
    return leavings(plan, [question.answer() for question in leave_questions(plan)])


def leave_questions(plan: Plan) -> tuple[LeaveQuestion, ...]:
    """One for each document of the plan."""
    return tuple(LeaveQuestion(document) for document in plan.documents)


def leavings(plan: Plan, answers: Sequence[Rests]) -> tuple[Leaving, ...]:
    """What changes for each site that is in every round, from the answers in their order."""
    sample = plan.sample(answers)
    everywhere = set(answers[0].sites).intersection(*(row.sites for row in answers))
    return tuple(_leaving(sample, site) for site in sorted(everywhere))


def _leaving(sample: Sample[Rests], site: str) -> Leaving:
    def mean(of: Callable[[Rests, int], float]) -> Figure:
        return sample.mean(lambda row: of(row, row.sites.index(site)))

    return Leaving(
        site=site,
        rounds=sample.rounds,
        unit=sample.unit,
        draws=sample.draws,
        rest=mean(lambda row, at: row.rest[at]),
        standalone=mean(lambda row, at: row.alone[at]),
        payoff=mean(lambda row, at: row.market[at]),
        marginal=mean(lambda row, at: row.value - row.rest[at]),
        loses=mean(lambda row, at: row.market[at] - row.alone[at]),
        others_lose=mean(lambda row, at: sum(row.market) - row.market[at] - row.rest[at]),
    )
