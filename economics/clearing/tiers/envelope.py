"""What every job would choose at given rents, group by group, and what that is worth.

The best line of a group is the upper envelope of its lines in the bid. All envelopes are walked at
once, from the lowest bid upwards: the next line is the steeper one that crosses first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.clearing.tiers.demand import Demand
from economics.market import Array, Index

STEEPER = 1e-12  # relative difference of two slopes that makes two lines


@dataclass(frozen=True, slots=True)
class Choices:
    """Segments of the order, each with the line all its jobs like best. Z segments."""

    begin: Index  # (Z,) ascending; the first of every group is its start
    group: Index  # (Z,)
    line: Index  # (Z,) M = rather nothing
    gain: Array  # (Z,) credits the segment's jobs keep at the rents


def choices(demand: Demand, rent: Array) -> Choices:
    """The best line of every job at rents (P,), as segments. O(J + G M x segments of a group)."""
    worth, cost = _with_nothing(demand, rent)
    group = np.arange(demand.groups)
    place = demand.start[:-1].copy()
    line = np.argmax(worth * demand.bid[place][:, None] - cost, axis=1)
    found: list[tuple[Index, Index, Index]] = [(place.copy(), group, line)]
    tiny = STEEPER * worth.max(axis=1, initial=0.0)
    while group.size:
        steps = worth[group] - worth[group, line][:, None]
        with np.errstate(all="ignore"):
            crossing = (cost[group] - cost[group, line][:, None]) / steps
        crossing[steps <= tiny[group][:, None]] = np.inf
        line = np.argmin(crossing, axis=1)
        place = _first_at_least(demand, place, group, crossing[np.arange(group.size), line])
        open_ = place < demand.start[group + 1]
        group, line, place = group[open_], line[open_], place[open_]
        found.append((place, group, line))
    begin, groups, lines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # A segment that a later one begins at the same place is empty: the later one counts.
    sort = np.argsort(begin, kind="stable")
    begin, groups, lines = begin[sort], groups[sort], lines[sort]
    last = np.append(begin[1:] != begin[:-1], True)
    begin, groups, lines = begin[last], groups[last], lines[last]
    total = np.add.reduceat(demand.weight, begin)
    offered = np.add.reduceat(demand.offered, begin)
    served = lines < demand.lines.pool.shape[1]
    price = np.where(served, cost[groups, lines], 0.0)
    gain = np.maximum(worth[groups, lines] * offered - price * total, 0.0)
    return Choices(begin, groups, lines, gain)


def bound_at(capacity: Array, rent: Array, chosen: Choices) -> float:
    """No award is worth more: rents of all capacity, plus what every job would keep (credits)."""
    return float(capacity @ rent + chosen.gain.sum())


def _with_nothing(demand: Demand, rent: Array) -> tuple[Array, Array]:
    """Slopes and costs with one more line, that of not being served, (G, M + 1)."""
    none = np.zeros((demand.groups, 1))
    worth = np.concatenate([demand.lines.worth, none], axis=1)
    return worth, np.concatenate([demand.lines.cost(rent), none], axis=1)


def _first_at_least(demand: Demand, low: Index, group: Index, bid: Array) -> Index:
    """The first place of each group, from `low` on, whose bid is at least `bid`: by halving."""
    high = demand.start[group + 1].copy()
    low, last = low.copy(), demand.bid.size - 1
    while True:
        open_ = low < high
        if not open_.any():
            return low
        middle = (low + high) >> 1
        less = demand.bid[np.minimum(middle, last)] < bid
        low = np.where(open_ & less, middle + 1, low)
        high = np.where(open_ & ~less, middle, high)
