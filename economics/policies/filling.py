"""Raise everybody's level together, as water rises, until nobody's can be raised without another's.

A *curve* says what each job needs at a level t >= 0:

    need(t) = pace t / (1 - lead t),    never less than it was promised nor more than it can use.

The highest level all needs can be met at is found by prices. At any rents λ >= 0 with λ C = 1 the
jobs' needs cost at least D(t; λ), the sum of what the cheapest ways to them cost, so they cannot be
met when D(t; λ) > 1: the root of D bounds the level from above. The programme of `pressure.py` at
the bound either meets the needs, and the bound is the answer, or gives rents with a smaller root.
The rents are corners of one polyhedron, so this ends, and in practice after a few programmes.

Then jobs that the last rents make pay for more are held where they are (raising one of them would
break the bound), as are those that can use no more, and the others rise on: lexicographic max-min.
So nothing that anybody could still use is left idle.

Source: the cutting planes are Kelley's; water-filling as in Radunovic and Le Boudec, "A unified
framework for max-min and min-max fairness" (2007).
Axes: P pools · E entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from economics.errors import NotCleared
from economics.market import Array, Mask
from economics.policies.fleet import Crowd, Fleet, Hull, normalised
from economics.policies.pressure import Pressed, Pressure

TIGHT = 1e-9  # this close to all the way is all the way
ROUNDED = 1.0 + 1e-12  # costs this close to each other are equal
NEAR = 1e-12  # relative; needs this close to what a job can use are all it can use
MOST_STEPS = 200  # to the next level; two or three are usual
LEAST_STRIDE = 0.01  # of the level: looking far ahead costs the solver more than looking twice
LONGER = 4.0


@dataclass(frozen=True, slots=True)
class Curve:
    """What a job of each entry needs at a level; a pace of 0 asks for nothing at any level."""

    pace: Array  # (E,) Msamples
    lead: Array  # (E,)

    @classmethod
    def straight(cls, pace: Array) -> Curve:
        """Needs in proportion to the level."""
        return cls(pace, np.zeros(pace.shape))

    def need(self, level: float) -> Array:
        """Msamples, (E,); inf from the level on at which no speed is enough."""
        ahead = 1.0 - self.lead * level
        need = np.full(self.pace.shape, np.inf)
        np.divide(self.pace * level, ahead, out=need, where=ahead > 0)
        return need

    def level(self, need: Array) -> Array:
        """The level at which a need is met, (E,); inf where there is none to meet."""
        level = np.full(self.pace.shape, np.inf)
        np.divide(need, self.pace + self.lead * need, out=level, where=self.pace > 0)
        return level


@dataclass(frozen=True, slots=True)
class Filled:
    """What each job of an entry is to be delivered."""

    need: Array  # (E,) Msamples
    level: float  # of those lowest; inf when nobody asks for anything
    taken: Pressed  # one way to meet the needs
    programmes: int  # solved on the way


@dataclass(slots=True)
class _Water:
    """The state of a filling."""

    pressure: Pressure
    curve: Curve
    reach: Array  # (E,)
    held: Array  # (E,) Msamples; nan = still rising
    level: float = 0.0
    stride: float = np.inf  # how far above the level to look at first
    programmes: int = 0
    last: Pressed | None = None

    @property
    def rising(self) -> Mask:
        rising: Mask = np.isnan(self.held)
        return rising

    def need(self, level: float) -> Array:
        """What everybody is to be delivered when those who still rise are at a level, (E,)."""
        wanted = np.clip(self.curve.need(level), self.pressure.crowd.least, self.reach)
        return np.where(self.rising, wanted, self.held)

    def press(self, bound: float) -> Pressed:
        """Raise the level as far towards a bound as needs can be met."""
        self.programmes += 1
        self.last = self.pressure.press(self.need(self.level), self.need(bound))
        return self.last


def fill(
    fleet: Fleet, crowd: Crowd, curve: Curve, *, once: bool = False
) -> tuple[Filled, Pressure]:
    """Fill to the end, or with `once` only until the first are held; the others are at that level.

    Raises NotCleared("infeasible") when what was promised is more than the pools can deliver.
    """
    reach = np.maximum(crowd.reach(fleet), crowd.least)
    water = _Water(Pressure(fleet, crowd), curve, reach, np.full(reach.shape, np.nan))
    if crowd.least.any():
        water.press(0.0)
    rent = normalised(np.ones(fleet.capacity.shape), fleet.capacity) if fleet.kind.size else None
    while water.rising.any():
        before = water.level
        rent = _raise(water, rent)
        water.stride = max(water.level - before, LEAST_STRIDE * water.level)
        if once:
            break
        _hold(water, rent)
        rent = None
    need = water.need(water.level)
    lowest = float(curve.level(need).min(initial=np.inf))
    taken = water.last if water.last is not None else water.press(water.level)
    return Filled(need, lowest, taken, water.programmes), water.pressure


def _raise(water: _Water, rent: Array | None) -> Array | None:
    """Lift the level until no higher one can be met.

    Gives the rents that prove it, or None when everybody has all they can use.
    """
    rising = water.rising & (water.curve.pace > 0)
    top = float(water.curve.level(water.reach)[rising].max(initial=0.0))
    bound = top if rent is None else _root(water, rent, top)
    proof = rent if bound < top else None
    for _ in range(MOST_STEPS):
        goal = min(bound, water.level + water.stride)
        pressed = water.press(goal)
        if pressed.part < 1 - TIGHT:
            proof = normalised(pressed.rent, water.pressure.fleet.capacity)
            lower = _root(water, proof, goal)
            if lower < goal:
                bound = lower
                continue
        water.level, water.stride = goal, LONGER * water.stride
        if goal >= bound:
            return proof
    raise NotCleared("the levels did not settle")


def _root(water: _Water, rent: Array, bound: float) -> float:
    """The highest level up to `bound` at which these rents do not rule the needs out."""
    crowd, hull = water.pressure.crowd, Hull.of(water.pressure.fleet, rent)

    def cost(level: float) -> float:
        return float(crowd.count @ hull.price(crowd, water.need(level)))

    limit = max(1.0, cost(water.level)) * ROUNDED  # where the water stands is known to be possible
    if cost(bound) <= limit:
        return bound
    return float(
        brentq(lambda level: cost(level) - limit, water.level, bound, xtol=1e-300, rtol=1e-15)
    )


def _hold(water: _Water, rent: Array | None) -> None:
    """Hold those who can rise no more: all they can use, or the rents price any more of it."""
    need, rising = water.need(water.level), water.rising
    done = (need >= water.reach * (1 - NEAR)) | (water.curve.pace <= 0)
    if rent is None:
        done = np.ones(need.shape, dtype=bool)
    else:
        fleet, crowd = water.pressure.fleet, water.pressure.crowd
        dear = Hull.of(fleet, rent).marginal(crowd, need)
        done |= dear > 0
    if not (done & rising).any():
        raise NotCleared("the levels did not settle")
    water.held = np.where(rising & done, need, water.held)
