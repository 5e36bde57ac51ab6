"""Whole gangs at the margin, decided by several workers at once.

Gangs whose ways touch different pools have nothing to do with each other: each connected set of
pools is a programme of its own, and together they decide what one programme would. A set that is
too large is split by region: each region has the share of every pool that it uses when its gangs
may be split. What is left in the end is filled as always, and the result is never worth less than
what it started from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from economics.clearing.solver import Linear, minimise
from economics.clearing.tiers import gangs
from economics.clearing.tiers.demand import Demand
from economics.clearing.tiers.gangs import GOOD_ENOUGH, WAYS, Placement
from economics.errors import NotCleared
from economics.market import Array, Index

MOST_TOGETHER = 4_000  # choices of one programme; beyond, it is split by region


@dataclass(frozen=True, slots=True)
class Fringe:
    """Choices of some gangs, and the room for them: plain lists, small enough for a message."""

    gang: list[int]  # (C,) numbered from 0
    pool: list[int]  # (C,) numbered from 0
    gain: list[float]  # (C,) credits
    hours: list[float]  # (C,) GPU-hours
    room: list[float]  # GPU-hours of each pool
    nodes: int  # of the branch and bound
    slack: float  # credits that need not be looked for


Decision = tuple[list[int], bool]  # the choices taken, and whether that is proved


class Apply(Protocol):
    """Something like `map`: decisions in the order of the programmes."""

    def __call__(
        self, function: Callable[[Fringe], Decision], asks: list[Fringe], /
    ) -> Iterable[Decision]:
        """All decisions."""


@dataclass(frozen=True, slots=True)
class _Choices:
    """Ways of the gangs that are decided again."""

    job: Index  # (C,)
    way: Index  # (C,)
    pool: Index  # (C,)
    gain: Array  # (C,)
    hours: Array  # (C,)


def decide(fringe: Fringe) -> Decision:
    """The best whole award of one programme; none of it when the solver proves nothing.

    A pure function of its argument: any worker may run it.
    """
    linear = _linear(
        *(np.array(fringe.gang), np.array(fringe.pool)),
        *(np.array(fringe.gain), np.array(fringe.hours), np.array(fringe.room)),
        whole=True,
    )
    try:
        solved = minimise(linear, nodes=fringe.nodes, slack=fringe.slack)
    except NotCleared:
        return [], False
    return np.flatnonzero(solved.values > 0.5).tolist(), solved.proved


def place_gangs_by_region(
    demand: Demand,
    rent: Array,
    taken: Index,
    capacity: Array,
    *,
    relaxed: float,
    nodes: int,
    regions: Sequence[Index],
    apply: Apply = map,
    most: int = MOST_TOGETHER,
) -> Placement:
    """Like `place_gangs` for many gangs, with the fringe in several programmes.

    Starts from lines taken in full (J,), -1 = none, which must fit capacity (P,). `regions` are
    groups; they are only looked at when a connected set of pools has more than `most` choices.
    `relaxed`, the optimum when gangs may be split, stays the bound, as it does with one programme.
    """
    ways = gangs._ways_of(demand, rent)
    open_ = gangs._fringe(ways, taken, capacity.size)
    line = np.where(open_, -1, taken)
    room = np.maximum(capacity - gangs._used(ways, line, capacity.size), 0.0)
    near = np.isfinite(ways.gain[:, :WAYS]) & ways.bears[:, :WAYS] & open_[:, None]
    near &= ways.hours[:, :WAYS] <= room[ways.pool[:, :WAYS]] * (1 + 1e-9)
    job, way = np.nonzero(near)
    found = _Choices(
        *(job, way, ways.pool[job, way], ways.gain[job, way], ways.hours[job, way]),
    )
    region = _region_of(demand, regions)[job]
    programmes = _programmes(found, region, room, most)
    asks = [
        _fringe_of(found, at, left, nodes, GOOD_ENOUGH * relaxed / len(programmes))
        for at, left in programmes
    ]
    proved = True
    for (at, _), (picked, sure) in zip(programmes, apply(decide, asks), strict=True):
        chosen = at[np.array(picked, dtype=np.int64)]
        line[job[chosen]] = ways.line[job[chosen], way[chosen]]
        proved &= sure
    line = gangs._filled(ways, line, capacity)
    before = gangs._filled(ways, taken, capacity)
    if gangs._worth(ways, before) > gangs._worth(ways, line):
        line = before
    return Placement(line, relaxed, proved=proved)


def _region_of(demand: Demand, regions: Sequence[Index]) -> Index:
    """The region of each job in the demand's order, (J,)."""
    of_group = np.zeros(demand.groups, dtype=np.int64)
    for number, groups in enumerate(regions):
        of_group[groups] = number
    return np.repeat(of_group, np.diff(demand.start))


def _programmes(
    found: _Choices, region: Index, room: Array, most: int
) -> list[tuple[Index, Array]]:
    """Which choices are decided together, and in how much room of each pool, (P,)."""
    if not found.job.size:
        return []
    gang, pools = np.unique(found.job, return_inverse=True)[1], room.size
    nodes = pools + int(gang.max()) + 1
    edges = coo_array((np.ones(gang.size), (found.pool, pools + gang)), shape=(nodes, nodes))
    _, label = connected_components(edges, directed=False)
    parts: list[tuple[Index, Array]] = []
    for one in np.unique(label[found.pool]):
        at = np.flatnonzero(label[found.pool] == one)
        parts.extend([(at, room)] if at.size <= most else _split(found, at, region[at], room))
    return parts


def _split(found: _Choices, at: Index, region: Index, room: Array) -> list[tuple[Index, Array]]:
    """A connected set by region; pools are shared as when its gangs may be split.

    What nobody uses then is shared by what could be used.
    """
    numbers, member = np.unique(region, return_inverse=True)
    pool, hours = found.pool[at], found.hours[at]
    gang = np.unique(found.job[at], return_inverse=True)[1]
    solved = minimise(_linear(gang, pool, found.gain[at], hours, room))
    cell, shape = member * room.size + pool, (numbers.size, room.size)
    cells = numbers.size * room.size
    used = np.bincount(cell, hours * solved.values, cells).reshape(shape)
    wanted = np.bincount(cell, hours, cells).reshape(shape)
    total = wanted.sum(axis=0)
    spare = np.maximum(room - used.sum(axis=0), 0.0)
    share = used + wanted * (spare / np.where(total > 0, total, 1.0))
    given = share.sum(axis=0)
    share *= np.where(given > room, room / np.where(given > 0, given, 1.0), 1.0)
    return [(at[member == one], share[one]) for one in range(numbers.size)]


def _fringe_of(found: _Choices, at: Index, room: Array, nodes: int, slack: float) -> Fringe:
    pools, pool = np.unique(found.pool[at], return_inverse=True)
    gang = np.unique(found.job[at], return_inverse=True)[1]
    return Fringe(
        *(gang.tolist(), pool.tolist(), found.gain[at].tolist(), found.hours[at].tolist()),
        *(room[pools].tolist(), nodes, slack),
    )


def _linear(
    gang: Index, pool: Index, gain: Array, hours: Array, room: Array, *, whole: bool = False
) -> Linear:
    """At most one way of each gang, within the room of each pool."""
    count, pools = gang.size, room.size
    rows = pools + int(gang.max(initial=-1)) + 1
    size = np.where(room > 0, room, 1.0)
    variable = np.arange(count)
    matrix = csr_array(
        (
            np.concatenate([hours / size[pool], np.ones(count)]),
            (np.concatenate([pool, pools + gang]), np.concatenate([variable, variable])),
        ),
        shape=(rows, count),
    )
    return Linear(
        cost=-gain,
        matrix=matrix,
        low=np.full(rows, -np.inf),
        high=np.concatenate([room / size, np.ones(rows - pools)]),
        least=np.zeros(count),
        most=np.ones(count),
        whole=np.ones(count, dtype=bool) if whole else None,
    )
