"""What a site adds to those who came before it, on average over all orders of joining.

The Shapley value (Shapley 1953). It pays every site at least what it makes alone, but it need not
be stable: other sites may do better by leaving together (economics.md, 1.3.5). Who publishes it
has to say which coalition would.

Axes: N sites · M sites of a block, which trade among themselves only · B pairs of orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.special import stdtrit

from economics.errors import BadBook, Problem
from economics.market import Array, Index
from economics.sharing.game import Game, coalition_sums
from economics.sharing.warm import bits

EXACT_UP_TO = 12  # sites of a block whose coalitions are all solved unless more are asked for
MOST_EXACT = 16
FEWEST_PAIRS = 50  # independent blocks before an interval means anything
PAIRS_AT_ONCE = 10  # drawn between two looks at the interval
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Sampled:
    """An estimate from orders of joining drawn at random, with its interval. Credits."""

    value: Array  # (N,) sums to the value of all sites
    half_width: Array  # (N,) of the 95 % interval of each value by itself
    pairs: int  # B: orders drawn, each with its reverse
    reached: bool  # whether the intervals became as narrow as asked for before the most pairs
    exact: bool = False


def shapley(game: Game, *, most: int = EXACT_UP_TO) -> Array:
    """The Shapley value, (N,) credits, from the values of all coalitions of sites that trade.

    Raises BadBook where more than `most` sites (at most 16) trade with each other: sample then.
    """
    value = np.zeros(game.sites)
    for block in game.blocks:
        _check_size(block.bit_count(), min(most, MOST_EXACT))
        value[list(bits(block))] = of_table(game.block_values(block))
    return value


def of_table(values: Array) -> Array:
    """The Shapley value, (M,), of a game given by all its values by coalition, (2^M,).

    The weighted sum over coalitions S without site i of v(S + i) - v(S), with weight
    |S|! (M - |S| - 1)! / M!.
    """
    sites = values.size.bit_length() - 1
    weight = np.array([1.0 / (sites * comb(sites - 1, size)) for size in range(sites)])
    result = np.zeros(sites)
    for site in range(sites):
        without, joined = np.moveaxis(values.reshape(-1, 2, 1 << site), 1, 0)
        size = coalition_sums(np.ones(sites - 1)).astype(np.int64).reshape(without.shape)
        result[site] = float((weight[size] * (joined - without)).sum())
    return _balanced(result, float(values[-1] - values[0]))


def shapley_sampled(
    game: Game, *, seed: int, half_width: float = 0.005, most: int = 2_000
) -> Sampled:
    """An estimate of the Shapley value whose intervals are narrow enough, or the best of `most`.

    Orders of joining are drawn in antithetic pairs, an order and its reverse; a pair is one
    independent observation. Drawing stops when every 95 % interval is at most `half_width` times
    the value of all sites wide to each side, never before 50 pairs (economics.md, section 2; the
    plain method is Castro, Gomez, Tejada 2009).
    """
    draw = np.random.default_rng(seed)
    sites = np.array(list(bits(game.players)), dtype=np.int64)
    sampler = _Sampler(game, sites)
    goal, most = half_width * abs(game.grand), max(most, FEWEST_PAIRS)
    while sampler.pairs < FEWEST_PAIRS or not (sampler.reaches(goal) or sampler.pairs >= most):
        for _ in range(min(PAIRS_AT_ONCE, most - sampler.pairs)):
            sampler.add(draw.permutation(sites.size))
    value, width = np.zeros(game.sites), np.zeros(game.sites)
    value[sites] = _balanced(sampler.mean, game.grand)
    width[sites] = sampler.half_width()
    return Sampled(value, width, sampler.pairs, sampler.reaches(goal))


class _Sampler:
    """Running mean and spread of what sites add, over pairs of orders (Welford 1962)."""

    def __init__(self, game: Game, sites: Index) -> None:
        self.pairs = 0
        self.mean = np.zeros(sites.size)
        self._spread = np.zeros(sites.size)
        self._game, self._sites = game, sites
        self._seen: dict[int, dict[int, float]] = {}

    def add(self, order: Index) -> None:
        """One order, and the same from its end."""
        pair = (self._added(order) + self._added(order[::-1])) / 2
        self.pairs += 1
        off = pair - self.mean
        self.mean = self.mean + off / self.pairs
        self._spread = self._spread + off * (pair - self.mean)

    def half_width(self) -> Array:
        """Of the interval of each mean, from the standard error over pairs."""
        error = np.sqrt(self._spread / (self.pairs - 1) / self.pairs)
        width: Array = float(stdtrit(self.pairs - 1, (1 + CONFIDENCE) / 2)) * error
        return width

    def reaches(self, goal: float) -> bool:
        """Whether every interval is narrow enough."""
        return bool((self.half_width() <= goal).all())

    def _added(self, order: Index) -> Array:
        """What each site adds to those before it. From all sites down to one, since the solver
        starts at the optimum of all."""
        masks = [0]
        for site in self._sites[order].tolist():
            masks.append(masks[-1] | 1 << site)
        values = self._game.walk(masks[::-1], self._seen)[::-1]
        added = np.zeros(order.size)
        added[order] = np.diff(values)
        return added


def _balanced(value: Array, total: float) -> Array:
    """The same values with the rounding of their sum put on the largest."""
    if not value.size:
        return value
    result = value.copy()
    result[np.argmax(np.abs(value))] += total - float(value.sum())
    return result


def _check_size(sites: int, most: int) -> None:
    if sites > most:
        why = (
            f"{sites} of them trade with each other; exact Shapley values are for up to {most}, "
            "beyond that they are sampled"
        )
        raise BadBook((Problem("sites", why),))
