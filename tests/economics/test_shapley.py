"""The Shapley value against its definition and its axioms, and what the sampled one promises."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from economics.book import read_book
from economics.errors import BadBook
from economics.sharing.game import coalition_sums, game_of
from economics.sharing.shapley import of_table, shapley, shapley_sampled
from tests.economics.books import a_book, a_pool, books, clear, example
from tests.economics.markets import divisible_market, gang_market, side_by_side

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def the_game(document):
    return game_of(read_book(document))


def by_definition(values):
    """The mean over all orders of joining."""
    sites = values.size.bit_length() - 1
    total = np.zeros(sites)
    for order in itertools.permutations(range(sites)):
        mask = 0
        for site in order:
            total[site] += values[mask | 1 << site] - values[mask]
            mask |= 1 << site
    return total / math.factorial(sites)


tables = st.integers(1, 5).flatmap(
    lambda sites: st.lists(
        st.integers(-20, 20).map(float), min_size=1 << sites, max_size=1 << sites
    ).map(lambda values: np.array([0.0, *values[1:]]))
)


@quick
@given(tables)
def test_it_is_the_mean_over_all_orders(values):
    assert of_table(values) == pytest.approx(by_definition(values), abs=1e-9)


@quick
@given(tables, st.integers(0, 4))
def test_it_pays_a_site_that_adds_nothing_nothing(values, place):
    """I21, in a table: a new site anywhere, whose joining never changes the value."""
    sites = values.size.bit_length() - 1
    place = min(place, sites)
    wider = values.reshape(-1, 1 << place)[:, None, :].repeat(2, axis=1).ravel()
    found = of_table(wider)
    assert found[place] == pytest.approx(0.0, abs=1e-9)
    assert np.delete(found, place) == pytest.approx(of_table(values), abs=1e-9)


@quick
@given(tables, st.floats(-3, 3))
def test_it_is_linear(values, factor):
    """I21."""
    other = np.roll(values[::-1], 1)
    together = of_table(values + factor * other)
    assert together == pytest.approx(of_table(values) + factor * of_table(other), abs=1e-9)


def test_the_worked_example():
    found = shapley(the_game(example("book_three_sites")))
    assert found == pytest.approx([53.5894, 49.8347, 66.2924], abs=1e-3)


@quick
@given(books(kinds=("divisible", "gang"), most=4))
def test_what_it_pays_is_all_there_is_and_no_site_makes_more_alone(document):
    """I21: efficiency; individual rationality, since values add up."""
    game = the_game(document)
    found, tolerance = shapley(game), 1e-9 * max(1.0, game.grand)
    assert found.sum() == pytest.approx(game.grand, rel=1e-12, abs=1e-12)
    assert (found >= game.alone - tolerance).all()
    assert found == pytest.approx(of_table(game.values()), abs=tolerance)


def test_two_sites_with_the_same_to_offer_are_paid_the_same():
    """I21."""
    for seed in range(5):
        document = divisible_market(seed, sites=3)
        twin = json.loads(json.dumps(document).replace("S01", "T01"))
        for key in ("pools", "affinity", "jobs"):
            document[key] += [row for row in twin[key] if "T01" in json.dumps(row)]
        names = sorted({row["site"] for row in document["pools"]})
        document["transfer"] = [
            {"from": home, "to": site, "per_gpu_hour": 0.05}
            for home, site in itertools.permutations(names, 2)
        ]
        game = the_game(document)
        found = dict(zip(game.names, shapley(game), strict=True))
        assert found["S01"] == pytest.approx(found["T01"], abs=1e-8 * game.grand)


def test_markets_that_do_not_trade_are_paid_as_if_alone():
    """I21: additivity; and a site that has nothing to trade gets nothing."""
    parts = [divisible_market(seed, sites=sites) for seed, sites in ((1, 3), (2, 4))]
    joined = copy.deepcopy(side_by_side(parts))
    joined["pools"].append(a_pool("zero", gpus=0))
    found = shapley(the_game(joined))
    apart = np.concatenate([shapley(the_game(part)) for part in parts])
    assert found[:-1] == pytest.approx(apart, rel=1e-9)
    assert found[-1] == 0.0


def test_marginal_contributions_are_worth_more_than_all_there_is():
    """I25, where the core is not empty."""
    for seed in range(20):
        game = the_game(divisible_market(seed, sites=3 + seed % 4, jobs=2))
        without = np.array([game.value(game.everybody ^ 1 << at) for at in range(game.sites)])
        assert (game.grand - without).sum() >= game.grand * (1 - 1e-9)


@pytest.mark.slow
def test_it_is_mostly_outside_the_core_and_the_market_never():
    """Of five sites; a check of the core that always says yes would not pass."""
    outside = 0
    for seed in range(20):
        document = divisible_market(seed, sites=5)
        game = the_game(document)
        values, tolerance = game.values(), 1e-6 * game.grand
        market = np.array([clear(document)["payoffs"][name] for name in game.names])
        assert (values - coalition_sums(market))[1:-1].max() <= tolerance
        outside += (values - coalition_sums(shapley(game)))[1:-1].max() > tolerance
    assert outside >= 0.7 * 20


def test_too_many_sites_for_an_exact_value_are_refused():
    game = the_game(divisible_market(1, sites=13, jobs=1))
    with pytest.raises(BadBook, match="13 of them trade"):
        shapley(game)
    parts = [divisible_market(seed, sites=7, jobs=1) for seed in (1, 2)]
    assert shapley(the_game(side_by_side(parts))).shape == (14,)  # two markets of seven


@pytest.mark.parametrize(
    "document", [divisible_market(3, sites=6), gang_market(3, sites=4)], ids=["divisible", "gangs"]
)
def test_intervals_cover_the_exact_value(document):
    """I24: 50 seeds."""
    game = the_game(document)
    exact, covered = shapley(game), []
    for seed in range(50):
        sampled = shapley_sampled(game, seed=seed)
        assert sampled.value.sum() == pytest.approx(game.grand, rel=1e-9)
        assert sampled.pairs >= 50
        assert not sampled.exact
        covered.append(np.abs(sampled.value - exact) <= sampled.half_width + 1e-12 * game.grand)
    assert np.mean(covered) >= 0.9


def test_sampling_goes_on_until_intervals_are_narrow_or_there_is_no_more():
    game = the_game(divisible_market(3, sites=6))
    narrow = shapley_sampled(game, seed=1, half_width=0.001)
    assert narrow.reached
    assert narrow.half_width.max() <= 0.001 * game.grand
    assert narrow.pairs > 50
    cut = shapley_sampled(game, seed=1, half_width=0.001, most=53)
    assert (cut.pairs, cut.reached) == (53, False)
    assert cut.half_width.max() > 0.001 * game.grand
    assert narrow.value == pytest.approx(shapley(game), abs=0.002 * game.grand)


def test_a_seed_gives_the_same_digits_whatever_was_asked_before():
    book = read_book(divisible_market(1, sites=14, jobs=1))
    first = shapley_sampled(game_of(book), seed=7, half_width=0.05)
    asked = game_of(book)
    assert asked.alone.sum() < asked.grand
    again = shapley_sampled(asked, seed=7, half_width=0.05)
    assert (again.value == first.value).all()
    assert (again.half_width == first.half_width).all()
    other = shapley_sampled(asked, seed=8, half_width=0.05)
    assert (other.value != first.value).any()


def test_values_handed_in_are_what_is_sampled():
    """Four sites that make 1 a pair: a game of its own, whatever the book says."""
    book = read_book(divisible_market(1, sites=4))
    pairs = {mask: float(mask.bit_count() // 2) for mask in range(1, 16)}
    sampled = shapley_sampled(game_of(book, pairs), seed=0)
    assert sampled.value == pytest.approx(np.full(4, 0.5), abs=0.1)
    assert sampled.value.sum() == 2.0
    assert shapley(game_of(book, pairs)) == pytest.approx(np.full(4, 0.5))


def test_a_sampled_value_of_nobody():
    sampled = shapley_sampled(the_game(a_book(pools=[])), seed=0)
    assert sampled.value.size == 0
    assert sampled.reached


@pytest.mark.slow
def test_twenty_four_sites_to_half_a_percent():
    game = the_game(divisible_market(1, sites=24))
    sampled = shapley_sampled(game, seed=0)
    assert sampled.reached
    assert sampled.half_width.max() <= 0.005 * game.grand
    assert sampled.half_width.min() > 0.0
    assert sampled.value.sum() == pytest.approx(game.grand, rel=1e-9)
    assert (sampled.value >= game.alone - sampled.half_width).all()
