"""Raising everybody's level: what the programmes on runs find is what a row for each job finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from economics.errors import NotCleared
from economics.policies import pressure, reference
from economics.policies.deal import deal
from economics.policies.filling import Curve, fill
from economics.policies.fleet import Crowd, Fleet, Hull, normalised
from economics.policies.pressure import Pressure
from tests.economics.fleets import a_fleet, one_pool

SEEDS = range(60)
FEW = range(40)  # the lexicographic reference solves a programme for each job and level


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_level_is_that_of_one_programme_with_a_row_for_each_job(seed):
    fleet, crowd, pace = a_fleet(seed)
    level, _ = reference.highest_level(fleet, crowd, pace)
    ours = fill(fleet, crowd, Curve.straight(pace))[0].need / pace
    assert ours.min() == pytest.approx(level, rel=1e-6)


@pytest.mark.parametrize("seed", FEW)
def test_nobody_can_rise_unless_somebody_no_higher_falls(seed):
    fleet, crowd, pace = a_fleet(seed)
    expected = reference.lexicographic(fleet, crowd, pace)
    filled, _ = fill(fleet, crowd, Curve.straight(pace))
    assert filled.need == pytest.approx(expected, rel=1e-5)
    assert filled.level == pytest.approx((expected / pace).min(), rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_finish_time_ratio_is_that_of_the_cone_programme(seed):
    fleet, crowd, pace = a_fleet(seed)
    curve = Curve(pace, np.random.default_rng(seed).random(pace.size) * 0.3)
    ratio, _ = reference.smallest_ratio(fleet, crowd, curve)
    need = fill(fleet, crowd, curve)[0].need
    assert (curve.lead + pace / need).max() == pytest.approx(ratio, rel=2e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_runs_take_can_be_dealt_to_their_jobs(seed):
    fleet, crowd, pace = a_fleet(seed)
    filled, known = fill(fleet, crowd, Curve.straight(pace))
    taste = fleet.hours * (1 + 1e-3 * np.arange(fleet.kind.size))
    units = deal(known, known.settle(filled.need, taste), filled.need, taste)
    entry, way = fleet.ways_of(crowd.kind)
    assert (units >= 0).all()
    used = np.bincount(fleet.pool[way], units * fleet.hours[way], fleet.capacity.size)
    assert (used <= fleet.capacity * (1 + 1e-6)).all()
    assert np.bincount(entry, units * fleet.output[way]) == pytest.approx(filled.need, rel=1e-6)
    assert (np.bincount(entry, units) <= crowd.units * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("seed", range(20))
def test_jobs_that_are_alike_count_as_one_entry(seed):
    fleet, crowd, pace = a_fleet(seed)
    twice = Crowd(*(np.repeat(part, 2) for part in _parts(crowd)))
    merged = replace(crowd, count=2 * crowd.count)
    apart = fill(fleet, twice, Curve.straight(np.repeat(pace, 2)))[0].need
    together = fill(fleet, merged, Curve.straight(pace))[0].need
    assert np.repeat(together, 2) == pytest.approx(apart, rel=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_ways_that_enter_when_they_are_worth_using_change_nothing(seed, monkeypatch):
    fleet, crowd, pace = a_fleet(seed)
    every = fill(fleet, crowd, Curve.straight(pace))[0].need
    monkeypatch.setattr(pressure, "FEW_WAYS", 0)
    assert fill(fleet, crowd, Curve.straight(pace))[0].need == pytest.approx(every, rel=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_jobs_changes_nothing(seed):
    fleet, crowd, pace = a_fleet(seed)
    order = np.random.default_rng(seed).permutation(pace.size)
    turned = Crowd(*(part[order] for part in _parts(crowd)))
    need = fill(fleet, crowd, Curve.straight(pace))[0].need
    other = fill(fleet, turned, Curve.straight(pace[order]))[0].need
    assert other == pytest.approx(need[order], rel=1e-9)


def test_needs_share_one_pool_in_proportion_to_their_pace_up_to_what_they_can_use():
    fleet, crowd = one_pool(3, gpus=12.0)
    crowd = replace(crowd, most=np.array([1.0, 100.0, 100.0]))
    filled, _ = fill(fleet, crowd, Curve.straight(np.array([1.0, 1.0, 2.0])))
    assert filled.need == pytest.approx([1.0, 11.0 / 3, 22.0 / 3])


def test_a_promise_is_kept_above_the_level():
    fleet, crowd = one_pool(2, gpus=10.0)
    crowd = replace(crowd, least=np.array([8.0, 0.0]))
    assert fill(fleet, crowd, Curve.straight(np.ones(2)))[0].need == pytest.approx([8.0, 2.0])


def test_promises_that_do_not_fit_together_are_an_error():
    fleet, crowd = one_pool(2, gpus=10.0)
    crowd = replace(crowd, least=np.array([8.0, 3.0]))
    with pytest.raises(NotCleared, match="infeasible"):
        fill(fleet, crowd, Curve.straight(np.ones(2)))


def test_with_room_for_everybody_everybody_has_all_it_can_use():
    fleet, crowd = one_pool(3, gpus=100.0, most=5.0, units=4.0)
    assert fill(fleet, crowd, Curve.straight(np.ones(3)))[0].need == pytest.approx([4.0] * 3)


def test_no_jobs_and_no_pools_fill_to_nothing():
    none = np.zeros(0, dtype=np.int64)
    nothing = np.zeros(0)
    fleet = Fleet(np.zeros(2), none, none, nothing, nothing, 0)
    crowd = Crowd(none, nothing, nothing, nothing, nothing)
    assert fill(fleet, crowd, Curve.straight(nothing))[0].need.size == 0


def test_a_curve_gives_back_the_level_of_its_need():
    curve = Curve(np.array([2.0, 3.0]), np.array([0.0, 0.5]))
    assert curve.level(curve.need(0.7)) == pytest.approx([0.7, 0.7])
    assert np.isinf(curve.need(2.0)[1])


@pytest.mark.parametrize("seed", range(30))
def test_the_hull_is_the_cheapest_mix_of_ways(seed):
    """Against every mix of two ways, rest included."""
    fleet, _, _ = a_fleet(seed)
    random = np.random.default_rng(seed)
    rent = normalised(random.random(fleet.capacity.size) + 0.1, fleet.capacity)
    hull = Hull.of(fleet, rent)
    for kind in range(fleet.kinds):
        at = np.flatnonzero(fleet.kind == kind)
        output = np.append(0.0, fleet.output[at])
        cost = np.append(0.0, (rent[fleet.pool] * fleet.hours)[at])
        rate = random.random() * output.max()
        one = Crowd(np.array([kind]), np.ones(1), np.ones(1), np.full(1, np.inf), np.zeros(1))
        low, high = np.nonzero((output[:, None] <= rate) & (output[None, :] >= rate))
        span = output[high] - output[low]
        part = np.divide(rate - output[low], span, out=np.zeros(span.shape), where=span > 0)
        mixes = cost[low] + part * (cost[high] - cost[low])
        assert hull.price(one, np.array([rate]))[0] == pytest.approx(mixes.min(), rel=1e-9)


def test_rents_bound_how_far_needs_can_be_met():
    """At the rents of a programme that stops short, the last needs cost more than all pools."""
    fleet, crowd = one_pool(2, gpus=10.0)
    pressed = Pressure(fleet, crowd).press(np.zeros(2), np.array([8.0, 8.0]))
    assert pressed.part == pytest.approx(10.0 / 16.0)
    rent = normalised(pressed.rent, fleet.capacity)
    assert Hull.of(fleet, rent).price(crowd, np.array([8.0, 8.0])).sum() == pytest.approx(1.6)


def _parts(crowd: Crowd) -> tuple[np.ndarray, ...]:
    return crowd.kind, crowd.count, crowd.units, crowd.most, crowd.least
