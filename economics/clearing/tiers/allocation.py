"""The optimum of a market by bid tiers: who trains where, and what prices may say about it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from economics import accounts
from economics.clearing.program import program_of
from economics.clearing.tiers.awards import Awards, awards_at
from economics.clearing.tiers.coalitions import Coalitions
from economics.clearing.tiers.demand import Demand
from economics.clearing.tiers.gangs import place_gangs
from economics.clearing.tiers.grouping import Grouping, group_market
from economics.clearing.tiers.regions import coordinate, regions_of
from economics.clearing.tiers.search import Tiers, tiers_of
from economics.clearing.tiers.support import Support
from economics.market import COLUMN_ARRAYS, JOB_ARRAYS, Array, Index, Market, Mask
from economics.pricing import Blocking, Case, Wish, keeps_core, rents
from economics.sharing.coalitions import blocking
from economics.sharing.repair import Repair, repair

STILL = 1e-7  # excess below this, times max(1, welfare), is solver rounding
EXACT_COLUMNS = 5_000  # up to which coalitions are asked one by one, exactly
MANY_GROUPS = 400  # from here on it is quicker to agree on rents first
FULL_SHARE = 1 - 1e-9  # a gang the relaxation serves by this much is served in full


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The exact optimum of a market whose gangs may be split."""

    grouping: Grouping
    tiers: Tiers
    rent: Array  # (P,) the lowest rents that support it
    support: Support
    share: Array  # (K,)


@dataclass(frozen=True, slots=True)
class TieredAward:
    """An award found by bid tiers, and what its prices and transfers are derived from."""

    market: Market
    relaxed: Relaxed
    share: Array  # (K,)
    welfare: float  # credits
    bound: float  # best proven upper bound on it
    lp_bound: float  # optimum when gangs may be split
    nodes: int
    path: str = "tiers"
    best: bool = True  # welfare is what was maximised

    def chosen_otherwise(self, share: Array) -> TieredAward:
        """The same market with another award, (K,), which the prices must then support."""
        welfare = accounts.welfare(self.market, share)
        return replace(self, share=share, welfare=welfare, best=False)

    def rents(self, wish: Wish) -> Array:
        """The rents of the price rule, (P,), credits per GPU-hour."""
        support = self.relaxed.support
        objects = self._blocking()
        while True:
            case = Case(
                *(self.market, support.program(), self.share, self.welfare),
                self.best and keeps_core(self.market),
            )
            priced = rents(case, wish, objects)
            if not support.refine((*priced.looked, priced.rent)):
                return priced.rent

    def repair(self, payoff: Array, rent: Array, tolerance: float) -> Repair:
        """The transfers that keep every site, and every coalition looked at, from leaving."""
        if self.market.columns <= EXACT_COLUMNS:
            program = program_of(self.market)
            return repair(program, payoff, tolerance=tolerance, nodes=self.nodes)
        coalitions = Coalitions(self.market, self.relaxed.grouping, (self.relaxed.rent, rent))
        return coalitions.repair(payoff, tolerance=tolerance)

    @property
    def sees_all(self) -> bool:
        """Whether every coalition is looked at when prices are to leave none better off alone."""
        return self._coalitions().every or self.market.columns <= EXACT_COLUMNS

    def _coalitions(self) -> Coalitions:
        return Coalitions(self.market, self.relaxed.grouping, (self.relaxed.rent,))

    def _blocking(self) -> Blocking:
        slack = STILL * max(1.0, self.welfare)
        coalitions = self._coalitions()
        if coalitions.every or self.market.columns > EXACT_COLUMNS:
            return partial(coalitions.worst, tolerance=slack)
        program = program_of(self.market)

        def worst(payoff: Array) -> tuple[Array, float] | None:
            found = blocking(program, payoff, nodes=self.nodes, tolerance=slack)
            return None if found is None else (found.members.astype(float), found.value)

        return worst


def award_by_tiers(market: Market, *, nodes: int, start: Array | None = None) -> TieredAward:
    """The award of largest welfare of a market without misfits.

    Divisible jobs to a proof; gangs to the gap that is published. Raises NotCleared when the
    solver proves nothing.
    """
    relaxed = relax(market, start=start)
    lp_bound = max(relaxed.tiers.bound, relaxed.tiers.value)
    share, bound = relaxed.share, lp_bound
    if market.gang[market.job].any():
        share, bound = _whole(market, relaxed, nodes)
    welfare = accounts.welfare(market, share)
    return TieredAward(
        market=market,
        relaxed=relaxed,
        share=share,
        welfare=welfare,
        bound=max(bound, welfare),
        lp_bound=max(lp_bound, welfare),
        nodes=nodes,
    )


def relax(market: Market, *, start: Array | None = None) -> Relaxed:
    """Solve to a proof, and award by the tie rule at the lowest supporting rents."""
    grouping = group_market(market)
    demand = grouping.demand
    tiers = searched(demand, market.capacity, grouping.home, tolerance=0.0, start=start)
    support = Support(market, demand, grouping.home, tiers)
    rent = support.lowest()
    awards = awards_at(demand, rent, market.capacity, grouping.table.stays)
    return Relaxed(grouping, tiers, rent, support, shares_of(market, grouping, awards))


def searched(
    demand: Demand, capacity: Array, home: Index, *, tolerance: float, start: Array | None = None
) -> Tiers:
    """The tiers of a demand; where there are many groups, rents are agreed on first.

    `home` (G,) is the site of each group.
    """
    if start is not None or demand.groups < MANY_GROUPS:
        return tiers_of(demand, capacity, tolerance=tolerance, start=start)
    regions = regions_of(demand, home, 1)
    return coordinate(demand, capacity, tolerance=tolerance, regions=regions).tiers


def shares_of(market: Market, grouping: Grouping, awards: Awards) -> Array:
    """Share of each market column, (K,)."""
    demand = grouping.demand
    taken = demand.weight[awards.place] * awards.share
    share = np.zeros(market.columns)
    for at, column, hours in grouping.columns_of(awards.place, awards.line):
        np.add.at(share, column, hours * taken[at] / market.gpu_hours[column])
    result: Array = np.where(market.gang[market.job], share, np.minimum(share, 1.0))
    return result


def _whole(market: Market, relaxed: Relaxed, nodes: int) -> tuple[Array, float]:
    """Gangs whole in what divisible jobs leave, then divisible jobs in what gangs leave."""
    gang = market.gang[market.job]
    share = np.zeros(market.columns)
    divisible = np.where(gang, 0.0, relaxed.share)
    part, columns = part_of(market, market.gang)
    room = np.maximum(market.capacity - accounts.used_hours(market, divisible), 0.0)
    worth = float(((market.gain * relaxed.share)[~gang]).sum())
    grouping = relaxed.grouping if gang.all() else group_market(part)
    demand = grouping.demand
    place = np.empty(demand.order.size, dtype=np.int64)
    place[demand.order] = np.arange(demand.order.size)
    taken = np.full(demand.order.size, -1)
    kept = np.flatnonzero(relaxed.share[columns] >= FULL_SHARE)
    taken[place[grouping.job[kept]]] = grouping.table.line[kept]
    placed = place_gangs(
        *(demand, relaxed.rent, taken, room),
        relaxed=max(relaxed.tiers.bound - worth, 0.0),
        nodes=nodes,
    )
    served = np.flatnonzero(placed.line >= 0)
    for _, column, _ in grouping.columns_of(served, placed.line[served]):
        share[columns[column]] = 1.0
    if gang.all():
        return share, placed.bound
    rest, others = part_of(market, ~market.gang)
    left = np.maximum(market.capacity - accounts.used_hours(market, share), 0.0)
    share[others] = relax(replace(rest, capacity=left)).share
    return share, max(relaxed.tiers.bound, relaxed.tiers.value)


def part_of(market: Market, jobs: Mask) -> tuple[Market, Index]:
    """The market with these jobs only, numbered anew, and which columns it has."""
    columns = np.flatnonzero(jobs[market.job])
    number = np.cumsum(jobs) - 1
    arrays = {name: getattr(market, name)[jobs] for name in JOB_ARRAYS}
    arrays |= {name: getattr(market, name)[columns] for name in COLUMN_ARRAYS}
    arrays["job"] = number[arrays["job"]]
    _, arrays["group"] = np.unique(arrays["group"], return_inverse=True)
    known = {field.name: getattr(market, field.name) for field in fields(market)}
    return Market(**{**known, **arrays}), columns
