"""One price that follows excess demand, and sites and tenants that follow their own profit.

The process of Arrow and Hurwicz, as Pal, Lin, Ahuja and Golubchik propose it for clouds whose
supply and demand move ("Cloudlet Bazaar", 2017). At a price p, in every step at once,

    x_j <- between 0 and most_j:  x_j + step_j (u_j'(x_j) - p)         a buyer with utility u_j
    s_i <- between 0 and most_i:  s_i + step_i (p - c_i'(s_i))         a seller with cost c_i
    p   <- max(0, p + eta (sum x - sum s))

It stops when nobody would move further than `tolerance` and demand meets supply to `tolerance`, or
the price is zero and supply left over. For concave profits that is the optimum of

    maximise sum_j u_j(x_j) - sum_i c_i(s_i)  subject to  sum x <= sum s

and p is the dual of its constraint, which `reference_price` computes with a solver instead.

Each step is one over the curvature of the profit where its owner stands: a quadratic profit is then
at its best answer at once, and a logarithmic one closes in on it from below. An eta of one over the
sum of those steps cannot overshoot when all answer; where most are at a bound, the others answer
more weakly than that, so `eta` grows as long as the excess keeps its sign, and halves when it
changes. Amounts are GPUs (or any divisible good), prices and marginal worth credits for one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from economics.errors import EconomicsError, NotCleared
from economics.market import Array

STEPS = 2_000
TOLERANCE = 1e-6  # of the largest amount that could be traded
GROWTH, CUT = 1.2, 0.5  # of eta while the excess keeps its sign, and when it changes
FLATTEST = 1e-12  # curvature, so that a step is finite


class BadTraders(EconomicsError):
    """Buyers or sellers without a concave profit, or none at all; or a pace that is none."""


@dataclass(frozen=True, slots=True)
class Buyer:
    """Marginal utility: `first - fading x` when linear, else `first / (1 + fading x)`."""

    first: float  # credits for the first small amount
    fading: float  # > 0
    most: float  # > 0, the amount wanted at most
    form: Literal["linear", "logarithmic"] = "linear"

    def __post_init__(self) -> None:
        _check(self.first, self.fading, self.most)


@dataclass(frozen=True, slots=True)
class Seller:
    """Marginal cost: `reserve + rising s`."""

    reserve: float  # credits
    rising: float  # > 0
    most: float  # > 0, the capacity

    def __post_init__(self) -> None:
        _check(self.reserve, self.rising, self.most)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Where the process stands when it stops."""

    kind: Literal["settled", "stopped"]  # stopped: the steps ran out first
    price: float
    demand: tuple[float, ...]
    supply: tuple[float, ...]
    excess: float  # demand less supply
    steps: int
    path: tuple[float, ...]  # the price before each step, and the last one


@dataclass(frozen=True, slots=True)
class _Parties:
    """Buyers first, then sellers; all amounts of sellers count as negative."""

    first: Array  # (T,)
    bend: Array  # (T,) change of the marginal worth per amount, where it is linear
    logarithmic: Array  # (T,) whether it is not
    low: Array  # (T,)
    high: Array  # (T,)

    @classmethod
    def of(cls, buyers: Sequence[Buyer], sellers: Sequence[Seller]) -> _Parties:
        return cls(
            np.array([b.first for b in buyers] + [s.reserve for s in sellers]),
            np.array([b.fading for b in buyers] + [s.rising for s in sellers]),
            np.array([b.form == "logarithmic" for b in buyers] + [False] * len(sellers)),
            np.array([0.0] * len(buyers) + [-s.most for s in sellers]),
            np.array([b.most for b in buyers] + [0.0] * len(sellers)),
        )

    def step(self, held: Array) -> Array:
        """One over the curvature of each profit at what is held, (T,)."""
        curved = self.first * self.bend / (1.0 + self.bend * np.maximum(held, 0.0)) ** 2
        curvature = np.where(self.logarithmic, np.maximum(curved, FLATTEST), self.bend)
        step: Array = 1.0 / curvature
        return step

    def marginal(self, held: Array) -> Array:
        """What a little more is worth to each; to a seller, to sell a little less, (T,)."""
        linear = self.first - self.bend * held
        curved = self.first / (1.0 + self.bend * np.maximum(held, 0.0))
        marginal: Array = np.where(self.logarithmic, curved, linear)
        return marginal

    def moved(self, held: Array, price: float) -> Array:
        """Amounts after one step up the gradient of each profit, (T,)."""
        moved: Array = np.clip(
            held + self.step(held) * (self.marginal(held) - price), self.low, self.high
        )
        return moved


def adjust_price(
    buyers: Sequence[Buyer],
    sellers: Sequence[Seller],
    *,
    start: float = 0.0,
    eta: float | None = None,
    tolerance: float = TOLERANCE,
    steps: int = STEPS,
) -> Adjusted:
    """Run the process from nobody trading at price `start`; a given `eta` is kept as it is.

    `tolerance` is a share of what could be traded at most. Never raises for want of convergence:
    `kind` says whether the market settled.
    """
    if not (buyers and sellers):
        raise BadTraders("a price needs a buyer and a seller")
    if start < 0 or (eta is not None and eta <= 0):
        raise BadTraders("a price starts at zero or more, and eta is positive")
    parties = _Parties.of(buyers, sellers)
    held, price = np.zeros(parties.first.size), start
    scale = min(float(parties.high.sum()), -float(parties.low.sum()))
    pace = eta if eta is not None else 1.0 / float(parties.step(held).sum())
    path, before = [price], 0.0
    for _ in range(steps):
        moved = parties.moved(held, price)
        excess = float(moved.sum())
        change = float(np.abs(moved - held).sum())
        held = moved
        if change <= tolerance * scale and _cleared(excess, price, tolerance * scale):
            return _adjusted("settled", held, path, len(buyers))
        if eta is None:
            pace *= CUT if excess * before < 0 else GROWTH
        price, before = max(0.0, price + pace * excess), excess
        path.append(price)
    return _adjusted("stopped", held, path, len(buyers))


def _cleared(excess: float, price: float, tolerance: float) -> bool:
    """Whether demand meets supply, or what is left over is free."""
    return excess <= tolerance and (excess >= -tolerance or price == 0.0)


def _adjusted(
    kind: Literal["settled", "stopped"], held: Array, path: list[float], buyers: int
) -> Adjusted:
    return Adjusted(
        kind=kind,
        price=path[-1],
        demand=tuple(float(amount) for amount in held[:buyers]),
        supply=tuple(float(-amount) for amount in held[buyers:]),
        excess=float(held.sum()),
        steps=len(path) - 1,
        path=tuple(path),
    )


def reference_price(buyers: Sequence[Buyer], sellers: Sequence[Seller]) -> float:
    """The dual of the balance of demand and supply, credits; raises NotCleared unless optimal.

    Where demand meets supply over a whole interval of prices, it is one of them.
    """
    import cvxpy as cp  # noqa: PLC0415 slow to load, and only this function needs it

    parties = _Parties.of(buyers, sellers)
    held = cp.Variable(parties.first.size)
    balance = cp.sum(held) <= 0
    worth = sum(_worth(cp, parties, held, at) for at in range(parties.first.size))
    problem = cp.Problem(cp.Maximize(worth), [balance, held >= parties.low, held <= parties.high])
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL:
        raise NotCleared(problem.status)
    return float(balance.dual_value)


def _worth(cp: Any, parties: _Parties, held: Any, at: int) -> Any:
    """Utility of a buyer, or a seller's cost, negative, as an expression."""
    first, bend = float(parties.first[at]), float(parties.bend[at])
    if parties.logarithmic[at]:
        return first / bend * cp.log1p(bend * held[at])
    return first * held[at] - bend / 2 * cp.square(held[at])


def _check(first: float, bend: float, most: float) -> None:
    if not (math.isfinite(first) and first >= 0):
        raise BadTraders("the worth of the first amount is finite and at least zero")
    if not (math.isfinite(bend) and bend > 0 and math.isfinite(most) and most > 0):
        raise BadTraders("the curvature and the most that is traded are positive and finite")
