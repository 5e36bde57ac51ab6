"""Sharing rules on made-up markets: values of all coalitions warm and cold, Shapley, the oracle.

    python -m bench.sharing --json

The exact Shapley value and the nucleolus of a market against a cold solve for each of its
coalitions; the sampled value of a market too large for that; the core oracle against clearings of
the same book; and the core check over many rounds. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import highspy
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csc_array
from threadpoolctl import threadpool_limits

from bench.support import Spread, report, timed
from economics.book import Book, read_book
from economics.clearing.program import Program
from economics.market import Array, Mask
from economics.rounds import decide
from economics.sharing.coalitions import coalition_value
from economics.sharing.game import Game, coalition_sums, game_of
from economics.sharing.nucleolus import nucleolus
from economics.sharing.shapley import of_table, shapley, shapley_sampled
from tests.economics.markets import divisible_market
from tests.economics.random_books import random_book

TOLERANCE = 1e-6  # of the value of all sites: an excess above it is outside the core


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--sampled-sites", type=int, default=24)
    parser.add_argument("--oracle-sites", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--smoothed", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    names = ("sites", "jobs", "sampled_sites", "oracle_sites", "rounds", "smoothed", "seed")
    with threadpool_limits(limits=1):
        figures: dict[str, Any] = {
            **{name: getattr(asked, name) for name in names},
            **exact(_book(asked.seed, asked.sites, asked.jobs), asked.repeats),
            **sampled(_book(asked.seed, asked.sampled_sites, asked.jobs), asked.repeats),
            **oracle(_book(asked.seed, asked.oracle_sites, asked.jobs), asked.repeats),
            **core(asked.rounds, asked.smoothed),
        }
    report("sharing", figures, as_json=asked.json)


def exact(book: Book, repeats: int) -> dict[str, Any]:
    """Shapley value and nucleolus, every value included, against a cold solve per coalition."""
    game = game_of(book)
    program, nodes = game.programs[0], book.rules.nodes
    (warm, value), (cold, expected), (bare, by_highs), (scipy, by_scipy) = _in_turn(
        [
            lambda: shapley(game_of(book)),
            lambda: _all_values(game, lambda some: coalition_value(program, some, nodes=nodes)),
            lambda: _all_values(game, _bare(program)),
            lambda: _all_values(game, lambda some: _linprog(program, some)),
        ],
        repeats,
    )
    levels, found = timed(lambda: nucleolus(_valued(book, game)), repeats)
    return {
        "coalitions": 1 << game.sites,
        "shapley_seconds": warm.median,
        "shapley_spread": warm.spread,
        "shapley_off": _off(value, of_table(expected), game),
        "cold_seconds": cold.median,
        "cold_ratio": cold.median / warm.median,
        "bare_seconds": bare.median,
        "bare_ratio": bare.median / warm.median,
        "linprog_seconds": scipy.median,
        "linprog_ratio": scipy.median / warm.median,
        "values_off": _off(game.values(), expected, game),
        "cold_off": max(_off(table, expected, game) for table in (by_highs, by_scipy)),
        "nucleolus_seconds": levels.median,
        "nucleolus_spread": levels.spread,
        "nucleolus_ratio": cold.median / levels.median,
        "nucleolus_excess": found.least_excess / game.grand,
    }


def sampled(book: Book, repeats: int) -> dict[str, Any]:
    """The sampled Shapley value, to half a percent of the value of all."""
    took, found = timed(lambda: shapley_sampled(game_of(book), seed=0), repeats)
    total = game_of(book).grand
    return {
        "sampled_seconds": took.median,
        "sampled_spread": took.spread,
        "sampled_pairs": found.pairs,
        "sampled_half_width": float(found.half_width.max()) / total,
        "sampled_off_total": abs(float(found.value.sum()) - total) / total,
    }


def oracle(book: Book, repeats: int) -> dict[str, Any]:
    """The worst coalition under market payoffs and under an equal split, against clearings."""
    clearing, document = timed(lambda: decide(book), repeats)
    game = game_of(book)
    tolerance = TOLERANCE * game.grand
    market = np.array([document["payoffs"][name] for name in game.names])
    equal = np.full(game.sites, game.grand / game.sites)
    inside, nobody = timed(lambda: game_of(book).worst(market, tolerance=tolerance), repeats)
    outside, worst = timed(lambda: game_of(book).worst(equal, tolerance=tolerance), repeats)
    assert nobody is None
    assert worst is not None
    return {
        "clearing_seconds": clearing.median,
        "oracle_seconds": inside.median,
        "oracle_clearings": inside.median / clearing.median,
        "blocking_seconds": outside.median,
        "blocking_clearings": outside.median / clearing.median,
        "blocking_sites": int(worst.members.sum()),
        "blocking_excess": worst.excess / game.grand,
    }


def core(rounds: int, smoothed: int) -> dict[str, Any]:
    """Core violations by enumeration: prices at epsilon 0, and smoothed from jittered ones."""
    start = time.perf_counter()
    plain = [_excess(read_book(document)) for document in _rounds(rounds)]
    kept = [_excess(read_book(_jittered(document, at)))
            for at, document in enumerate(_rounds(smoothed))]  # fmt: skip
    return {
        "core_seconds": time.perf_counter() - start,
        "core_outside": sum(excess > TOLERANCE for excess in plain),
        "core_worst": max(plain, default=0.0),
        "smoothed_outside": sum(excess > TOLERANCE for excess in kept),
        "smoothed_worst": max(kept, default=0.0),
    }


def _book(seed: int, sites: int, jobs: int) -> Book:
    return read_book(divisible_market(seed, sites=sites, jobs=jobs))


def _off(found: Array, expected: Array, game: Game) -> float:
    """Largest difference, over the value of all sites."""
    return float(np.abs(found - expected).max()) / game.grand


def _valued(book: Book, game: Game) -> Game:
    """A game whose values are all known."""
    return game_of(book, dict(enumerate(game.values().tolist())))


def _in_turn(runs: list[Callable[[], Array]], repeats: int) -> list[tuple[Spread, Array]]:
    """Each run once in every repeat, so that a busy minute slows all of them; and the results."""
    results = [run() for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [(Spread(tuple(each)), found) for each, found in zip(seconds, results, strict=True)]


def _all_values(game: Game, solve: Callable[[Mask], float]) -> Array:
    members = [
        np.array([mask >> site & 1 for site in range(game.sites)], dtype=bool)
        for mask in range(1 << game.sites)
    ]
    return np.array([solve(some) for some in members])


def _linprog(program: Program, members: Mask) -> float:
    limit = np.where(members[program.owner], program.limit, 0.0)
    return -float(linprog(-program.gain, A_ub=program.matrix, b_ub=limit, method="highs").fun)


def _bare(program: Program) -> Callable[[Mask], float]:
    """HiGHS at its own defaults on one ready matrix: next to nothing but passing and solving it."""
    matrix = csc_array(program.matrix)
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.col_cost_ = -program.gain
    lp.col_lower_ = np.zeros(program.gain.size)
    lp.col_upper_ = np.full(program.gain.size, np.inf)
    lp.row_lower_ = np.full(program.limit.size, -np.inf)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr, matrix.indices
    lp.a_matrix_.value_ = matrix.data

    def solve(members: Mask) -> float:
        lp.row_upper_ = np.where(members[program.owner], program.limit, 0.0)
        model = highspy.Highs()  # type: ignore[no-untyped-call]
        model.setOptionValue("output_flag", False)
        model.passModel(lp)
        model.run()
        assert model.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return -float(model.getInfo().objective_function_value)

    return solve


def _rounds(count: int) -> Iterator[dict[str, Any]]:
    """By turns a market of two to eight sites, and one with ties, budgets and widths."""
    for seed in range(count):
        if seed % 2:
            yield {**random_book(seed, ties=seed % 4 == 1), "rules": {"epsilon": 0.0}}
        else:
            yield divisible_market(seed, sites=2 + seed // 2 % 7)


def _jittered(document: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same book at the default epsilon, after a round with prices up to 25 % off."""
    draw = np.random.default_rng(seed)
    prices = decide(read_book(document))["prices"]
    previous = {pool: price * draw.uniform(0.8, 1.25) for pool, price in prices.items()}
    return {**document, "rules": {}, "previous_prices": previous}


def _excess(book: Book) -> float:
    """Largest gain of any coalition, relative to what all make (or to one credit)."""
    game, payoffs = game_of(book), decide(book)["payoffs"]
    paid = coalition_sums(np.array([payoffs[name] for name in game.names]))
    return float((game.values() - paid)[1:-1].max(initial=-np.inf)) / max(1.0, game.grand)


if __name__ == "__main__":
    main()
