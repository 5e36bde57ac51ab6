"""What coalitions of sites could make alone, at scale: bounds first, re-clearing where they fail.

A coalition's value is at most the rents of its own GPUs plus what its own jobs would keep at those
rents on its own pools, for any rents (weak duality). At the round's own rents that bound is mostly
enough to see that nobody would leave; where it is not, the coalition is cleared alone. Gangs count
as if they could be split, so a coalition is never thought weaker than it is.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from economics.clearing.tiers.demand import Demand, ranges
from economics.clearing.tiers.envelope import bound_at, choices
from economics.clearing.tiers.grouping import Grouping
from economics.clearing.tiers.search import tiers_of
from economics.errors import NotCleared
from economics.market import Array, Index, Market, Mask
from economics.sharing.coalitions import Coalition
from economics.sharing.repair import Repair, agree

ALL_UP_TO = 8  # sites up to which every coalition is looked at
PAIRS_UP_TO = 30  # sites up to which all pairs are, besides single sites and all but one
MANY_COLUMNS = 200_000  # beyond, only some of the doubtful coalitions are cleared alone
MOST_CLEARED = 4
MOST_CUTS = 200


class Coalitions:
    """The coalitions of a market, their bounds at some rents, and their values once asked for."""

    def __init__(self, market: Market, grouping: Grouping, rents: tuple[Array, ...]) -> None:
        self.market, self.demand, self.home = market, grouping.demand, grouping.home
        self.rents = rents
        self.players = np.unique(np.concatenate([market.owner[market.capacity > 0], self.home]))
        self.members = self._looked_at()
        self.every = self.players.size <= ALL_UP_TO and market.columns <= MANY_COLUMNS
        self.to_clear = self.members.shape[0] if self.every else MOST_CLEARED
        self.bounds = np.full(self.members.shape[0], np.inf)
        self.exact = np.zeros(self.members.shape[0], dtype=bool)

    def worst(self, payoff: Array, *, tolerance: float) -> tuple[Array, float] | None:
        """The coalition with the largest excess over payoffs (N,), with its value, if any."""
        found = self.objection(payoff, above=tolerance)
        return None if found is None else (found.members.astype(float), found.value)

    def objection(self, payoff: Array, *, above: float, least: int = 1) -> Coalition | None:
        """The coalition of at least `least` sites that gains most, and more than `above`."""
        paid = self.members @ payoff
        big = self.members.sum(axis=1) >= least
        for rent in self.rents:
            self._bound(np.flatnonzero(big & ~(self.bounds - paid <= above)), rent)
        while True:
            doubtful = np.flatnonzero(big & ~(self.bounds - paid <= above))
            open_ = doubtful[~self.exact[doubtful]]
            if not open_.size:
                break
            if not self.to_clear:  # what we could not look at is not an objection
                doubtful = doubtful[self.exact[doubtful]]
                break
            self.to_clear -= 1
            first = int(open_[np.argmax((self.bounds - paid)[open_])])
            self.bounds[first], self.exact[first] = self.value(self.members[first]), True
        if not doubtful.size:
            return None
        top = int(doubtful[np.argmax((self.bounds - paid)[doubtful])])
        value = float(self.bounds[top])
        return Coalition(self.members[top], value, value - float(paid[top]))

    def value(self, members: Mask) -> float:
        """What these sites make alone, credits, gangs split where that helps."""
        part, capacity = self._alone(members)
        if part is None or not capacity.any():
            return 0.0
        return tiers_of(part, capacity, tolerance=0.0, start=self.rents[0]).bound

    def repair(self, payoff: Array, *, tolerance: float) -> Repair:
        """Smallest zero-sum transfers that meet every objection found (economics.md, 3.4)."""
        alone = np.zeros(payoff.shape)
        for site in self.players:
            alone[site] = self._stand_alone(int(site), payoff, tolerance)
        objections: list[Coalition] = []
        agreed, least = agree(payoff, alone, objections, tolerance)
        for _ in range(MOST_CUTS):
            worst = self.objection(agreed, above=least + tolerance, least=2)
            if worst is None:
                return Repair(agreed - payoff, alone, least, proved=self.every)
            objections.append(worst)
            agreed, least = agree(payoff, alone, objections, tolerance)
        raise NotCleared(f"{MOST_CUTS} objections did not settle the transfers")

    def _stand_alone(self, site: int, payoff: Array, tolerance: float) -> float:
        """What a site makes alone; a bound on it where the site is paid more than that anyway."""
        members = np.arange(payoff.size) == site
        at = int(np.flatnonzero((self.members == members).all(axis=1))[0])
        for rent in self.rents:
            if self.bounds[at] > payoff[site] + tolerance:
                self._bound(np.array([at]), rent)
        if self.bounds[at] > payoff[site] + tolerance and not self.exact[at]:
            self.bounds[at], self.exact[at] = self.value(members), True
        return float(self.bounds[at])

    def _bound(self, coalitions: Index, rent: Array) -> None:
        """Lower the bounds of these coalitions by what these rents say."""
        for at in coalitions[~self.exact[coalitions]]:
            part, capacity = self._alone(self.members[at])
            found = 0.0 if part is None else bound_at(capacity, rent, choices(part, rent))
            self.bounds[at] = min(self.bounds[at], found)

    def _alone(self, members: Mask) -> tuple[Demand | None, Array]:
        """The demand of these sites on their own pools, and the capacity of those."""
        market, lines = self.market, self.demand.lines
        mine = members[market.owner]
        capacity = np.where(mine, market.capacity, 0.0)
        groups = np.flatnonzero(members[self.home])
        if not groups.size:
            return None, capacity
        part = lines.part(groups)
        inside = mine[part.pool]
        if part.second is not None and part.more is not None:
            inside = inside & (mine[part.second] | (part.more == 0))
        part = replace(part, charge=np.where(inside, part.charge, np.inf))
        size = np.diff(self.demand.start)[groups]
        places = ranges(self.demand.start[groups], self.demand.start[groups + 1])
        return (
            replace(
                self.demand,
                lines=part,
                start=np.concatenate([[0], np.cumsum(size)]),
                bid=self.demand.bid[places],
                weight=self.demand.weight[places],
                offered=self.demand.offered[places],
                order=self.demand.order[places],
            ),
            capacity,
        )

    def _looked_at(self) -> Mask:
        """Coalitions, (S, N): all of them, or single sites, pairs and all but one."""
        players, count = self.players, self.players.size
        if count <= ALL_UP_TO:
            sizes: list[int] = list(range(1, count))
        else:
            sizes = [1, 2] if count <= PAIRS_UP_TO else [1]
            sizes.append(count - 1)
        chosen = [list(some) for size in sizes for some in combinations(range(count), size)] or [
            [at] for at in range(count)
        ]
        members = np.zeros((len(chosen), self.market.sites), dtype=bool)
        for row, some in enumerate(chosen):
            members[row, players[some]] = True
        return members
