"""From the optimum of runs to the award of every job, by a rule that knows only the book.

At the rents given, most jobs like one line best and have it in full. The others, tied between
lines or at the margin, share what is left: running jobs stay where they are if they can, then the
first job by id gets as much as it can on its first line by pool, and so on (economics.md, 3.2).
Where very many jobs tie, that walk goes over tied *segments* of a group instead, and inside a
segment the highest bid comes first, then the first id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, eye_array, hstack, vstack

from economics.clearing.solver import Linear
from economics.clearing.tiers.demand import Demand, Runs, ranges
from economics.clearing.ties import MOST_STEPS, walk
from economics.market import Array, Index, Mask

TIED = 1e-8  # relative to what the line costs, differences that are none
EXHAUSTED = 1e-9  # of a pool: what is left below this is rounding
SCARCE = 1e-7  # rents above this, relative to the dearest, mean that a pool is sold out


@dataclass(frozen=True, slots=True)
class Awards:
    """Lines taken by jobs. A job may appear twice."""

    place: Index  # (A,) in the demand's order
    line: Index  # (A,)
    share: Array  # (A,) of the job's weight


@dataclass(frozen=True, slots=True)
class _Segment:
    """Jobs of one group that are tied between the same lines."""

    begin: int
    end: int
    lines: Index
    must: bool  # not being served is not among what they like best


def awards_at(demand: Demand, rent: Array, capacity: Array, stays: Mask) -> Awards:
    """The award that these rents, (P,), support. `stays` (G, M): the group already runs there.

    Raises NotCleared when the rents support none, to solver accuracy.
    """
    sure, segments = _sorted_out(demand, rent)
    left = 1.0 - used_hours(demand, sure, capacity.size) / np.where(capacity > 0, capacity, 1.0)
    left[(left < EXHAUSTED) | (capacity <= 0)] = 0.0
    tied = _Tied(demand, rent, capacity, left, stays).shared(segments)
    return Awards(
        np.concatenate([sure.place, tied.place]),
        np.concatenate([sure.line, tied.line]),
        np.concatenate([sure.share, tied.share]),
    )


def used_hours(demand: Demand, awards: Awards, pools: int) -> Array:
    """GPU-hours sold by each pool, (P,)."""
    at, pool, hours = demand.lines.uses(demand.group_of(awards.place), awards.line)
    taken = demand.weight[awards.place] * awards.share
    return np.bincount(pool, hours * taken[at], pools).astype(np.float64)


def awards_of(demand: Demand, runs: Runs, run: Index, line: Index, share: Array) -> Awards:
    """The award of jobs that gives each run its shares, the highest bids on the steepest lines.

    It is worth at least as much as that of the runs, whatever the gap they were stopped at.
    """
    whole = share >= 1.0 - 1e-12
    begin, end = runs.cut[run[whole]], runs.cut[run[whole] + 1]
    split, first = np.unique(run[~whole], return_inverse=True)
    parts = [
        _spread(
            demand,
            _Segment(int(runs.cut[at]), int(runs.cut[at + 1]), line[~whole][first == number], True),
            share[~whole][first == number],
        )
        for number, at in enumerate(split)
    ]
    return Awards(
        np.concatenate([ranges(begin, end), *(part.place for part in parts)]),
        np.concatenate([np.repeat(line[whole], end - begin), *(part.line for part in parts)]),
        np.concatenate([np.ones(int((end - begin).sum())), *(part.share for part in parts)]),
    )


def gain_of(demand: Demand, awards: Awards) -> float:
    """Credits the award creates at reserve prices."""
    group = demand.group_of(awards.place)
    at = (group, awards.line)
    per_unit = demand.lines.worth[at] * demand.bid[awards.place] - demand.lines.charge[at]
    return float((per_unit * demand.weight[awards.place]) @ awards.share)


def _sorted_out(demand: Demand, rent: Array) -> tuple[Awards, list[_Segment]]:
    """Jobs with one best line, and the tied segments, found bid by bid."""
    bids, first = _distinct(demand)
    group = demand.group_of(first)
    cost = demand.lines.cost(rent)[group]
    net = demand.lines.worth[group] * bids[:, None] - cost
    room = TIED * np.where(np.isfinite(cost), cost, 0.0)
    best = net.max(axis=1, initial=0.0)
    likes = net >= best[:, None] - np.maximum(room, TIED * best[:, None])
    useful = demand.lines.worth[group] * bids[:, None] > demand.lines.charge[group]
    likes &= useful
    nothing = best <= np.where(likes, room, 0.0).max(axis=1, initial=0.0)
    count = np.count_nonzero(likes, axis=1)
    end = np.append(first[1:], demand.bid.size)
    single = (count == 1) & ~nothing
    line = np.argmax(likes, axis=1)
    place = ranges(first[single], end[single])
    sure = Awards(place, np.repeat(line[single], (end - first)[single]), np.ones(place.size))
    open_ = np.flatnonzero((count > 0) & ~single)
    return sure, _segments(first, end, group, likes, nothing, open_)


def _distinct(demand: Demand) -> tuple[Array, Index]:
    """Each bid of each group once, and where it begins."""
    new = np.ones(demand.bid.size, dtype=bool)
    new[1:] = demand.bid[1:] != demand.bid[:-1]
    new[demand.start[:-1]] = True
    first = np.flatnonzero(new)
    return demand.bid[first], first


def _segments(
    first: Index, end: Index, group: Index, likes: Mask, nothing: Mask, open_: Index
) -> list[_Segment]:
    """Neighbouring tied bids that like the same lines are one segment."""
    found: list[_Segment] = []
    for at in open_:
        lines, must = np.flatnonzero(likes[at]), not nothing[at]
        last = found[-1] if found else None
        if (
            last is not None
            and last.end == first[at]
            and group[at - 1] == group[at]
            and must
            and last.must
            and np.array_equal(last.lines, lines)
        ):
            found[-1] = _Segment(last.begin, int(end[at]), lines, must)
        else:
            found.append(_Segment(int(first[at]), int(end[at]), lines, must))
    return found


@dataclass(frozen=True, slots=True)
class _Tied:
    """The tied jobs, and what is left for them."""

    demand: Demand
    rent: Array  # (P,)
    capacity: Array  # (P,) GPU-hours
    left: Array  # (P,) share of the capacity not yet taken
    stays: Mask  # (G, M)

    def shared(self, segments: list[_Segment]) -> Awards:
        """What the jobs of these segments get."""
        if not segments:
            none = np.zeros(0, dtype=np.int64)
            return Awards(none, none, np.zeros(0))
        demand, parts = self.demand, segments
        if sum((part.end - part.begin) * part.lines.size for part in parts) <= MOST_STEPS:
            parts = [
                _Segment(place, place + 1, part.lines, part.must)
                for part in segments
                for place in range(part.begin, part.end)
            ]
        parts = sorted(parts, key=lambda part: int(demand.order[part.begin : part.end].min()))
        shares = self._walk_down(parts)
        awards = [_spread(demand, part, share) for part, share in zip(parts, shares, strict=True)]
        return Awards(
            np.concatenate([award.place for award in awards]),
            np.concatenate([award.line for award in awards]),
            np.concatenate([award.share for award in awards]),
        )

    def _walk_down(self, parts: list[_Segment]) -> list[Array]:
        """Share of each part on each of its lines: the first point of the optimal face."""
        demand = self.demand
        owner = np.repeat(np.arange(len(parts)), [part.lines.size for part in parts])
        line = np.concatenate([part.lines for part in parts])
        begin = np.array([part.begin for part in parts])
        weight = np.array([demand.weight[part.begin : part.end].sum() for part in parts])
        group = demand.group_of(begin)
        way, pool, hours = demand.lines.uses(group[owner], line)
        hours = hours * weight[owner[way]]
        pools, number = np.unique(pool, return_inverse=True)
        unit = np.where(self.capacity > 0, self.capacity, 1.0)[pools]
        variable = np.arange(line.size)
        matrix = csr_array(
            (
                np.concatenate([hours / unit[number], np.ones(line.size)]),
                (
                    np.concatenate([number, pools.size + owner]),
                    np.concatenate([way, variable]),
                ),
            ),
            shape=(pools.size + len(parts), line.size),
        )
        sold_out = self.rent[pools] > SCARCE * float(self.rent.max())
        full = self.left[pools]
        must = np.array([part.must for part in parts])
        face = Linear(
            cost=np.zeros(line.size),
            matrix=matrix,
            low=np.concatenate([np.where(sold_out, full, -np.inf), np.where(must, 1.0, -np.inf)]),
            high=np.concatenate([full, np.ones(len(parts))]),
            least=np.zeros(line.size),
            most=np.full(line.size, np.inf),  # the rows say that shares are at most one
        )
        stay = -(self.stays[group[owner], line] * np.bincount(way, hours / unit[number], line.size))
        if demand.lines.more is not None:
            face, stay = _by_pool(face, stay, owner[way] * pools.size + number, way, hours)
        shares = np.clip(walk(face, stay)[-line.size :], 0.0, 1.0)
        return np.split(shares, np.cumsum([part.lines.size for part in parts])[:-1])


def _by_pool(
    face: Linear, stay: Array, place: Index, way: Index, hours: Array
) -> tuple[Linear, Array]:
    """The same face with what each part has in each pool as variables, before its lines.

    Lines of two pools overlap, and the rule speaks of pools: those come first in the walk.
    """
    places, number = np.unique(place, return_inverse=True)
    names, lines = places.size, stay.size
    size = np.bincount(number, hours)
    given = csr_array((hours / size[number], (number, way)), shape=(names, lines))
    rows = face.matrix.shape[0]
    none = np.zeros(names)
    matrix = vstack(
        [
            hstack([csr_array((rows, names)), face.matrix]),
            hstack([-eye_array(names), given]),
        ]
    )
    return (
        Linear(
            cost=np.concatenate([none, face.cost]),
            matrix=csr_array(matrix),
            low=np.concatenate([face.low, none]),
            high=np.concatenate([face.high, none]),
            least=np.concatenate([none, face.least]),
            most=np.concatenate([np.full(names, np.inf), face.most]),
        ),
        np.concatenate([none, stay]),
    )


def _spread(demand: Demand, part: _Segment, share: Array) -> Awards:
    """A segment's shares job by job: the highest bid on the steepest line first."""
    group = int(demand.group_of(np.array([part.begin]))[0])
    places = np.arange(part.end - 1, part.begin - 1, -1)
    weight = demand.weight[places]
    total = weight.sum()
    done = np.concatenate([[0.0], np.cumsum(weight)])
    steep = np.argsort(-demand.lines.worth[group, part.lines], kind="stable")
    ends = np.minimum(np.cumsum(share[steep]), 1.0) * total
    place, line, shares = [], [], []
    before = 0.0
    for at, after in zip(steep, ends, strict=True):
        overlap = np.minimum(done[1:], after) - np.maximum(done[:-1], before)
        part_of = overlap / weight
        some = np.flatnonzero(part_of > 1e-12)
        place.append(places[some])
        line.append(np.full(some.size, part.lines[at]))
        shares.append(np.minimum(part_of[some], 1.0))
        before = after
    return Awards(np.concatenate(place), np.concatenate(line), np.concatenate(shares))
