"""Prices near the last ones: how much calmer, and at what regret (economics.md, 10, check 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from economics.book import read_book
from economics.incentives.draws import draw
from economics.rounds import decide

EPSILON = 0.005
RUNS, ROUNDS = 6, 10


def jittered(book: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """The next round: demands 15 % and bids 5 % off, drawn anew around the first round's."""
    jobs = [
        {
            **job,
            "demand": float(job["demand"] * np.exp(0.15 * random.normal())),
            "value": float(job["value"] * np.exp(0.05 * random.normal())),
        }
        for job in book["jobs"]
    ]
    return {**book, "jobs": jobs}


def volatility(prices: list[np.ndarray]) -> float:
    """Mean change of a price from round to round, over the mean price."""
    table = np.array(prices)
    return float(np.abs(np.diff(table, axis=0)).mean() / table.mean())


def cleared(book: dict[str, Any], **rules: Any) -> dict[str, Any]:
    return decide(read_book({**book, "rules": rules}))


@pytest.mark.slow
def test_smoothed_prices_move_a_third_as_much_and_the_regret_stays_within_epsilon():
    raw, smooth = [], []
    for seed in range(RUNS):
        book, random = draw(seed, sites=4), np.random.default_rng(seed)
        free: list[np.ndarray] = []
        near: list[np.ndarray] = []
        previous: dict[str, float] = {}
        for _ in range(ROUNDS):
            told = jittered(book, random)
            bare = cleared(told, epsilon=0.0)
            held = cleared({**told, "previous_prices": previous}, epsilon=EPSILON)
            assert held["regret"] <= EPSILON * held["welfare"] + 1e-6
            previous = held["prices"]
            free.append(np.array(list(bare["prices"].values())))
            near.append(np.array(list(previous.values())))
        raw.append(volatility(free))
        smooth.append(volatility(near))
    assert np.mean(raw) > 0.05, "prices that never move prove nothing"
    assert np.mean(smooth) <= np.mean(raw) / 3
