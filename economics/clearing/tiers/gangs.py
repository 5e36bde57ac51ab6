"""Whole gangs at scale: who surely runs, and a small branch and bound for those at the margin.

At the rents of the relaxation most gangs have one way that is clearly best. Only those near the
margin are decided again, whole, in the room the others leave: at most a few of each pool, so the
size of the programme does not grow with the market. The relaxation bounds what can be lost, and a
gang that would lose more by a change than that bound allows need not be looked at (fixing by
reduced cost; Dantzig, Fulkerson and Johnson, 1954).

In a thick market one gang that is let in far below the rents is dear: it may not pay more than it
bids, so its pool's price must fall, and every other job then regrets not being there. So at the
margin only those are let in that can bear the rents, or nearly; the room this leaves unsold is part
of the published gap. Small markets get the award of largest welfare whatever the prices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.solver import Linear, minimise
from economics.clearing.tiers.demand import Demand
from economics.errors import NotCleared
from economics.market import Array, Index, Mask

FRINGE = 4  # gangs at the margin of each pool that are decided again
WAYS = 3  # lines tried for each of them
STRAIN = 0.01  # of the rents, what a gang at the margin may be short of
GOOD_ENOUGH = 1e-5  # of the bound: what is lost below this is not looked for
EXACT = 1e-4  # the same for the full programme
FULL = 2_000  # gangs up to which everybody is decided again who could matter
MOST_BINARIES = 20_000  # of the full programme


@dataclass(frozen=True, slots=True)
class Placement:
    """A whole award of gangs."""

    line: Index  # (J,) in the demand's order; -1 = not served
    bound: float  # no whole award is worth more, credits
    proved: bool  # within what was asked, before the node limit


@dataclass(frozen=True, slots=True)
class _Ways:
    """Each gang's lines, best first, at the rents of the relaxation."""

    line: Index  # (J, W)
    gain: Array  # (J, W) credits at reserve prices; -inf where there is none
    hours: Array  # (J, W) GPU-hours
    pool: Index  # (J, W)
    loss: Array  # (J, W) credits less than the best choice, not being served included
    idle: Array  # (J,) credits less than the best choice when not served
    bears: Mask  # (J, W) the rents, or nearly: see STRAIN


def place_gangs(
    demand: Demand,
    rent: Array,
    taken: Index,
    capacity: Array,
    *,
    relaxed: float,
    nodes: int,
) -> Placement:
    """Decide whole gangs in capacity (P,), starting from lines taken in full (J,), -1 = none.

    `relaxed` is the optimum when gangs may be split. Nothing depends on a clock: `nodes` limits
    the branch and bound.
    """
    ways = _ways_of(demand, rent)
    fringe = _fringe(ways, taken, capacity.size)
    line, _ = _decided(ways, taken, fringe, capacity, nodes, GOOD_ENOUGH * relaxed)
    line = _filled(ways, line, capacity)
    if taken.size > FULL:
        return Placement(line, relaxed, proved=True)
    room = relaxed - _worth(ways, line)
    matter = (np.sort(np.column_stack([ways.loss, ways.idle]), axis=1)[:, 1] <= room) | fringe
    if np.count_nonzero(ways.loss[matter] <= room) > MOST_BINARIES:
        return Placement(line, relaxed, proved=False)
    better, bound = _decided(
        ways, taken, matter, capacity, nodes, EXACT * relaxed, room=room, whole=True
    )
    if _worth(ways, better) >= _worth(ways, line):
        line = better
    bound = min(max(bound, _worth(ways, line)), relaxed)
    missed = bound - _worth(ways, line)
    return Placement(line, bound, proved=missed <= (1 + 1e-6) * EXACT * relaxed)


def _ways_of(demand: Demand, rent: Array) -> _Ways:
    lines = demand.lines
    group = demand.group_of(np.arange(demand.bid.size))
    gain = lines.worth[group] * demand.bid[:, None] - lines.charge[group]
    gain = np.where(gain > 0, gain, -np.inf) * demand.weight[:, None]
    hours = lines.hours[group] * demand.weight[:, None]
    paid = hours * rent[lines.pool[group]]
    net = gain - paid
    best = np.maximum(net.max(axis=1, initial=0.0), 0.0)
    order = np.argsort(-net, axis=1, kind="stable")

    rows = np.arange(order.shape[0])[:, None]
    return _Ways(
        line=order,
        gain=gain[rows, order],
        hours=hours[rows, order],
        pool=lines.pool[group][rows, order],
        loss=best[:, None] - net[rows, order],
        idle=best,
        bears=(net >= -STRAIN * paid)[rows, order],
    )


def _fringe(ways: _Ways, taken: Index, pools: int) -> Mask:
    """Gangs that lose least by another choice, FRINGE for each pool of their two best ways."""
    jobs = np.arange(ways.idle.size)
    has = np.isfinite(ways.gain[:, 0])
    second = ways.loss[:, 1] if ways.loss.shape[1] > 1 else np.full(jobs.size, np.inf)
    margin = np.where(ways.idle > 0, np.minimum(second, ways.idle), ways.loss[:, 0])
    per_hour = margin / np.where(has, ways.hours[:, 0], 1.0)
    chosen = np.zeros(jobs.size, dtype=bool)
    for column in range(min(2, ways.pool.shape[1])):
        possible = np.flatnonzero(np.isfinite(ways.gain[:, column]))
        sort = possible[np.lexsort((per_hour[possible], ways.pool[possible, column]))]
        pool = ways.pool[sort, column]
        rank = np.arange(sort.size) - np.searchsorted(pool, np.arange(pools))[pool]
        chosen[sort[rank < FRINGE]] = True
    return chosen


def _decided(
    ways: _Ways,
    taken: Index,
    open_: Mask,
    capacity: Array,
    nodes: int,
    slack: float,
    *,
    room: float = np.inf,
    whole: bool = False,
) -> tuple[Index, float]:
    """The best whole award when only some gangs are open; and a bound on it."""
    line = np.where(open_, -1, taken)
    left = capacity - _used(ways, line, capacity.size)
    number = np.flatnonzero(open_)
    tried = np.isfinite(ways.gain[number])
    tried &= (
        ways.loss[number] <= room
        if whole
        else ways.bears[number] & (np.arange(tried.shape[1]) < WAYS)
    )
    tried &= ways.hours[number] <= left[ways.pool[number]] * (1 + 1e-9)
    row, way = np.nonzero(tried)
    job = number[row]
    base = _worth(ways, line)
    if not job.size:
        return line, base
    rows, count = int(row.max()) + 1, job.size
    size = np.where(left > 0, left, 1.0)
    variable = np.arange(count)
    pool = ways.pool[job, way]
    matrix = csr_array(
        (
            np.concatenate([ways.hours[job, way] / size[pool], np.ones(count)]),
            (np.concatenate([pool, capacity.size + row]), np.concatenate([variable, variable])),
        ),
        shape=(capacity.size + rows, count),
    )
    linear = Linear(
        cost=-ways.gain[job, way],
        matrix=matrix,
        low=np.full(capacity.size + rows, -np.inf),
        high=np.concatenate([np.maximum(left, 0.0) / size, np.ones(rows)]),
        least=np.zeros(count),
        most=np.ones(count),
        whole=np.ones(count, dtype=bool),
    )
    try:
        solved = minimise(linear, nodes=nodes, slack=slack)
    except NotCleared:
        return np.where(open_ & ~_fits(ways, taken, capacity), -1, taken), np.inf
    chosen = np.flatnonzero(solved.values > 0.5)
    line[job[chosen]] = ways.line[job[chosen], way[chosen]]
    return line, base - solved.bound


def _fits(ways: _Ways, taken: Index, capacity: Array) -> Mask:
    fits: Mask = np.full(taken.shape, bool((_used(ways, taken, capacity.size) <= capacity).all()))
    return fits


def _filled(ways: _Ways, line: Index, capacity: Array) -> Index:
    """Give what is left of each pool to those who gain most per GPU-hour, as long as they fit."""
    line = line.copy()
    left = capacity - _used(ways, line, capacity.size)
    fits = np.isfinite(ways.gain) & (ways.hours <= left[ways.pool] * (1 + 1e-12))
    fits &= (line < 0)[:, None] & ways.bears
    job, way = np.nonzero(fits)
    density = ways.gain[job, way] / ways.hours[job, way]
    for at in np.lexsort((job, -density)):
        hours, pool = ways.hours[job[at], way[at]], ways.pool[job[at], way[at]]
        if line[job[at]] < 0 and hours <= left[pool] * (1 + 1e-12):
            line[job[at]] = ways.line[job[at], way[at]]
            left[pool] -= hours
    return line


def _at(ways: _Ways, line: Index) -> tuple[Index, Index]:
    """The served gangs, and which of their ways it is."""
    served = np.flatnonzero(line >= 0)
    way = np.argmax(ways.line[served] == line[served][:, None], axis=1)
    return served, way


def _used(ways: _Ways, line: Index, pools: int) -> Array:
    at = _at(ways, line)
    return np.bincount(ways.pool[at], ways.hours[at], pools).astype(np.float64)


def _worth(ways: _Ways, line: Index) -> float:
    return float(ways.gain[_at(ways, line)].sum())
