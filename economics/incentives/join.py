"""Should my site join? The seven answers of economics.md, section 7, for one site.

`join` does all in turn. To share the work: hand the questions of `questions` to workers, each with
its own `answer()`, and give the outcomes to `report` in the same order.

Payoffs are those of one round at the bids of the book. The nucleolus, and with it the dividend, is
that of each round's bids; a venue pays its dividend per epoch on what was served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from economics.book import Book
from economics.incentives.best_response import CYCLE, EQUILIBRIUM, UNFINISHED, Path, best_response
from economics.incentives.blockers import Objection, objections
from economics.incentives.bootstrap import Figure, Sample
from economics.incentives.decomposition import Decomposition
from economics.incentives.sampling import Books, Plan
from economics.incentives.sensitivity import Knob, sensitivity
from economics.incentives.study import Outcome, Question, Split, studied
from economics.market import Array
from economics.sharing.dividend import between, check_alpha

ALPHA = 0.5
ROUNDING = 1e-6  # credits: payoffs are paid in whole micro-credits
MOST_PLAYED = 20_000  # columns times sites up to which the game of offers is played unasked
MARKET, DIVIDEND, NUCLEOLUS = "market", "dividend", "nucleolus"


@dataclass(frozen=True, slots=True)
class RuleGain:
    """What the site has under one sharing rule. Credits per round."""

    rule: str  # market, dividend at alpha, or nucleolus
    payoff: Figure
    beyond_market: Figure  # of the payoff: what the rule moves to the site
    gain: Figure  # payoff less what the site makes alone: the joining cost at which it breaks even


@dataclass(frozen=True, slots=True)
class Line:
    """A part of the gain at market prices. Credits per round."""

    line: str  # a field of Split
    amount: Figure


@dataclass(frozen=True, slots=True)
class Contributions:
    """v(S + i) - v(S) over coalitions S of the others: the five figures of a box plot. Credits."""

    coalitions: int  # of each round
    listed: bool  # all of them, not a draw
    least: Figure
    lower_quartile: Figure
    median: Figure
    upper_quartile: Figure
    most: Figure


@dataclass(frozen=True, slots=True)
class Parts:
    """The gain of all sites together, and what it comes from. Credits per round, and shares."""

    gain: Figure  # pooling and affinity
    pooling: Figure  # capacity and types
    capacity: Figure
    types: Figure
    affinity: Figure
    gain_share: Figure  # over the sum of what sites make alone
    pooling_share: Figure  # the same with speeds averaged over sites
    spread: Figure  # standard deviation of log-speeds about the mean of their type and class


@dataclass(frozen=True, slots=True)
class Endings:
    """How the game of offers ends, over the rounds or draws; and the first round's path."""

    equilibria: int
    cycles: int
    unfinished: int
    least_welfare_ratio: Figure  # at an equilibrium, or the worst of a cycle, over full sharing
    most_welfare_ratio: Figure
    path: Path


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The dividend that makes joining worth its cost."""

    joining_cost: float  # credits per round
    alpha: Figure | None  # least alpha that does; ends are cut at 0 and 1. None: no alpha does
    enough: Figure  # share of rounds or draws in which the full nucleolus is enough


@dataclass(frozen=True, slots=True)
class JoinReport:
    """All figures are means over rounds, or of the one round, with 95 % intervals."""

    site: str
    sites: tuple[str, ...]  # of the first round
    rounds: int
    unit: str  # what was drawn again for the intervals: rounds or jobs
    draws: int
    seed: int
    alpha: float
    standalone: Figure  # credits per round
    rules: tuple[RuleGain, ...]
    split: tuple[Line, ...]
    marginal: Figure  # v(N) - v(N without the site), credits per round
    contributions: Contributions
    parts: Parts
    sensitivity: tuple[Knob, ...]  # empty unless asked for
    game: Endings | None  # None where it was not played
    objections: tuple[Objection, ...]
    break_even: BreakEven


def join(
    books: Books,
    site: str,
    *,
    alpha: float = ALPHA,
    seed: int = 0,
    draws: int | None = None,
    joining_cost: float = 0.0,
    penalties: float = 0.0,
    with_sensitivity: bool = False,
    with_game: bool | None = None,
) -> JoinReport:
    """The report for one site of one book, or of the books of several rounds.

    `draws`: of the bootstrap; by default 2000 of rounds, or 100 of one round's jobs, each of which
    is cleared. `joining_cost` and `penalties` are credits per round that the site expects to pay
    for taking part, and for what it fails to deliver. The game of offers is played in small books
    of divisible jobs, unless `with_game` says otherwise: it solves hundreds of markets for each
    draw, and with whole gangs prices each of them by the rule of a round. Raises BadBook,
    NotCleared; ValueError for an alpha outside 0 to 1.
    """
    check_alpha(alpha)
    plan = Plan.of(books, seed=seed, draws=draws)
    asked = questions(plan, site, penalties=penalties, play=with_game)
    outcomes = [question.answer() for question in asked]
    knobs = (
        sensitivity(plan.rounds, site, alpha=alpha, seed=seed, draws=draws)
        if (with_sensitivity)
        else ()
    )
    return report(plan, site, outcomes, alpha=alpha, joining_cost=joining_cost, knobs=knobs)


def questions(
    plan: Plan, site: str, *, penalties: float = 0.0, play: bool | None = None
) -> tuple[Question, ...]:
    """One for each document of the plan; raises BadBook when a round has no such site."""
    books = [studied(document, site) for document in plan.rounds]
    if play is None:
        play = all(_quickly_played(book) for book in books)
    return tuple(
        Question(document, site, penalties=penalties, seed=plan.seed, play=play)
        for document in plan.documents
    )


def _quickly_played(book: Book) -> bool:
    """Whether the game of offers takes seconds for each draw, not minutes."""
    size = book.market.columns * book.market.sites
    return book.market.divisible and size <= MOST_PLAYED


def report(
    plan: Plan,
    site: str,
    outcomes: Sequence[Outcome],
    *,
    alpha: float = ALPHA,
    joining_cost: float = 0.0,
    knobs: tuple[Knob, ...] = (),
) -> JoinReport:
    """The report made of the outcomes of `questions`, in their order."""
    check_alpha(alpha)
    sample = plan.sample(outcomes)
    at = _Site(site, alpha)
    return JoinReport(
        site=site,
        sites=outcomes[0].sites,
        rounds=sample.rounds,
        unit=sample.unit,
        draws=sample.draws,
        seed=plan.seed,
        alpha=alpha,
        standalone=sample.mean(at.alone),
        rules=tuple(_rule(sample, at, rule) for rule in (MARKET, DIVIDEND, NUCLEOLUS)),
        split=_lines(sample),
        marginal=sample.mean(lambda row: row.value - row.without),
        contributions=_contributions(sample),
        parts=_parts(sample),
        sensitivity=knobs,
        game=_game(sample, plan),
        objections=objections(plan, outcomes, alpha),
        break_even=_break_even(sample, at, joining_cost),
    )


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the site stands in an outcome, which may differ from round to round."""

    name: str
    alpha: float

    def alone(self, row: Outcome) -> float:
        return row.alone[row.sites.index(self.name)]

    def payoff(self, row: Outcome, rule: str) -> float:
        at = row.sites.index(self.name)
        ends: Array = np.array([[row.market[at]], [row.nucleolus[at]]])
        alpha = {MARKET: 0.0, DIVIDEND: self.alpha, NUCLEOLUS: 1.0}[rule]
        return float(between(ends[0], ends[1], alpha)[0])

    def gain(self, row: Outcome, rule: str) -> float:
        return self.payoff(row, rule) - self.alone(row)


def _rule(sample: Sample[Outcome], at: _Site, rule: str) -> RuleGain:
    return RuleGain(
        rule=rule,
        payoff=sample.mean(lambda row: at.payoff(row, rule)),
        beyond_market=sample.mean(lambda row: at.payoff(row, rule) - at.payoff(row, MARKET)),
        gain=sample.mean(lambda row: at.gain(row, rule)),
    )


def _lines(sample: Sample[Outcome]) -> tuple[Line, ...]:
    def amount(name: str) -> Figure:
        return sample.mean(lambda row: float(getattr(row.split, name)))

    return tuple(Line(field.name, amount(field.name)) for field in fields(Split))


def _contributions(sample: Sample[Outcome]) -> Contributions:
    def at(share: float) -> Figure:
        return sample.mean(lambda row: float(np.quantile(row.contributions, share)))

    first = sample.rows[0]
    return Contributions(
        len(first.contributions), first.listed, at(0.0), at(0.25), at(0.5), at(0.75), at(1.0)
    )


def _parts(sample: Sample[Outcome]) -> Parts:
    def of(name: str) -> Figure:
        return sample.mean(lambda row: float(getattr(row.decomposition, name)))

    def share(over: str, under: str) -> Figure:
        def part(name: str, row: Outcome) -> float:
            found: Decomposition = row.decomposition
            return float(getattr(found, name))

        return sample.ratio(lambda row: part(over, row), lambda row: part(under, row))

    return Parts(
        gain=of("gain"),
        pooling=of("pooling"),
        capacity=of("capacity"),
        types=of("types"),
        affinity=of("affinity"),
        gain_share=share("gain", "alone"),
        pooling_share=share("pooling", "pooling_alone"),
        spread=of("spread"),
    )


def _game(sample: Sample[Outcome], plan: Plan) -> Endings | None:
    if any(row.ending is None for row in sample.rows):
        return None

    def ratio(end: int) -> Figure:
        return sample.mean(lambda row: row.welfare_ratio[end] if row.welfare_ratio else 1.0)

    endings = [row.ending for row in sample.rows]
    return Endings(
        equilibria=endings.count(EQUILIBRIUM),
        cycles=endings.count(CYCLE),
        unfinished=endings.count(UNFINISHED),
        least_welfare_ratio=ratio(0),
        most_welfare_ratio=ratio(1),
        path=best_response(studied(plan.documents[0])),
    )


def _break_even(sample: Sample[Outcome], at: _Site, cost: float) -> BreakEven:
    def gains(row: Outcome) -> tuple[float, float]:
        return at.gain(row, MARKET), at.gain(row, NUCLEOLUS)

    def least(means: Array) -> float:
        """Where (1 - alpha) market + alpha nucleolus reaches the cost; 1 where it does not."""
        market, target = means
        if market >= cost - ROUNDING:
            return 0.0
        return float(min((cost - market) / (target - market), 1.0)) if target > market else 1.0

    mean = sample.mean(lambda row: at.gain(row, NUCLEOLUS)).value
    market = sample.mean(lambda row: at.gain(row, MARKET)).value
    return BreakEven(
        joining_cost=cost,
        alpha=sample.statistic(gains, least) if max(mean, market) >= cost - ROUNDING else None,
        enough=sample.mean(lambda row: float(at.gain(row, NUCLEOLUS) >= cost - ROUNDING)),
    )
