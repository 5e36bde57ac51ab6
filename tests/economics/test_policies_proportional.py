"""Shares by budget: the proved gaps, against Clarabel and against hand-solved cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from economics.errors import NotCleared
from economics.policies import reference, response
from economics.policies.fleet import normalised
from economics.policies.proportional import deliveries, market_of
from economics.policies.response import Fisher, respond
from economics.policies.tangents import best_deliveries, largest, share
from tests.economics.fleets import a_fleet, one_pool

SEEDS = range(60)


def a_market(seed, buyers=40, goods=6, each=3):
    draw = np.random.default_rng(seed)
    good = np.sort(draw.random((buyers, goods)).argsort(axis=1)[:, :each], axis=1)
    good[0] = np.arange(each)
    return Fisher(
        buyer=np.repeat(np.arange(buyers), each),
        good=good.ravel(),
        value=draw.lognormal(0, 0.5, buyers * each),
        budget=draw.lognormal(0, 1, buyers),
        supply=draw.integers(1, 20, goods).astype(float),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("limited", [True, False])
def test_the_sum_of_logarithms_is_that_of_the_cone_programme(seed, limited):
    fleet, crowd, claim = a_fleet(seed, limited=limited)
    claim = claim / claim.mean()
    best, _ = reference.largest_product(fleet, crowd, claim)
    ours = claim @ np.log(deliveries(fleet, crowd, claim))
    assert ours == pytest.approx(best, abs=1.1e-6 * claim.sum())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("gap", [1e-2, 1e-4])
def test_the_gap_of_a_response_is_no_less_than_its_distance_from_the_best(seed, gap):
    market = a_market(seed)
    rough, fine = respond(market, gap=gap), respond(market, gap=1e-7)
    assert rough.gap <= gap
    total = market.budget.sum()
    distance = market.budget @ np.log(fine.utility / rough.utility) / total
    assert -1e-7 <= distance <= rough.gap + 1e-12


@pytest.mark.parametrize("seed", range(10))
def test_a_response_sells_everything_and_spends_every_budget(seed):
    market = a_market(seed)
    found = respond(market, gap=1e-4)
    sold = np.bincount(market.good, found.amount, market.supply.size)
    wanted = np.bincount(market.good, minlength=market.supply.size) > 0
    assert sold[wanted] == pytest.approx(market.supply[wanted])
    spent = np.bincount(market.buyer, found.amount * found.price[market.good])
    assert spent == pytest.approx(market.budget)
    utility = np.bincount(market.buyer, found.amount * market.value)
    assert utility == pytest.approx(found.utility)


def test_buyers_with_the_same_gains_are_one_with_the_sum_of_their_budgets():
    market = a_market(3, buyers=6)
    twice = Fisher(
        buyer=np.repeat(np.arange(12), 3),
        good=np.tile(market.good, 2),
        value=np.tile(market.value, 2),
        budget=np.concatenate([0.25 * market.budget, 0.75 * market.budget]),
        supply=market.supply,
    )
    one, two = respond(market, gap=1e-8), respond(twice, gap=1e-8)
    assert two.utility == pytest.approx(
        np.concatenate([0.25 * one.utility, 0.75 * one.utility]), rel=1e-3
    )


def test_a_long_step_that_goes_to_and_fro_is_given_up():
    """Two buyers, two goods, each liking another one: the long step only swaps their bids."""
    market = Fisher(
        buyer=np.array([0, 0, 1, 1]),
        good=np.array([0, 1, 0, 1]),
        value=np.array([1.0, 4.0, 2.0, 9.0]),
        budget=np.array([0.04, 0.21]),
        supply=np.array([8.0, 2.0]),
    )
    assert respond(market, gap=1e-6).gap <= 1e-6


def test_a_response_that_does_not_settle_is_an_error(monkeypatch):
    monkeypatch.setattr(response, "MOST_ROUNDS", 20)
    with pytest.raises(NotCleared):
        respond(a_market(0), gap=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_rents_bound_the_sum_below_what_is_possible(seed):
    fleet, crowd, claim = a_fleet(seed)
    claim = claim / claim.sum()
    worth = claim @ np.log(deliveries(fleet, crowd, claim))
    draw = np.random.default_rng(seed)
    for _ in range(5):
        rent = normalised(draw.random(fleet.capacity.size), fleet.capacity)
        assert largest(fleet, crowd, claim, rent * draw.uniform(0.3, 3.0)) >= worth - 1e-6


@pytest.mark.parametrize("seed", range(30))
def test_what_a_job_wants_at_given_rents_is_worth_most_to_it(seed):
    fleet, crowd, claim = a_fleet(seed)
    draw = np.random.default_rng(seed)
    rent = normalised(draw.random(fleet.capacity.size) + 0.1, fleet.capacity)
    wanted = best_deliveries(fleet, crowd, claim, rent)
    reach = crowd.reach(fleet)
    best = _profit(fleet, crowd, claim, rent, wanted)
    for part in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        other = np.minimum(part * wanted, reach)
        assert (_profit(fleet, crowd, claim, rent, other) <= best + 1e-9 * claim).all()


def _profit(fleet, crowd, claim, rent, delivered):
    from economics.policies.fleet import Hull

    return claim * np.log(delivered) - Hull.of(fleet, rent).price(crowd, delivered)


def test_claims_decide_on_one_pool():
    fleet, crowd = one_pool(3, gpus=12.0)
    assert deliveries(fleet, crowd, np.array([1.0, 2.0, 3.0])) == pytest.approx([2.0, 4.0, 6.0])


def test_what_one_cannot_use_goes_to_the_others_by_claim():
    fleet, crowd = one_pool(3, gpus=12.0)
    crowd = replace(crowd, most=np.array([1.0, 100.0, 100.0]))
    found = deliveries(fleet, crowd, np.array([4.0, 1.0, 3.0]))
    assert found == pytest.approx([1.0, 2.75, 8.25], rel=1e-3)


def test_a_promise_above_the_claim_is_kept_and_no_more():
    fleet, crowd = one_pool(3, gpus=12.0)
    crowd = replace(crowd, least=np.array([6.0, 0.0, 0.0]))
    found = deliveries(fleet, crowd, np.ones(3))
    assert found == pytest.approx([6.0, 3.0, 3.0], rel=1e-3)


def test_promises_that_do_not_fit_together_are_an_error():
    fleet, crowd = one_pool(2, gpus=10.0)
    crowd = replace(crowd, least=np.array([8.0, 3.0]))
    with pytest.raises(NotCleared, match="infeasible"):
        deliveries(fleet, crowd, np.ones(2))


@pytest.mark.parametrize("seed", range(20))
def test_the_gap_of_linear_programmes_is_honest(seed):
    fleet, crowd, claim = a_fleet(seed)
    rent = normalised(np.ones(fleet.capacity.size), fleet.capacity)
    found = share(fleet, crowd, claim, rent, gap=1e-7)
    assert found.gap <= 1e-5
    entry, way = fleet.ways_of(crowd.kind)
    assert (found.delivered <= crowd.reach(fleet) * (1 + 1e-9)).all()
    assert (found.delivered > 0).all()
    assert way.size == entry.size


def test_the_market_of_kinds_pays_for_gpu_hours():
    fleet, _ = one_pool(1, gpus=7.0)
    market = market_of(fleet, np.array([2.0]))
    assert respond(market, gap=1e-9).price == pytest.approx([2.0 / 7.0])
