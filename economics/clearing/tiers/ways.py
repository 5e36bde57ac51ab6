"""The lines of groups, made from the columns of a market.

A *way* is a pool and, for a gang, a size: a job has at most one column for each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.clearing.tiers.demand import Lines
from economics.market import Array, Index, Market, Mask

# What limits a job. ALONE: a gang like no other; BOTH: a divisible job's demand and its width.
HOURS, SAMPLES, WHOLE, FINISHING, ALONE, BOTH = range(6)
MOST_CELLS = 20_000_000  # groups x ways that are looked up in a table
EQUAL = 1e-12  # relative; speeds closer than this to what meets both limits meet both


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of groups, and which columns they are."""

    lines: Lines
    way: Index  # (G, M)
    second: Index | None  # (G, M) the way of the other pool
    stays: Mask  # (G, M) where the group already runs
    line: Index  # for each column used, the line that is this column alone


def ways_of(market: Market) -> tuple[Index, int]:
    """The way of each column, (K,), ascending within a job; and how many there are."""
    hours = np.where(market.gang[market.job], market.gpu_hours, 0.0)
    sizes, size = np.unique(hours, return_inverse=True)
    count = max(sizes.size, 1)
    return market.pool * count + size, market.pools * count


def table_of(
    market: Market, kind: Index, group: Index, ways: tuple[Index, int], used: Index | None = None
) -> Table:
    """The lines of the groups of these columns (all of them by default)."""
    at = np.arange(market.columns) if used is None else used
    way, count = ways
    cells, sample, of_cell = _cells(
        group * count + way[at], at, int(group.max(initial=-1)) + 1, count
    )
    groups = int(group.max(initial=-1)) + 1
    owner = cells // count
    begin = np.searchsorted(owner, np.arange(groups))
    number = np.arange(cells.size) - begin[owner]
    shape = (groups, int(number.max(initial=-1)) + 1)
    worth, charge, hours = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    pool, stays = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    named = np.zeros(shape, dtype=np.int64)
    where = (owner, number)
    worth[where], charge[where], hours[where] = _per_unit(market, kind, sample)
    pool[where], stays[where], named[where] = (
        market.pool[sample],
        market.stays[sample],
        cells % count,
    )
    table = Table(Lines(pool, worth, charge, hours), named, None, stays, number[of_cell])
    both = np.unique(owner[kind[market.job[sample]] == BOTH])
    if not both.size:
        return table
    ratio = np.zeros(groups)
    job = market.job[sample]
    ratio[owner] = np.where(kind[job] == BOTH, market.demand[job] / market.width[job], 0.0)
    return _with_mixes(table, both, ratio)


def _cells(code: Index, at: Index, groups: int, count: int) -> tuple[Index, Index, Index]:
    """The codes there are, ascending; a column of each; and for each column its code's place."""
    if groups * count > MOST_CELLS:
        cells, first, of_cell = np.unique(code, return_index=True, return_inverse=True)
        return cells, at[first], of_cell
    table = np.full(groups * count, -1)
    table[code] = at
    cells = np.flatnonzero(table >= 0)
    sample = table[cells]
    table[cells] = np.arange(cells.size)
    return cells, sample, table[code]


def _per_unit(market: Market, kind: Index, column: Index) -> tuple[Array, Array, Array]:
    """Worth per unit of bid, credits and GPU-hours, per unit of weight, of these columns."""
    job = market.job[column]
    what = kind[job]
    speed, hours = market.speed[column], market.gpu_hours[column]
    paid = market.reserve[market.pool[column]]
    rate = paid + market.fee[column]
    whole = paid * hours + market.cost[column]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.minimum(1.0, market.demand[job] / market.width[job] / speed)
    cases = [what == HOURS, what == SAMPLES, what == BOTH, what == WHOLE, what == FINISHING]
    one = np.ones(speed.shape)
    worth = np.select(
        cases, [speed, one, speed * part, speed * hours, one], market.msamples[column]
    )
    charge = np.select(cases[:3], [rate, rate / speed, rate * part], whole)
    used = np.select(cases[:3], [one, 1.0 / speed, part], hours)
    return worth, charge, used


def _with_mixes(table: Table, both: Index, ratio: Array) -> Table:
    """For groups with two limits, also every pair of a slow and a fast pool that meets both.

    These and the single pools are all corners of what such a job can do, so nothing is lost.
    """
    lines = table.lines
    real = np.isfinite(lines.charge[both])
    hours = np.where(real, lines.hours[both], 1.0)
    speed = np.where(real, lines.worth[both] / hours, np.nan)
    rate = np.where(real, lines.charge[both] / hours, np.nan)
    wanted = ratio[both][:, None]
    slow, fast = speed < wanted * (1 - EQUAL), speed > wanted * (1 + EQUAL)
    row, low, high = np.nonzero(slow[:, :, None] & fast[:, None, :])
    share = (wanted[row, 0] - speed[row, low]) / (speed[row, high] - speed[row, low])
    group = both[row]
    begin = np.searchsorted(row, np.arange(both.size))
    number = np.count_nonzero(real, axis=1)[row] + np.arange(row.size) - begin[row]
    wide = max(lines.pool.shape[1], int(number.max(initial=-1)) + 1)
    spare = wide - lines.pool.shape[1]

    def grown(array: Array, fill: float = 0.0) -> Array:
        return np.pad(array, ((0, 0), (0, spare)), constant_values=fill)

    where = (group, number)
    worth, charge = grown(lines.worth), grown(lines.charge, np.inf)
    used, more = grown(lines.hours), np.zeros((lines.pool.shape[0], wide))
    pool = np.pad(lines.pool, ((0, 0), (0, spare))).astype(np.int64)
    way = np.pad(table.way, ((0, 0), (0, spare))).astype(np.int64)
    stays = np.pad(table.stays, ((0, 0), (0, spare))).astype(bool)
    second, second_way = np.zeros(more.shape, dtype=np.int64), np.zeros(more.shape, dtype=np.int64)
    worth[where] = wanted[row, 0]
    charge[where] = (1 - share) * rate[row, low] + share * rate[row, high]
    used[where], more[where] = 1 - share, share
    pool[where], second[where] = lines.pool[group, low], lines.pool[group, high]
    way[where], second_way[where] = table.way[group, low], table.way[group, high]
    mixed = Lines(pool, worth, charge, used, second, more)
    return Table(mixed, way, second_way, stays, table.line)
