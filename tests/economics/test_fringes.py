"""Gangs at the margin, decided in several programmes."""

from __future__ import annotations

from multiprocessing import get_context

import numpy as np
import pytest

from bench.markets import Sample, sample
from economics.clearing.tiers.awards import Awards, awards_of, gain_of, used_hours
from economics.clearing.tiers.demand import Demand, Lines, demand_of
from economics.clearing.tiers.fringes import Fringe, decide, place_gangs_by_region
from economics.clearing.tiers.gangs import Placement, place_gangs
from economics.clearing.tiers.regions import regions_of
from economics.clearing.tiers.search import Tiers, tiers_of
from economics.market import Array, Index

NODES = 20_000
ALL = 10**9  # choices: nothing is split


class Relaxed:
    """A market of gangs, and what they get when they may be split."""

    def __init__(self, drawn: Sample) -> None:
        self.demand: Demand = demand_of(drawn.lines, drawn.group, drawn.bid, drawn.weight)
        self.capacity: Array = drawn.capacity
        self.tiers: Tiers = tiers_of(self.demand, drawn.capacity, tolerance=1e-6)
        served = self.tiers.served
        split = awards_of(self.demand, self.tiers.runs, served.run, served.line, served.share)
        self.taken: Index = np.full(drawn.bid.size, -1)
        full = split.share > 1 - 1e-9
        self.taken[split.place[full]] = split.line[full]
        self.regions = regions_of(self.demand, np.arange(self.demand.groups) % 6, 3)

    def placed(self, most: int) -> Placement:
        return place_gangs_by_region(
            *(self.demand, self.tiers.rent, self.taken, self.capacity),
            relaxed=self.tiers.bound,
            nodes=NODES,
            regions=self.regions,
            most=most,
        )

    def together(self) -> Placement:
        return place_gangs(
            *(self.demand, self.tiers.rent, self.taken, self.capacity),
            relaxed=self.tiers.bound,
            nodes=NODES,
        )

    def worth(self, line: Index) -> float:
        """Checked to fit first, gang by gang and pool by pool."""
        served = np.flatnonzero(line >= 0)
        awards = Awards(served, line[served], np.ones(served.size))
        used = used_hours(self.demand, awards, self.capacity.size)
        assert (used <= self.capacity * (1 + 1e-9)).all()
        return gain_of(self.demand, awards)


def apart(drawn: Sample, halves: int) -> Sample:
    """The same market so many times, on pools of their own."""
    pools, groups, lines = drawn.capacity.size, drawn.lines.pool.shape[0], drawn.lines
    copies = np.arange(halves)
    wide = {name: np.tile(getattr(lines, name), (halves, 1)) for name in ("worth", "charge")}
    return Sample(
        lines=Lines(
            np.concatenate([lines.pool + pools * copy for copy in copies]),
            *(wide["worth"], wide["charge"], np.tile(lines.hours, (halves, 1))),
        ),
        group=np.concatenate([drawn.group + groups * copy for copy in copies]),
        bid=np.concatenate([drawn.bid * (1 + copy / 7) for copy in copies]),
        weight=np.tile(drawn.weight, halves),
        capacity=np.tile(drawn.capacity, halves),
        reserve=np.tile(drawn.reserve, halves),
        gangs=True,
    )


@pytest.mark.parametrize("seed", range(4))
def test_split_by_region_gangs_fit_and_no_start_is_made_worse(seed: int) -> None:
    market = Relaxed(sample(2_500, 8, 30, seed=seed, gangs=True))
    placed = market.placed(0)
    worth = market.worth(placed.line)
    assert worth >= market.worth(market.taken)
    assert placed.bound == market.tiers.bound
    assert worth <= placed.bound * (1 + 1e-9)
    assert worth >= 0.98 * market.worth(market.together().line)


@pytest.mark.parametrize("seed", range(3))
def test_pools_apart_are_decided_apart_and_lose_nothing(seed: int) -> None:
    market = Relaxed(apart(sample(900, 4, 12, seed=seed, gangs=True), 3))
    worth = market.worth(market.placed(ALL).line)
    # Either may be the better: what is filled in the end depends on which of two ties was taken.
    assert worth == pytest.approx(market.worth(market.together().line), rel=3e-4)


def test_every_set_of_pools_apart_is_a_programme() -> None:
    market = Relaxed(apart(sample(900, 4, 12, seed=5, gangs=True), 3))
    asked: list[Fringe] = []
    with get_context("spawn").Pool(2) as pool:

        def spread(function: object, asks: list[Fringe]) -> list[tuple[list[int], bool]]:
            assert function is decide
            asked.extend(asks)
            return pool.map(decide, asks)

        placed = place_gangs_by_region(
            *(market.demand, market.tiers.rent, market.taken, market.capacity),
            relaxed=market.tiers.bound,
            nodes=NODES,
            regions=market.regions,
            apply=spread,
        )
    assert len(asked) == 3
    assert max(len(ask.room) for ask in asked) <= 4
    assert (placed.line == market.placed(ALL).line).all()


def test_a_programme_without_a_solution_before_the_limit_takes_nothing() -> None:
    impossible = Fringe([0], [0], [1.0], [1.0], [-1.0], 10, 0.0)
    assert decide(impossible) == ([], False)


def test_without_room_nobody_is_placed() -> None:
    market = Relaxed(sample(300, 4, 8, seed=1, gangs=True))
    placed = place_gangs_by_region(
        *(market.demand, market.tiers.rent, np.full(300, -1), np.zeros(4)),
        relaxed=0.0,
        nodes=NODES,
        regions=market.regions,
    )
    assert (placed.line == -1).all()
    assert placed.proved
