"""Proportional response: buyers split budgets by what each good does for them, again and again.

    maximise    sum of B_i log u_i,   u_i = sum of v_ip x_ip    over x >= 0 with sum_i x_ip <= C_p

is solved by its equilibrium: every buyer bids b_ip on the goods, a price is the sum of the bids on
it, the good goes to its bidders in proportion, and next time a buyer bids in proportion to what it
got from each. That is mirror descent on the bids; a longer step (the gains to the power STRETCH)
takes half the rounds and is given up when the gap stops falling.

At any prices p with p C = B the optimum is at most sum of B_i log(B_i max_p v_ip / p_p), so

    gap = sum of B_i log(B_i max_p (v_ip / p_p) / u_i) / B

bounds, per unit of budget, how far the utilities are from the best: the certificate. Buyers with
the same gains are one buyer with the sum of their budgets, and share what it gets by budget.

Source: Wu and Zhang, "Proportional response dynamics leads to market equilibrium" (STOC 2007); as
mirror descent in Birnbaum, Devanur and Xiao, "Distributed algorithms via gradient descent for
Fisher markets" (EC 2011); the programme is Eisenberg and Gale's (1959).
Axes: B buyers · P goods · Q pairs of a buyer and a good it can use, sorted by buyer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.errors import NotCleared
from economics.market import Array, Index

STRETCH = 2  # power of the gains in a step
FALLING = 0.999  # of the last gap: above it the long step goes to and fro
EVERY = 10  # rounds between looks at the gap
MOST_ROUNDS = 20_000


@dataclass(frozen=True, slots=True)
class Fisher:
    """Buyers and the goods they can use; every buyer can use one at least."""

    buyer: Index  # (Q,) ascending, every buyer at least once
    good: Index  # (Q,)
    value: Array  # (Q,) > 0, utility of a unit of the good
    budget: Array  # (B,) > 0
    supply: Array  # (P,) > 0 where anybody bids


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """Prices and shares, and how far they are proved to be from the best at most."""

    price: Array  # (P,) budget per unit of the good
    amount: Array  # (Q,) units
    utility: Array  # (B,)
    gap: float  # per unit of budget
    rounds: int


def respond(market: Fisher, *, gap: float) -> Equilibrium:
    """Respond until the gap is proved; raises NotCleared when MOST_ROUNDS do not do it."""
    start = np.searchsorted(market.buyer, np.arange(market.budget.size))
    worth = market.value * market.supply[market.good]  # of all of the good
    bid = _within(worth.copy(), market, start)
    stretch, last = STRETCH, np.inf
    for rounds in range(1, MOST_ROUNDS + 1):
        price = np.bincount(market.good, bid, market.supply.size).astype(np.float64)
        gain = worth / price[market.good]  # utility of a unit of budget
        if rounds % EVERY == 0:
            utility = np.add.reduceat(bid * gain, start)
            found = _gap(market.budget, np.maximum.reduceat(gain, start), utility)
            if found <= gap:
                return _equilibrium(market, bid, price, utility, found, rounds)
            stretch, last = (stretch if found <= FALLING * last else 1), found
        for _ in range(stretch):
            bid *= gain
        bid = _within(bid, market, start)
    raise NotCleared("the response did not settle")


def _within(bid: Array, market: Fisher, start: Index) -> Array:
    """The same bids in proportion, each buyer's adding up to its budget."""
    bid *= (market.budget / np.add.reduceat(bid, start))[market.buyer]
    return bid


def _gap(budget: Array, best: Array, utility: Array) -> float:
    total = budget.sum()
    return float(budget @ np.log(budget * best / utility) / total)


def _equilibrium(
    market: Fisher, bid: Array, price: Array, utility: Array, gap: float, rounds: int
) -> Equilibrium:
    per_unit = np.divide(price, market.supply, out=np.zeros(price.shape), where=market.supply > 0)
    amount = bid / per_unit[market.good]
    return Equilibrium(per_unit, amount, utility, gap, rounds)
