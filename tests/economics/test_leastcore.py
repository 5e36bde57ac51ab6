"""The least core and the nearest stable point: small games by hand, and every game's own limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from economics.book import read_book
from economics.errors import NotCleared
from economics.sharing.game import game_of
from economics.sharing.leastcore import least_core
from economics.sharing.nucleolus import nucleolus
from economics.sharing.projection import projected
from economics.sharing.rules import marginal
from economics.sharing.shapley import shapley
from economics.sharing.tables import TableGame, memberships
from tests.economics.books import clear, example
from tests.economics.markets import divisible_market, gang_market, searching
from tests.economics.test_nucleolus import excesses, tables

quick = settings(max_examples=40, deadline=None, derandomize=True)
MAJORITY = TableGame.of("ABC", {"AB": 1.0, "AC": 1.0, "BC": 1.0, "ABC": 1.0})


def two_suppliers_and_three_tenants():
    """Suppliers P and Q have 2 and 3 GPUs; tenants R, S, T want gangs of 2, 1 and 3."""
    gpus = {"P": 2, "Q": 3}
    gangs = {"R": (2, {"P": 5.0, "Q": 6.0}), "S": (1, {"P": 4.0, "Q": 4.0})}
    gangs["T"] = (3, {"P": 4.0, "Q": 5.0})

    def best(tenants, left):
        if not tenants:
            return 0.0
        (size, values), others = gangs[tenants[0]], tenants[1:]
        ways = [best(others, left)]
        for supplier, free in left.items():
            if free >= size:
                ways.append(values[supplier] + best(others, {**left, supplier: free - size}))
        return max(ways)

    values = {}
    for mask in range(1, 32):
        inside = [name for at, name in enumerate("PQRST") if mask >> at & 1]
        offered = {name: gpus[name] for name in inside if name in gpus}
        values["".join(inside)] = best([name for name in inside if name in gangs], offered)
    return TableGame.of("PQRST", values)


def test_a_majority_of_three_has_no_core():
    """A job across two of three one-GPU sites: any two can have it, and only one pair does."""
    found = least_core(MAJORITY, np.zeros(3))
    assert found.excess == pytest.approx(1 / 3, abs=1e-9)
    assert found.payoff == pytest.approx([1 / 3] * 3, abs=1e-8)


def test_two_suppliers_and_three_tenants_have_no_core():
    game = two_suppliers_and_three_tenants()
    assert game.grand == 10.0
    found = least_core(game, np.full(5, 2.0))
    assert found.excess == pytest.approx(4 / 3, abs=1e-9)
    assert excesses(game, found.payoff).max() == pytest.approx(4 / 3, abs=1e-6)
    assert nucleolus(game).least_excess == pytest.approx(4 / 3, abs=1e-9)


@pytest.mark.parametrize(("name", "least"), [("three_sites", -15.394), ("gangs", -2.7)])
def test_the_examples_have_room_in_their_cores(name, least):
    game = game_of(read_book(example(f"book_{name}")))
    assert least_core(game, np.zeros(3)).excess == pytest.approx(least, abs=1e-3)


def test_a_stable_target_stays_where_it_is():
    game = game_of(read_book(example("book_three_sites")))
    value = shapley(game)
    assert projected(game, value).payoff == pytest.approx(value, abs=1e-9)


def test_where_the_core_is_empty_the_nearest_point_leaves_the_least_excess():
    found = projected(MAJORITY, np.array([1.0, 0.0, 0.0]))
    assert found.least_excess == pytest.approx(1 / 3, abs=1e-6)
    assert found.payoff == pytest.approx([1 / 3] * 3, abs=1e-6)


def test_a_target_below_what_sites_make_alone_is_refused():
    game = TableGame.of("AB", {"A": 2.0, "B": 2.0, "AB": 5.0})
    with pytest.raises(NotCleared, match="one by one"):
        projected(game, np.array([1.0, 2.0]))


@quick
@given(tables())
def test_the_least_excess_is_that_of_the_plain_programme(game):
    """All coalitions at once, by another interface to the solver."""
    sites = len(game.names)
    if sites < 2:
        return
    members = memberships(sites).astype(float)
    found = linprog(
        np.append(np.zeros(sites), 1.0),
        A_ub=-np.c_[members[1:-1], np.ones(len(members) - 2)],
        b_ub=-game.values()[1:-1],
        A_eq=[[1.0] * sites + [0.0]],
        b_eq=[game.grand],
        bounds=[*((float(least), None) for least in game.alone), (None, None)],
    )
    size = max(1.0, game.grand)
    assert least_core(game, game.alone).excess == pytest.approx(found.fun, abs=1e-6 * size)


@quick
@given(tables(), st.integers(0, 10**6))
def test_the_nearest_point_has_the_least_excess_and_nothing_is_nearer(game, seed):
    """I19. Nearest: the way to every other such point starts at no less than a right angle."""
    sites = len(game.names)
    draw = np.random.default_rng(seed)
    size = max(1.0, float(game.values().max()))
    target = draw.dirichlet(np.ones(sites)) * game.grand
    found = least_core(game, target)
    assert found.payoff.sum() == pytest.approx(game.grand, abs=1e-6 * size)
    assert (found.payoff >= game.alone - 1e-6 * size).all()
    if sites > 1:
        assert excesses(game, found.payoff).max() <= found.excess + 1e-6 * size
    others = [nucleolus(game).payoff, least_core(game, target[::-1]).payoff]
    for other in others:
        assert (target - found.payoff) @ (other - found.payoff) <= 1e-5 * size**2


@quick
@given(tables(), st.integers(0, 10**6))
def test_projection_is_stable_wherever_anything_is(game, seed):
    """I19: nobody below alone; coalitions of two or more have the least excess left to them."""
    sites = len(game.names)
    size = max(1.0, float(game.values().max()))
    target = np.random.default_rng(seed).dirichlet(np.ones(sites)) * game.grand
    found = projected(game, target)
    assert found.payoff.sum() == pytest.approx(game.grand, abs=1e-6 * size)
    assert (found.payoff >= game.alone - 1e-6 * size).all()
    if sites > 1:
        least = max(0.0, nucleolus(game).least_excess)
        assert excesses(game, found.payoff).max() <= least + 2e-6 * size


@pytest.mark.parametrize("market", [divisible_market, gang_market])
def test_searching_and_listing_lead_to_the_same_points(market):
    game = game_of(read_book(market(5, sites=4)))
    target = np.full(4, game.grand / 4)
    tolerance = 1e-6 * game.grand
    listed, sought = projected(game, target), projected(game, target, searching(game))
    assert sought.payoff == pytest.approx(listed.payoff, abs=tolerance)
    assert excesses(game, target).max() > tolerance
    assert excesses(game, listed.payoff).max() <= tolerance
    inside = least_core(game, target), least_core(game, target, searching(game))
    assert inside[1].excess == pytest.approx(inside[0].excess, abs=tolerance)
    assert inside[1].payoff == pytest.approx(inside[0].payoff, abs=10 * tolerance)


@quick
@given(tables())
def test_marginal_contributions_leave_no_surplus_where_there_is_a_core(game):
    """I25: what all lose without each site is at least what there is to share."""
    size = max(1.0, float(game.values().max()))
    if len(game.names) > 1 and least_core(game, game.alone).excess <= 0:
        assert marginal(game).sum() >= game.grand - 1e-6 * size


@pytest.mark.slow
def test_shapley_values_leave_the_core_and_markets_and_projections_do_not():
    """Of five sites most Shapley values are outside: so the check does not always say yes."""
    outside = 0
    for seed in range(30):
        document = divisible_market(seed, sites=5)
        game = game_of(read_book(document))
        value, tolerance = shapley(game), 1e-6 * game.grand
        outside += bool(excesses(game, value).max() > tolerance)
        mended = projected(game, value)
        assert mended.least_excess == 0.0
        assert excesses(game, mended.payoff).max() <= tolerance
        market = np.array(list(clear(document)["payoffs"].values()))
        assert excesses(game, market).max() <= tolerance
    assert outside >= 0.7 * 30
