"""Groups of jobs as lines and sorted bids: what the tiers cut.

Axes: G groups · M lines of a group, padded · J jobs · R runs (consecutive jobs of one group).
One unit of a job's *weight* is what its own limit counts: a million samples, a GPU-hour, or the
whole job. A job of bid b and weight w that takes line m gains w x (worth b - charge) at reserve
prices and uses w x hours GPU-hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.errors import BadMarket
from economics.market import Array, Index, Mask


@dataclass(frozen=True, slots=True)
class Lines:
    """The ways to serve each group, per unit of weight. Padding has an infinite charge.

    A line may use a second pool too: a job that its demand and its width limit at once does best
    on one pool or on two.
    """

    pool: Index  # (G, M)
    worth: Array  # (G, M) credits per unit of bid
    charge: Array  # (G, M) credits: reserve, transfer, extra, moving
    hours: Array  # (G, M) GPU-hours
    second: Index | None = None  # (G, M) the other pool; None = no line has one
    more: Array | None = None  # (G, M) GPU-hours there

    def __post_init__(self) -> None:
        arrays = (self.pool, self.worth, self.charge, self.hours, self.second, self.more)
        shapes = {array.shape for array in arrays if array is not None}
        if len(shapes) > 1:
            raise BadMarket("lines", f"have several shapes: {sorted(shapes)}")

    def rents(self, rent: Array) -> Array:
        """Credits of rent one unit of weight pays on each line, (G, M)."""
        paid: Array = self.hours * rent[self.pool]
        if self.second is not None and self.more is not None:
            paid += self.more * rent[self.second]
        return paid

    def cost(self, rent: Array) -> Array:
        """Credits one unit of weight pays on each line at these rents, (G, M)."""
        cost: Array = self.charge + self.rents(rent)
        return cost

    def uses(self, group: Index, line: Index) -> tuple[Index, Index, Array]:
        """Every use of a pool by these lines: which of them, the pool, GPU-hours per weight."""
        at = np.arange(group.size)
        pool, hours = self.pool[group, line], self.hours[group, line]
        if self.second is None or self.more is None:
            return at, pool, hours
        more = self.more[group, line]
        two = np.flatnonzero(more > 0)
        return (
            np.concatenate([at, two]),
            np.concatenate([pool, self.second[group[two], line[two]]]),
            np.concatenate([hours, more[two]]),
        )

    def single(self, group: Index, line: Index) -> Mask:
        """Whether these lines use one pool only."""
        if self.more is None:
            return np.ones(group.size, dtype=bool)
        one: Mask = self.more[group, line] == 0
        return one

    def part(self, groups: Index) -> Lines:
        """The lines of some groups."""
        return Lines(
            *(self.pool[groups], self.worth[groups], self.charge[groups], self.hours[groups]),
            second=None if self.second is None else self.second[groups],
            more=None if self.more is None else self.more[groups],
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """Every job, sorted by group, then bid, then from the last id to the first.

    So the end of a run is its highest bid and, among equal bids, its first id.
    """

    lines: Lines
    start: Index  # (G + 1,) where each group begins
    bid: Array  # (J,)
    weight: Array  # (J,) positive
    offered: Array  # (J,) weight x bid
    order: Index  # (J,) which of the caller's jobs stands here

    @property
    def groups(self) -> int:
        return int(self.start.size - 1)

    def group_of(self, at: Index) -> Index:
        """The group of each place in the order."""
        if at.size < self.bid.size // 4:
            group: Index = np.searchsorted(self.start, at, side="right") - 1
            return group
        every: Index = np.repeat(np.arange(self.groups), np.diff(self.start))
        return every[at]


@dataclass(frozen=True, slots=True)
class Runs:
    """A cut of the order into runs that are served alike."""

    cut: Index  # (R + 1,) places where runs begin, then J
    group: Index  # (R,)
    weight: Array  # (R,) total
    bid: Array  # (R,) mean, by weight

    @property
    def count(self) -> int:
        return int(self.group.size)


def demand_of(lines: Lines, group: Index, bid: Array, weight: Array) -> Demand:
    """Sort the jobs; group, bid and weight are (J,). Every group of `lines` must have a job."""
    order = sorted_order(group, bid)
    size = np.bincount(group, minlength=lines.pool.shape[0])
    start = np.concatenate([[0], np.cumsum(size)])
    bid, weight = bid[order], weight[order]
    return Demand(lines, start.astype(np.int64), bid, weight, weight * bid, order)


def sorted_order(group: Index, bid: Array) -> Index:
    """Jobs by group, then bid, then from the last id to the first, (J,)."""
    if group.max(initial=0) < np.iinfo(np.int16).max:
        order = np.argsort(bid)
        if (
            np.diff(bid[order]) > 0
        ).all():  # no two alike: the quick sort is as good as a stable one
            few: Index = order[np.argsort(group.astype(np.int16)[order], kind="stable")]
            return few
    # Sorting the reversed arrays with a stable sort puts the first id of equal bids at the end.
    result: Index = group.size - 1 - np.lexsort((bid[::-1], group[::-1]))
    return result


def runs_of(demand: Demand, cut: Index) -> Runs:
    """The runs between these places. O(J) additions, so that no prefix sum cancels."""
    begin = cut[:-1]
    weight = np.add.reduceat(demand.weight, begin)
    offered = np.add.reduceat(demand.offered, begin)
    return Runs(cut, demand.group_of(begin), weight, offered / weight)


def even_cuts(demand: Demand, parts: int) -> Index:
    """Places that cut each group into `parts` runs of about as many jobs, (R + 1,)."""
    size = np.diff(demand.start)[:, None]
    places = demand.start[:-1, None] + size * np.arange(1, parts) // parts
    return np.unique(np.concatenate([demand.start, places.ravel()]))


def ranges(first: Index, end: Index) -> Index:
    """All places from each first to before its end, one after the other."""
    size = end - first
    total = int(size.sum())
    shift = np.repeat(first - np.concatenate([[0], np.cumsum(size)[:-1]]), size)
    places: Index = np.arange(total) + shift
    return places
