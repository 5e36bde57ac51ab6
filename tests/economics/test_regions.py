"""Regions that answer posted rents reach what one search reaches, with the same certificate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from bench.markets import Sample, sample
from economics.clearing.tiers.awards import awards_of, gain_of, used_hours
from economics.clearing.tiers.demand import Demand, Lines, demand_of
from economics.clearing.tiers.envelope import bound_at, choices
from economics.clearing.tiers.regions import (
    Coordinated,
    coordinate,
    keeper,
    part_of,
    regions_of,
    respond,
)
from economics.clearing.tiers.search import tiers_of
from economics.market import Array, Index

EXACT = 1e-7  # relative; the gap a search to a proof may end with
Asked = TypeVar("Asked")
Said = TypeVar("Said")

SIZES = [(300, 4, 6), (600, 8, 40), (900, 12, 300), (500, 30, 120)]


def a_demand(drawn: Sample) -> Demand:
    return demand_of(drawn.lines, drawn.group, drawn.bid, drawn.weight)


def a_market(jobs: int, pools: int, groups: int, *, seed: int) -> tuple[Demand, Array]:
    """Groups without a job are no groups."""
    drawn = sample(jobs, pools, groups, seed=seed)
    named, group = np.unique(drawn.group, return_inverse=True)
    drawn = replace(drawn, lines=drawn.lines.part(named), group=group)
    return a_demand(drawn), drawn.capacity


def by_home(demand: Demand, count: int, homes: int = 7) -> list[Index]:
    return regions_of(demand, np.arange(demand.groups) * 5 % homes, count)


def check(demand: Demand, capacity: Array, found: Coordinated) -> None:
    """The award fits, the bound is what the rents say, and the value what the jobs gain."""
    tiers = found.tiers
    served = tiers.served
    awards = awards_of(demand, tiers.runs, served.run, served.line, served.share)
    assert (used_hours(demand, awards, capacity.size) <= capacity * (1 + 1e-7) + 1e-7).all()
    assert (np.bincount(awards.place, awards.share) <= 1 + 1e-7).all()
    assert gain_of(demand, awards) >= tiers.value * (1 - 1e-7)
    assert tiers.bound == bound_at(capacity, tiers.rent, choices(demand, tiers.rent))
    assert tiers.bound <= found.bound * (1 + 1e-12)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("size", SIZES)
def test_regions_find_what_one_search_finds(size: tuple[int, int, int], tolerance: float) -> None:
    demand, capacity = a_market(*size, seed=sum(size))
    best = tiers_of(demand, capacity, tolerance=0.0)
    found = coordinate(demand, capacity, tolerance=tolerance, regions=by_home(demand, 3))
    check(demand, capacity, found)
    assert found.tiers.gap <= max(tolerance, EXACT)
    assert found.tiers.bound >= best.value * (1 - EXACT)
    assert found.tiers.value <= best.bound * (1 + EXACT)
    assert found.rounds > 1


@pytest.mark.parametrize("seed", range(6))
def test_neither_number_nor_order_of_regions_changes_the_optimum(seed: int) -> None:
    demand, capacity = a_market(400, 9, 60, seed=seed)
    best = tiers_of(demand, capacity, tolerance=0.0).value
    for count in (1, 2, 7):
        regions = by_home(demand, count)
        found = coordinate(demand, capacity, tolerance=0.0, regions=regions).tiers
        assert found.value == pytest.approx(best, rel=EXACT)
        again = coordinate(demand, capacity, tolerance=0.0, regions=regions[::-1]).tiers
        assert again.value == found.value
        assert (again.rent == found.rent).all()


def test_a_region_may_be_empty() -> None:
    demand, capacity = a_market(300, 6, 20, seed=1)
    nobody = np.zeros(0, dtype=np.int64)
    regions = by_home(demand, 2)
    found = coordinate(demand, capacity, tolerance=0.0, regions=[nobody, *regions, nobody])
    same = coordinate(demand, capacity, tolerance=0.0, regions=regions)
    assert found.tiers.value == same.tiers.value


@pytest.mark.parametrize("tolerance", [1e-4, 0.0])
def test_pools_with_nothing_to_sell_sell_nothing(tolerance: float) -> None:
    demand, capacity = a_market(400, 8, 30, seed=2)
    capacity = np.where(np.arange(8) % 3 == 0, 0.0, capacity)
    found = coordinate(demand, capacity, tolerance=tolerance, regions=by_home(demand, 2))
    check(demand, capacity, found)
    best = tiers_of(demand, capacity, tolerance=0.0)
    assert found.tiers.gap <= max(tolerance, EXACT)
    assert found.tiers.value == pytest.approx(best.value, rel=max(tolerance, EXACT))


def test_without_any_capacity_nothing_is_worth_anything() -> None:
    demand, capacity = a_market(100, 4, 10, seed=3)
    found = coordinate(demand, np.zeros(4), tolerance=0.0, regions=by_home(demand, 2))
    assert found.tiers.value == 0.0
    assert found.tiers.bound == pytest.approx(0.0, abs=1e-6 * float(capacity.sum()))


def test_jobs_that_no_pool_is_worth_to_get_nothing() -> None:
    demand, capacity = a_market(100, 4, 10, seed=4)
    dear = replace(demand, lines=replace(demand.lines, charge=demand.lines.charge + 1e6))
    found = coordinate(dear, capacity, tolerance=0.0, regions=by_home(dear, 2))
    assert (found.tiers.value, found.tiers.bound, found.rounds) == (0.0, 0.0, 1)


def test_lines_of_two_pools_are_answered_too() -> None:
    demand, capacity = with_second_pools(*a_market(300, 6, 24, seed=5))
    best = tiers_of(demand, capacity, tolerance=0.0)
    found = coordinate(demand, capacity, tolerance=0.0, regions=by_home(demand, 3))
    check(demand, capacity, found)
    assert found.tiers.value == pytest.approx(best.value, rel=EXACT)


def with_second_pools(demand: Demand, capacity: Array) -> tuple[Demand, Array]:
    """Every third line takes a quarter of its hours from the next pool."""
    lines = demand.lines
    more = np.where(np.arange(lines.pool.size).reshape(lines.pool.shape) % 3 == 0, 0.25, 0.0)
    mixed = Lines(
        *(lines.pool, lines.worth, lines.charge, lines.hours - more),
        second=(lines.pool + 1) % capacity.size,
        more=more,
    )
    return replace(demand, lines=mixed), capacity


def test_an_answer_is_the_best_response_of_every_job() -> None:
    demand = with_second_pools(*a_market(200, 5, 12, seed=6))[0]
    rent = np.linspace(0.0, 2.0, 5)
    used, value = respond((demand, rent.tolist()))
    group = demand.group_of(np.arange(demand.bid.size))
    net = demand.lines.worth[group] * demand.bid[:, None] - demand.lines.cost(rent)[group]
    kept = float((net.max(axis=1).clip(min=0.0) * demand.weight).sum())
    assert value - np.array(used) @ rent == pytest.approx(kept)
    parts = [part_of(demand, groups) for groups in by_home(demand, 3)]
    answers = [respond((part, rent.tolist())) for part in parts]
    assert np.sum([usage for usage, _ in answers], axis=0) == pytest.approx(np.array(used))
    assert sum(worth for _, worth in answers) == pytest.approx(value)


def test_regions_keep_homes_together_and_share_the_work() -> None:
    demand, _ = a_market(2_000, 6, 90, seed=7)
    home = np.random.default_rng(7).integers(0, 20, demand.groups)
    regions = regions_of(demand, home, 4)
    assert (np.sort(np.concatenate(regions)) == np.arange(demand.groups)).all()
    assert len(regions) == 4
    for groups in regions:
        assert np.isin(home, home[groups]).sum() == groups.size
    work = [np.diff(demand.start)[groups].sum() for groups in regions]
    assert max(work) < 1.5 * min(work)
    assert len(regions_of(demand, home, 100)) == np.unique(home).size


def test_regions_are_answered_by_other_processes(tmp_path: Path) -> None:
    demand, capacity = a_market(500, 8, 60, seed=8)
    regions = by_home(demand, 3)
    alone = coordinate(demand, capacity, tolerance=0.0, regions=regions).tiers
    with get_context("spawn").Pool(2) as pool:
        sent = coordinate(demand, capacity, tolerance=0.0, regions=regions, apply=pool.map)
        named = coordinate(
            *(demand, capacity),
            tolerance=0.0,
            regions=regions,
            apply=pool.map,
            kept=keeper(tmp_path),
        )
    for found in (sent.tiers, named.tiers):
        assert found.value == alone.value
        assert (found.rent == alone.rent).all()
    assert len(list(tmp_path.iterdir())) == len(regions)


def test_what_is_asked_and_answered_by_reference_fits_a_message(tmp_path: Path) -> None:
    demand, capacity = a_market(500, 8, 60, seed=9)
    sizes = []

    def posted(function: Callable[[Asked], Said], asks: list[Asked]) -> Iterable[Said]:
        for ask in asks:
            kept, rents = json.loads(json.dumps(ask))
            said = function((kept, rents))  # type: ignore[arg-type]
            sizes.append(len(json.dumps([ask, said])))
            yield said

    regions = by_home(demand, 3)
    found = coordinate(
        *(demand, capacity), tolerance=0.0, regions=regions, apply=posted, kept=keeper(tmp_path)
    )
    alone = coordinate(demand, capacity, tolerance=0.0, regions=regions)
    assert found.tiers.value == alone.tiers.value
    assert max(sizes) < 50 * capacity.size + 500


def test_a_worker_never_answers_for_jobs_it_read_before(tmp_path: Path) -> None:
    demand, capacity = a_market(200, 5, 12, seed=10)
    rents = np.ones(capacity.size).tolist()
    kept = keeper(tmp_path)
    before = respond((kept(demand), rents))
    other = replace(demand, weight=demand.weight * 2, offered=demand.offered * 2)
    assert respond((kept(other), rents))[1] == pytest.approx(2 * before[1])
