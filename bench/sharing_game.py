"""What small clouds would share at each price, and a price that follows excess demand.

    python -m bench.sharing_game --json

The first part plays the sharing game of two clouds at several loads and prices, and prints the
table of `docs/explanation/sharing-and-price.md`. The second lets a price adjust in made-up markets,
and compares it with the dual that Clarabel finds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.support import report
from economics.incentives.price_adjustment import Buyer, Seller, adjust_price, reference_price
from economics.incentives.sharing_chain import Cloud
from economics.incentives.sharing_game import GamePath, price_sweep

LOADS = ["3,5.5", "4.5,4.5", "2,6"]
RATIOS = [0.1, 0.3, 0.5, 0.7, 0.9]
HEADER = (
    "| Loads | Price ratio | Shares | Savings | Efficiency |",
    "| --- | --- | --- | --- | --- |",
)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--machines", type=int, default=6)
    parser.add_argument("--loads", nargs="+", default=LOADS)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--gamma", type=float, default=0.0)
    parser.add_argument("--markets", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    paths: dict[str, tuple[GamePath, ...]] = {}
    seconds: dict[str, float] = {}
    with threadpool_limits(limits=1):
        for loads in asked.loads:
            begun = time.perf_counter()
            paths[loads] = played(loads, asked.machines, asked.ratios, asked.gamma)
            seconds[loads] = time.perf_counter() - begun
    print("\n".join(table(paths)), end="\n\n")
    figures: dict[str, Any] = {
        **{name: getattr(asked, name) for name in ("machines", "ratios", "gamma", "seed")},
        "games": {loads: [path.document() for path in row] for loads, row in paths.items()},
        "row_seconds": seconds,
        **adjusted(asked.markets, asked.seed),
    }
    shown = {key: value for key, value in figures.items() if key != "games"}
    report("sharing_game", figures if asked.json else shown, as_json=asked.json)


def played(
    loads: str, machines: int, ratios: list[float], gamma: float = 0.0
) -> tuple[GamePath, ...]:
    """One row: the game of clouds of one size with these loads, at each price ratio."""
    clouds = [Cloud(machines, float(load)) for load in loads.split(",")]
    return price_sweep(clouds, ratios, gamma=gamma)


def table(paths: dict[str, tuple[GamePath, ...]]) -> list[str]:
    """Lines of a table with a row for each game."""
    rows = [line(loads, path) for loads, row in paths.items() for path in row]
    return [*HEADER, *rows]


def line(loads: str, path: GamePath) -> str:
    """One game; where it does not end in an equilibrium, how it ended, and the range."""
    shares = "({})".format(", ".join(map(str, path.profile))) if path.profile else ""
    ended = shares if path.kind == "equilibrium" else f"{path.kind} {shares}".strip()
    savings = " / ".join(
        f"{least:.3f}" if least == most else f"{least:.3f} to {most:.3f}"
        for least, most in path.savings_range
    )
    efficiency = "" if path.efficiency is None else f"{path.efficiency:.2f}"
    cells = (loads.replace(",", " and "), f"{path.price_ratio:g}", ended, savings, efficiency)
    return f"| {' | '.join(cells)} |"


def adjusted(markets: int, seed: int) -> dict[str, Any]:
    """Steps until a price settles, and how far it is from the dual, over made-up markets."""
    steps: list[int] = []
    off: list[float] = []
    for number in range(seed, seed + markets):
        buyers, sellers = drawn(number)
        found, dual = adjust_price(buyers, sellers), reference_price(buyers, sellers)
        steps.append(found.steps)
        off.append(abs(found.price - dual) / dual)
    return {
        "markets": markets,
        "steps_median": float(np.median(steps)),
        "steps_most": max(steps),
        "price_off_worst": max(off),
    }


def drawn(seed: int) -> tuple[list[Buyer], list[Seller]]:
    """One to eight on each side, of very unequal size; the first buyer would buy of anybody."""
    draw = np.random.default_rng(seed)

    def positive(spread: float) -> float:
        return float(np.exp(draw.normal(0.0, spread)))

    buyers = [
        Buyer(
            first=draw.uniform(7.0, 10.0) if at == 0 else draw.uniform(0.5, 10.0),
            fading=positive(1.5),
            most=10 * positive(0.8),
            form="logarithmic" if draw.random() < 0.5 else "linear",
        )
        for at in range(draw.integers(1, 9))
    ]
    sellers = [
        Seller(draw.uniform(0.0, 6.0), positive(1.5), 10 * positive(0.8))
        for _ in range(draw.integers(1, 9))
    ]
    return buyers, sellers


if __name__ == "__main__":
    main()
