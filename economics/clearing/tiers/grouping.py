"""From a market to groups of lines: which jobs differ in nothing but their bid and their size.

A divisible job that only its width can limit counts GPU-hours, one that only its demand can limit
counts samples, and a gang counts as one. Whatever does not fit its group is a group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.clearing.tiers.demand import Demand, Lines, demand_of
from economics.market import Array, Index, Market, Mask

HOURS, SAMPLES, WHOLE, FINISHING, ALONE = range(5)  # kinds of jobs; ALONE: a gang like no other
SLACK = 1e-12  # relative rounding between a column's samples and its speed
MOST_CELLS = 20_000_000  # groups x ways that are looked up in a table


@dataclass(frozen=True, slots=True)
class Grouping:
    """The demand of a market, and the way back to its columns."""

    demand: Demand
    jobs: Index  # (D,) market job of each of the demand's jobs
    group: Index  # (D,) group of each
    home: Index  # (G,) site
    whole: Mask  # (G,) gangs
    stays: Mask  # (G, M) where the group already runs
    code: Index  # (C,) job and line of each market column used, ascending
    column: Index  # (C,) that column

    def columns_of(self, job: Index, line: Index) -> Index:
        """The market columns of the demand's jobs on these lines; -1 where there is none."""
        width = self.demand.lines.pool.shape[1]
        wanted = job * width + line
        at = np.minimum(np.searchsorted(self.code, wanted), self.code.size - 1)
        found: Index = np.where(self.code[at] == wanted, self.column[at], -1)
        return found


def misfits(market: Market) -> Mask:
    """Jobs that no line describes, (J,): floors, lump sums for moving, demand and width at once."""
    served = np.bincount(market.job, minlength=market.jobs) > 0
    return served & (_kinds(market) < 0)


def group_market(market: Market) -> Grouping:
    """Group every job that has columns. Raises nothing: `misfits` must be none."""
    kind = _kinds(market)
    jobs = np.unique(market.job)
    alone = (kind == ALONE) | _budget_cut(market, kind)
    key = np.where(alone, market.jobs + np.arange(market.jobs), market.group) * 8 + kind
    _, group = np.unique(key[jobs], return_inverse=True)
    place = np.full(market.jobs, -1)
    place[jobs] = np.arange(jobs.size)
    kind = np.where(alone & (kind == WHOLE), ALONE, kind)
    lines, line, stays = _lines(market, kind, group[place[market.job]])
    bid = _bids(market, kind)[jobs]
    weight = np.select(
        [kind == HOURS, kind == SAMPLES], [market.width, market.demand], default=1.0
    )[jobs]
    first = np.zeros(lines.pool.shape[0], dtype=np.int64)
    first[group[::-1]] = jobs[::-1]
    code = place[market.job] * lines.pool.shape[1] + line
    return Grouping(
        demand=demand_of(lines, group, bid, weight),
        jobs=jobs,
        group=group,
        home=market.home[first],
        whole=market.gang[first],
        stays=stays,
        code=code,
        column=np.arange(market.columns),
    )


def _kinds(market: Market) -> Index:
    """What limits each job, (J,); -1 = several things at once."""
    size = market.jobs
    fastest, slowest = np.zeros(size), np.full(size, np.inf)
    np.maximum.at(fastest, market.job, market.speed)
    np.minimum.at(slowest, market.job, market.speed)
    with np.errstate(invalid="ignore"):
        wide = market.demand >= market.width * fastest * (1 - SLACK)
        narrow = market.demand <= market.width * slowest * (1 + SLACK)
    divisible = np.select([wide, narrow], [HOURS, SAMPLES], default=-1)
    divisible[(market.floor > 0) | (market.move_charge > 0)] = -1
    full = market.speed * market.gpu_hours
    clipped = market.msamples < full * (1 - SLACK)
    some = np.bincount(market.job[clipped], minlength=size)
    every = np.bincount(market.job, minlength=size)
    gangs = np.select([some == 0, some == every], [WHOLE, FINISHING], default=ALONE)
    kinds: Index = np.where(market.gang, gangs, divisible)
    return kinds


def _bids(market: Market, kind: Index) -> Array:
    """What jobs are sorted by, (J,): per Msample, or for all a finishing gang still wants."""
    wanted = np.where(kind == FINISHING, market.demand, 1.0)
    bids: Array = market.bid * wanted
    return bids


def _budget_cut(market: Market, kind: Index) -> Mask:
    """Gangs that lack a line of their group for want of budget, not of gain, (J,)."""
    gangs = np.flatnonzero(market.gang & (np.bincount(market.job, minlength=market.jobs) > 0))
    cut = np.zeros(market.jobs, dtype=bool)
    if not gangs.size:
        return cut
    _, group = np.unique(market.group[gangs] * 8 + kind[gangs], return_inverse=True)
    of_job = np.full(market.jobs, -1)
    of_job[gangs] = group
    used = np.flatnonzero(market.gang[market.job])
    lines, _, _ = _lines(market, kind, of_job[market.job[used]], used)
    bid = _bids(market, kind)[gangs]
    gains = lines.worth[group] * bid[:, None] - lines.charge[group] > 0
    has = np.bincount(market.job[used], minlength=market.jobs)[gangs]
    cut[gangs] = np.count_nonzero(gains, axis=1) > has
    return cut


def _lines(
    market: Market, kind: Index, group: Index, used: Index | None = None
) -> tuple[Lines, Index, Mask]:
    """The lines of the groups; for each column used its line, (C,); and where they already run."""
    at = np.arange(market.columns) if used is None else used
    sizes, size = np.unique(
        np.where(market.gang[market.job[at]], market.gpu_hours[at], 0.0), return_inverse=True
    )
    ways = market.pools * sizes.size
    groups = int(group.max(initial=-1)) + 1
    code = group * ways + market.pool[at] * sizes.size + size
    if groups * ways <= MOST_CELLS:
        table = np.full(groups * ways, -1)
        table[code] = at
        cells = np.flatnonzero(table >= 0)
        sample = table[cells]
    else:
        cells, first = np.unique(code, return_index=True)
        sample = at[first]
    owner = cells // ways
    begin = np.searchsorted(owner, np.arange(groups))
    number = np.arange(cells.size) - begin[owner]
    shape = (groups, int(number.max(initial=-1)) + 1)
    worth, charge, hours = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    pool, stays = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    where = (owner, number)
    worth[where], charge[where], hours[where] = _per_unit(market, kind, sample)
    pool[where], stays[where] = market.pool[sample], market.stays[sample]
    rank = np.empty(groups * ways, dtype=np.int64) if groups * ways <= MOST_CELLS else None
    if rank is not None:
        rank[cells] = number
        line: Index = rank[code]
    else:
        line = number[np.searchsorted(cells, code)]
    return Lines(pool, worth, charge, hours), line, stays


def _per_unit(market: Market, kind: Index, column: Index) -> tuple[Array, Array, Array]:
    """Worth per unit of bid, credits and GPU-hours, per unit of weight, of these columns."""
    what = kind[market.job[column]]
    speed, hours = market.speed[column], market.gpu_hours[column]
    paid = market.reserve[market.pool[column]]
    rate = paid + market.fee[column]
    whole = paid * hours + market.cost[column]
    is_hours, is_samples = what == HOURS, what == SAMPLES
    worth = np.select(
        [is_hours, is_samples, what == WHOLE, what == FINISHING],
        [speed, np.ones(speed.shape), speed * hours, np.ones(speed.shape)],
        default=market.msamples[column],
    )
    charge = np.select([is_hours, is_samples], [rate, rate / speed], default=whole)
    used = np.select([is_hours, is_samples], [np.ones(speed.shape), 1.0 / speed], default=hours)
    return worth, charge, used
