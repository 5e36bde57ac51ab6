"""The prices that support an award, over runs instead of jobs, and exact for every job.

At given rents the runs value themselves as their jobs do, as long as all jobs of a run like the
same line best. So the price rule works on a programme over runs, we look at every point it met,
and where the runs misjudge one, they are cut there and the rule is applied again.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from economics.clearing.program import Program
from economics.clearing.tiers.demand import Demand, Runs, runs_of
from economics.clearing.tiers.envelope import bound_at, choices
from economics.clearing.tiers.search import Tiers
from economics.faces import nearest, optimal_face
from economics.market import Array, Index, Market, Mask
from economics.pricing import regret_cost, rents_of, scale_of, supporting

SAME = 1e-10  # relative difference of two bounds that is rounding
CLEAR = 0.05  # lines this much dearer than the best, relative to what they cost, are left out


class Support:
    """A programme over runs, made finer at every point that is looked at."""

    def __init__(self, market: Market, demand: Demand, home: Index, tiers: Tiers) -> None:
        self.demand, self.capacity = demand, market.capacity
        self.owner, self.home = market.owner, home  # sites of pools (P,) and groups (G,)
        self.idle: Mask = np.bincount(market.pool, minlength=market.pools) == 0
        self.cut: Index = tiers.runs.cut
        self.rents: list[Array] = []
        self.clear = CLEAR
        self.look(tiers.served.rent)

    def look(self, rent: Array) -> None:
        """Make the programme exact at rents (P,)."""
        self.cut = np.union1d(self.cut, choices(self.demand, rent).begin)
        self.rents.append(rent)

    def refine(self, looked: tuple[Array, ...]) -> bool:
        """Look where the programme misjudges one of these rents; False when it does nowhere."""
        program = self.program()
        finer = False
        for rent in looked:
            exact = bound_at(self.capacity, rent, choices(self.demand, rent))
            if exact - _judged(program, rent) > SAME * max(1.0, exact):
                self.look(rent)
                finer = True
        return finer

    def lowest(self) -> Array:
        """The least-norm rents, (P,), of those that support the optimum: unique."""
        while True:
            program = self.program()
            if not program.gain.size:
                return np.zeros(self.capacity.shape)
            scale = scale_of(program)
            cost = regret_cost(program, scale, self.capacity)
            face, _ = optimal_face(supporting(program, scale, self.idle), cost)
            point = nearest(face, np.zeros(self.capacity.size))
            rent = rents_of(point, self.capacity.size, scale)
            if not self.refine((rent,)):
                return rent

    def program(self) -> Program:
        """Pools first, then a row for each run or lump of runs. Its duals are the prices."""
        runs = runs_of(self.demand, self.cut)
        lines = self.demand.lines
        gain = lines.worth[runs.group] * runs.bid[:, None] - lines.charge[runs.group]
        tried, lump = self._sorted_out(runs, gain)
        return _assembled(self, runs, gain, tried, lump)

    def _sorted_out(self, runs: Runs, gain: Array) -> tuple[Mask, Index]:
        """Lines worth a variable, (R, M); and for runs that never doubt, their line, else -1.

        A run doubts where one of its ends does.
        """
        lines = self.demand.lines
        paid = np.where(np.isfinite(lines.charge), lines.charge, 0.0)
        tried = np.zeros(gain.shape, dtype=bool)
        always = np.full(runs.count, -2)
        for rent in self.rents:
            room = self.clear * (paid + lines.rents(rent))[runs.group]
            cost = lines.cost(rent)[runs.group]
            for end in (runs.cut[:-1], runs.cut[1:] - 1):
                net = lines.worth[runs.group] * self.demand.bid[end][:, None] - cost
                near = net >= np.maximum(net.max(axis=1, initial=0.0), 0.0)[:, None] - room
                tried |= near
                top = net.argmax(axis=1)
                at = (np.arange(runs.count), top)
                served = (net[at] > room[at]) & (np.count_nonzero(near, axis=1) == 1)
                served &= lines.single(runs.group, top)
                line = np.where(served, top, -1)
                always = np.where((always == -2) | (always == line), line, -1)
        return tried & (gain > 0), always


def _assembled(support: Support, runs: Runs, gain: Array, tried: Mask, lump: Index) -> Program:
    lines, pools = support.demand.lines, support.capacity.size
    tried = tried & (lump < 0)[:, None]
    run, line = np.nonzero(tried)
    group = runs.group[run]
    weight = runs.weight[run]
    # Lumps: all runs that always take the same pool and belong to the same site are one row.
    sure = np.flatnonzero(lump >= 0)
    sure_pool = lines.pool[runs.group[sure], lump[sure]]
    sites = int(support.home.max(initial=0)) + 1
    key, member = np.unique(sure_pool * sites + support.home[runs.group[sure]], return_inverse=True)
    sure_hours = lines.hours[runs.group[sure], lump[sure]] * runs.weight[sure]
    lump_hours = np.bincount(member, sure_hours, key.size)
    lump_gain = np.bincount(member, gain[sure, lump[sure]] * runs.weight[sure], key.size)
    rows, row = np.unique(run, return_inverse=True)
    way, pool, used = lines.uses(group, line)
    used = used * weight[way]
    hours = np.concatenate([np.bincount(way, used, run.size), lump_hours])
    all_rows = np.concatenate([row, rows.size + np.arange(key.size)])
    variable = np.arange(hours.size)
    size = (pools + rows.size + key.size, hours.size)
    matrix = csr_array(
        (
            np.concatenate([used, lump_hours, np.ones(hours.size)]),
            (
                np.concatenate([pool, key // sites, pools + all_rows]),
                np.concatenate([way, run.size + np.arange(key.size), variable]),
            ),
        ),
        shape=size,
    )
    homes = np.concatenate([support.home[runs.group[rows]], key % sites])
    return Program(
        matrix=matrix,
        limit=np.concatenate([support.capacity, np.ones(rows.size + key.size)]),
        owner=np.concatenate([support.owner, homes]),
        gain=np.concatenate([gain[run, line] * weight, lump_gain]),
        hours=hours,
        whole=np.zeros(hours.size, dtype=bool),
        column=np.full(hours.size, -1),
        payer=np.full(size[0], -1),
        pools=pools,
    )


def _judged(program: Program, rent: Array) -> float:
    """The programme's own bound at these rents: what `bound_at` says of the jobs."""
    pools = csr_array(program.matrix[: program.pools])
    rows = csr_array(program.matrix[program.pools :])
    net = program.gain - pools.T @ rent
    owner = np.zeros(program.gain.size, dtype=np.int64)
    coordinates = rows.tocoo()
    owner[coordinates.col] = coordinates.row
    best = np.zeros(rows.shape[0])
    np.maximum.at(best, owner, net)
    return float(program.limit[: program.pools] @ rent + best.sum())
