"""Bid tiers by themselves: envelopes, bounds, runs, awards, warm starts, gangs at the margin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.markets import churned, sample
from economics.clearing.allocation import allocate
from economics.clearing.program import program_of
from economics.clearing.tiers.allocation import award_by_tiers
from economics.clearing.tiers.awards import awards_of, gain_of, used_hours
from economics.clearing.tiers.coalitions import Coalitions
from economics.clearing.tiers.demand import Lines, demand_of, even_cuts, ranges, runs_of
from economics.clearing.tiers.envelope import bound_at, choices
from economics.clearing.tiers.search import tiers_of
from economics.clearing.tiers.support import Support
from economics.errors import BadMarket
from economics.pricing import Wish
from economics.sharing.coalitions import coalition_value


def drawn(jobs=400, pools=8, groups=6, *, seed=0, gangs=False):
    market = sample(jobs, pools, groups, seed=seed, gangs=gangs, feasible=4)
    return market, demand_of(market.lines, market.group, market.bid, market.weight)


def best_by_job(demand, rent):
    """What each job keeps at these rents, one job at a time."""
    kept = []
    for place, bid in enumerate(demand.bid):
        group = int(demand.group_of(np.array([place]))[0])
        net = demand.lines.worth[group] * bid - demand.lines.cost(rent)[group]
        kept.append(demand.weight[place] * max(0.0, net.max()))
    return np.array(kept)


@pytest.mark.parametrize("seed", range(5))
def test_choices_are_what_every_job_likes_best(seed):
    market, demand = drawn(seed=seed)
    rent = np.random.default_rng(seed).uniform(0, 2, market.capacity.size)
    chosen = choices(demand, rent)
    kept = best_by_job(demand, rent)
    ends = np.append(chosen.begin[1:], demand.bid.size)
    by_segment = [kept[begin:end].sum() for begin, end in zip(chosen.begin, ends, strict=True)]
    assert chosen.gain == pytest.approx(by_segment, abs=1e-9)
    bound = bound_at(market.capacity, rent, chosen)
    assert bound == pytest.approx(market.capacity @ rent + kept.sum())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0, 3))
def test_no_award_is_worth_more_than_the_bound_at_any_rents(seed, level):
    market, demand = drawn(60, 4, 3, seed=seed)
    rent = np.random.default_rng(seed).uniform(0, level, 4)
    best = allocate(market.market(), nodes=1).welfare
    assert bound_at(market.capacity, rent, choices(demand, rent)) >= best * (1 - 1e-9)


@pytest.mark.parametrize("groups", [3, 40, 200])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 0.0])
def test_the_gap_asked_for_is_met_job_by_job(groups, tolerance):
    market, demand = drawn(3_000, 12, groups)
    tiers = tiers_of(demand, market.capacity, tolerance=tolerance)
    served = tiers.served
    awards = awards_of(demand, tiers.runs, served.run, served.line, served.share)
    assert (used_hours(demand, awards, 12) <= market.capacity * (1 + 1e-9)).all()
    assert np.bincount(awards.place, awards.share).max() <= 1 + 1e-9
    worth = gain_of(demand, awards)
    assert worth >= tiers.value * (1 - 1e-12)
    assert tiers.bound - worth <= max(tolerance, 1e-9) * tiers.bound


@pytest.mark.parametrize("groups", [5, 120])
def test_tiers_reach_the_optimum_of_the_job_by_job_programme(groups):
    market, demand = drawn(1_500, 10, groups, seed=2)
    exact = allocate(market.market(), nodes=1).welfare
    assert tiers_of(demand, market.capacity, tolerance=0.0).value == pytest.approx(exact, rel=1e-9)


def test_where_a_search_begins_changes_nothing_of_the_award():
    market, _ = drawn(3_000, 12, 30, seed=1)
    now = churned(market, 0.05, seed=5)
    before = award_by_tiers(market.market(), nodes=1).relaxed.tiers.served.rent
    wish = Wish(np.full(12, np.nan), seller_share=0.5, epsilon=0.005)
    cold, warm, wrong = (
        award_by_tiers(now.market(), nodes=1, start=start)
        for start in (None, before, np.full(12, 7.0))
    )
    for other in (warm, wrong):
        assert other.share == pytest.approx(cold.share, abs=1e-9)
        assert other.rents(wish) == pytest.approx(cold.rents(wish), abs=1e-8)


def test_runs_are_cut_evenly_and_cover_everything():
    _, demand = drawn(500, 8, 5)
    runs = runs_of(demand, even_cuts(demand, 4))
    assert runs.weight.sum() == pytest.approx(demand.weight.sum())
    assert set(demand.start) <= set(runs.cut)
    assert (np.diff(runs.cut) > 0).all()
    assert ranges(np.array([0, 5]), np.array([2, 7])).tolist() == [0, 1, 5, 6]


def test_equal_bids_stand_from_the_last_id_to_the_first():
    lines = Lines(np.zeros((1, 1), dtype=int), np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))
    demand = demand_of(lines, np.zeros(4, dtype=int), np.array([2.0, 1.0, 2.0, 2.0]), np.ones(4))
    assert demand.order.tolist() == [1, 3, 2, 0]


def test_lines_of_different_shapes_are_refused():
    one, two = np.ones((1, 1)), np.ones((1, 2))
    with pytest.raises(BadMarket, match="shapes"):
        Lines(one.astype(int), one, two, one)


def test_support_is_exact_at_every_price_it_has_looked_at():
    market, demand = drawn(2_000, 10, 12, seed=3)
    whole = market.market()
    tiers = tiers_of(demand, market.capacity, tolerance=0.0)
    support = Support(whole, demand, np.arange(12) % 10, tiers)
    far = tiers.served.rent * np.linspace(0.5, 1.5, 10)
    assert support.refine((far,))
    assert not support.refine((far,))


@pytest.mark.parametrize("seed", range(4))
def test_coalition_bounds_are_never_below_their_values(seed):
    market, _ = drawn(120, 10, 10, seed=seed)
    whole = market.market()
    award = award_by_tiers(whole, nodes=1)
    coalitions = Coalitions(whole, award.relaxed.grouping, (award.relaxed.rent,))
    program = program_of(whole)
    coalitions._bound(np.arange(20), award.relaxed.rent)
    for at in range(20):
        exact = coalition_value(program, coalitions.members[at], nodes=1)
        assert coalitions.bounds[at] >= exact - 1e-9 * max(1.0, exact)
        assert coalitions.value(coalitions.members[at]) == pytest.approx(exact, rel=1e-7, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [2_500, 20_000])
def test_whole_gangs_fit_and_lose_little(jobs):
    """Above the size of the full programme: a fringe, then what is left is filled."""
    market = sample(jobs, 10, 20, seed=1, gangs=True)
    award = award_by_tiers(market.market(), nodes=1_000)
    whole = award.market
    assert set(np.unique(award.share)) <= {0.0, 1.0}
    used = np.bincount(whole.pool, whole.gpu_hours * award.share, 10)
    assert (used <= whole.capacity * (1 + 1e-9)).all()
    assert np.bincount(whole.job, award.share).max() == 1.0
    assert award.welfare <= award.bound <= award.lp_bound * (1 + 1e-9)
    assert award.bound - award.welfare <= 0.01 * award.bound


def test_a_market_without_capacity_or_gain():
    market, _ = drawn(50, 4, 3)
    for capacity, bid in ((np.zeros(4), market.bid), (market.capacity, market.bid * 1e-9)):
        demand = demand_of(market.lines, market.group, bid, market.weight)
        tiers = tiers_of(demand, capacity, tolerance=0.0)
        assert tiers.value == 0.0
        assert tiers.bound == pytest.approx(0.0, abs=1e-9)
