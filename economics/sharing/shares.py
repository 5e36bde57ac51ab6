"""`hanse.shares/1`: what each site gets under each rule, and which coalition would object.

The same book gives the same bytes: what is sampled is sampled from a seed that is the book's own
digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from economics.book import Book
from economics.market import Array
from economics.rounds import decide
from economics.sharing import rules
from economics.sharing.dividend import between, check_alpha
from economics.sharing.game import Game, game_of
from economics.sharing.nucleolus import nucleolus
from economics.sharing.objections import Objections, objections_of
from economics.sharing.shapley import EXACT_UP_TO, shapley, shapley_sampled

SHARES_FORMAT = "hanse.shares/1"
ALPHA = 0.5  # half of the way from the market to the nucleolus
DECIMALS = 9
SEED_DIGITS = 15  # hexadecimal digits of the book's digest that seed the sampling


@dataclass(frozen=True, slots=True)
class Points:
    """The payoffs of a round under the rules that need a computation of their own, (N,) credits."""

    market: Array
    shapley: Array
    half_width: Array  # of the 95 % interval of `shapley`; 0 = exact
    nucleolus: Array
    exact: bool  # whether `shapley` is


def shares(book: Book, *, alpha: float = ALPHA, game: Game | None = None) -> dict[str, Any]:
    """The complete `hanse.shares/1` document of a book.

    `game` is `game_of(book)`, perhaps with values that were found elsewhere. Raises ValueError for
    an alpha outside 0 to 1; NotCleared or NotCertified as `economics.rounds.decide`, or when a
    worst coalition is not proved within the node limit.
    """
    check_alpha(alpha)
    with threadpool_limits(limits=1):  # last digits of sums must not depend on threads
        game = game_of(book) if game is None else game
        paid = decide(book)["payoffs"]
        market = np.array([paid[name] for name in game.names], dtype=float)
        objections = objections_of(game)
        return document_of(game, points_of(game, market, objections), objections, alpha)


def points_of(game: Game, market: Array, objections: Objections) -> Points:
    """What the market pays (N,), credits, and the surplus by Shapley value and by nucleolus."""
    exact = all(block.bit_count() <= EXACT_UP_TO for block in game.blocks)
    if exact:
        value, half_width = shapley(game), np.zeros(market.shape)
    else:
        sampled = shapley_sampled(game, seed=int(game.sha256[:SEED_DIGITS], 16))
        value, half_width = sampled.value, sampled.half_width
    return Points(market, value, half_width, nucleolus(game, objections).payoff, exact)


def document_of(game: Game, points: Points, objections: Objections, alpha: float) -> dict[str, Any]:
    """`hanse.shares/1` of a game whose points are known."""
    payoffs = {
        rules.MARKET: points.market,
        rules.DIVIDEND: between(points.market, points.nucleolus, alpha),
        rules.SHAPLEY: points.shapley,
        rules.NUCLEOLUS: points.nucleolus,
        rules.EQUAL_SPLIT: rules.equal_split(game),
        rules.PROPORTIONAL: rules.proportional(game),
        rules.MARGINAL: rules.marginal(game),
    }
    shown = {"standalone": game.alone, rules.MARKET: points.market, rules.SHAPLEY: points.shapley}
    shown |= {"half_width": points.half_width}
    shown |= {rule: payoffs[rule] for rule in (rules.NUCLEOLUS, rules.DIVIDEND, rules.MARGINAL)}
    judged = [rules.judged(game, objections, rule, payoff) for rule, payoff in payoffs.items()]
    return {
        "format": SHARES_FORMAT,
        "book_sha256": game.sha256,
        "value": _number(game.grand),
        "surplus": _number(game.grand - float(game.alone.sum())),
        "exact": points.exact,
        "sites": [
            {"site": name, **{key: _number(column[at]) for key, column in shown.items()}}
            for at, name in enumerate(game.names)
        ],
        "rules": [_row(verdict) for verdict in judged],
    }


def _row(verdict: rules.Verdict) -> dict[str, Any]:
    return {
        "rule": verdict.rule,
        "worst_excess": _number(verdict.worst_excess),
        "in_core": verdict.in_core,
        "blocking": None if verdict.blocking is None else list(verdict.blocking),
    }


def _number(amount: float) -> float:
    """As written: at most 9 decimals, and no negative zero."""
    return round(float(amount), DECIMALS) + 0.0
