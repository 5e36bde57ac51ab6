"""What a site's gain depends on: how different sites are, distance, its costs and its load.

Each knob is turned on its own, and the round decided anew. Draws of jobs are the same at every
step, so that steps differ in nothing but the knob.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from economics.incentives.bootstrap import Figure, Sample
from economics.incentives.sampling import Books, Document, Plan
from economics.incentives.study import cleared, studied
from economics.incentives.variations import (
    farther,
    load_times,
    log_spread,
    mean_reserve,
    reserve_times,
    spread_times,
    without_floors,
)
from economics.sharing.dividend import between, check_alpha
from economics.sharing.game import game_of
from economics.sharing.nucleolus import nucleolus

SIGMA, TRANSFER, RESERVE, LOAD = "sigma", "transfer", "reserve", "load"
STEPS: Mapping[str, tuple[float, ...]] = {
    SIGMA: (0.0, 0.5, 1.0, 1.5, 2.0),  # times the deviations of log-speeds
    TRANSFER: (0.0, 0.1, 0.25, 0.5, 1.0),  # mean reserves more for every GPU-hour away from home
    RESERVE: (0.5, 0.75, 1.0, 1.5, 2.0),  # times the site's reserves, which are its costs
    LOAD: (0.25, 0.5, 1.0, 1.5, 2.0),  # times what the site's divisible jobs want
}
NEUTRAL: Mapping[str, float] = {SIGMA: 1.0, TRANSFER: 0.0, RESERVE: 1.0, LOAD: 1.0}


@dataclass(frozen=True, slots=True)
class Point:
    """The site's figures at one step. Credits per round."""

    step: float
    setting: float  # sigma: of log-speeds · transfer: credits more per GPU-hour · else the step
    standalone: Figure
    market: Figure  # gain over stand-alone, likewise below
    dividend: Figure
    nucleolus: Figure


@dataclass(frozen=True, slots=True)
class Knob:
    """What happens as one thing changes."""

    knob: str  # sigma, transfer, reserve or load
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Gains:
    """One site in one round. Credits."""

    alone: float
    market: float
    nucleolus: float
    setting: float


@dataclass(frozen=True, slots=True)
class StepQuestion:
    """One knob at one step in one round; independent of all others."""

    document: Document  # before it is turned
    site: str
    knob: str
    step: float

    def answer(self) -> Gains:
        """Raises BadBook, NotCleared."""
        book = studied(turned(self.document, self.site, self.knob, self.step), self.site)
        at, game = book.sites.index(self.site), game_of(book)
        return Gains(
            alone=float(game.alone[at]),
            market=float(cleared(book).payoff[at]),
            nucleolus=float(nucleolus(game).payoff[at]),
            setting=_setting(self.document, self.knob, self.step),
        )


def turned(document: Document, site: str, knob: str, step: float) -> Document:
    """The document with one knob turned; without floors where some step could not keep them."""
    if step == NEUTRAL[knob]:
        return without_floors(document) if knob in (SIGMA, RESERVE) else document
    if knob == SIGMA:
        return spread_times(document, step)
    if knob == TRANSFER:
        return farther(document, step * mean_reserve(document))
    if knob == RESERVE:
        return reserve_times(document, site, step)
    return load_times(document, site, step)


def _setting(document: Document, knob: str, step: float) -> float:
    if knob == SIGMA:
        return step * log_spread(document)
    return step * mean_reserve(document) if knob == TRANSFER else step


def sensitivity(
    books: Books,
    site: str,
    *,
    alpha: float = 0.5,
    seed: int = 0,
    draws: int | None = None,
    steps: Mapping[str, Iterable[float]] = STEPS,
) -> tuple[Knob, ...]:
    """The knobs named in `steps`, in turn. Arguments and errors as those of `join`."""
    plan = Plan.of(books, seed=seed, draws=draws)
    asked = step_questions(plan, site, steps)
    return knobs(plan, asked, [question.answer() for question in asked], alpha=alpha)


def step_questions(
    plan: Plan, site: str, steps: Mapping[str, Iterable[float]] = STEPS
) -> tuple[StepQuestion, ...]:
    """Every knob, every step, every document of the plan, in this order."""
    for document in plan.rounds:
        studied(document, site)
    return tuple(
        StepQuestion(document, site, knob, step)
        for knob in steps
        for step in steps[knob]
        for document in plan.documents
    )


def knobs(
    plan: Plan, asked: Sequence[StepQuestion], answers: Sequence[Gains], *, alpha: float
) -> tuple[Knob, ...]:
    """The knobs made of the answers, in the order of the questions."""
    check_alpha(alpha)
    points: dict[str, list[Point]] = {}
    size = len(plan.documents)
    for first in range(0, len(asked), size):
        question = asked[first]
        sample = plan.sample(answers[first : first + size])
        points.setdefault(question.knob, []).append(_point(sample, question.step, alpha))
    return tuple(Knob(name, tuple(found)) for name, found in points.items())


def _point(sample: Sample[Gains], step: float, alpha: float) -> Point:
    def gain(part: float) -> Figure:
        return sample.mean(
            lambda row: (
                float(between(np.array(row.market), np.array(row.nucleolus), part)) - row.alone
            )
        )

    rounds = sample.rows[: sample.rounds]
    return Point(
        step=step,
        setting=sum(row.setting for row in rounds) / len(rounds),
        standalone=sample.mean(lambda row: row.alone),
        market=gain(0.0),
        dividend=gain(alpha),
        nucleolus=gain(1.0),
    )
