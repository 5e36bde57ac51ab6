"""The dividend: whole micro-credits, zero-sum, capped, and as stable as its two ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics.book import read_book
from economics.sharing.dividend import MICRO, between, dividend, zero_sum_micro
from economics.sharing.game import game_of
from economics.sharing.joining import break_even, joining
from economics.sharing.nucleolus import nucleolus
from tests.economics.books import books, clear, example
from tests.economics.test_nucleolus import excesses

quick = settings(max_examples=60, deadline=None, derandomize=True)
MARKET = np.array([70.8890, 64.3672, 34.4602])
TARGET = np.array([53.7101, 49.9554, 66.0509])
ALONE = np.array([33.5806, 34.5613, 34.1960])


@pytest.fixture(scope="module")
def three_sites():
    document = example("book_three_sites")
    game, clearing = game_of(read_book(document)), clear(document)
    turnover = sum(row["payment_micro"] for row in clearing["allocation"]) / MICRO
    return game, np.array(list(clearing["payoffs"].values())), nucleolus(game).payoff, turnover


def test_half_way_to_the_nucleolus(three_sites):
    game, market, target, turnover = three_sites
    found = dividend(market, target, alpha=0.5, turnover=turnover)
    assert found.transfer == pytest.approx([-8.5895, -7.2059, 15.7954], abs=1e-3)
    assert market + found.transfer == pytest.approx([62.2995, 57.1613, 50.2556], abs=1e-3)
    assert (sum(found.micro), found.capped, found.alpha) == (0, False, 0.5)
    assert excesses(game, market + found.transfer).max() < 0


def test_what_c_gains_by_joining(three_sites):
    game, market, target, _ = three_sites
    for alpha, gained in ((0.0, 0.264), (0.5, 16.06), (1.0, 31.86)):
        assert joining(game, between(market, target, alpha))[2] == pytest.approx(gained, abs=0.01)


def test_the_cap_scales_all_transfers_alike(three_sites):
    game, market, target, turnover = three_sites
    found = dividend(market, target, alpha=1.0, turnover=turnover)
    assert found.capped
    assert 0 <= 0.1 * turnover * MICRO - max(map(abs, found.micro)) < 1.5
    assert found.alpha == pytest.approx(0.1 * turnover / np.abs(target - market).max(), rel=1e-6)
    whole = dividend(market, target, alpha=1.0, turnover=turnover, cap=1.0)
    assert found.transfer == pytest.approx(found.alpha * whole.transfer, abs=2 / MICRO)
    assert excesses(game, market + found.transfer).max() < 0


@quick
@given(books(), st.sampled_from((0.0, 0.25, 0.5, 1.0)))
def test_every_part_of_the_way_is_in_the_core(document, alpha):
    """I23: divisible rounds, where the market is."""
    game = game_of(read_book(document))
    market = np.array(list(clear(document)["payoffs"].values()))
    point = between(market, nucleolus(game).payoff, alpha)
    if len(game.names) > 1:
        assert excesses(game, point).max() <= 2e-6 * max(1.0, game.grand)


@quick
@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=9),
    st.sampled_from((0.0, 0.3, 0.5, 1.0)),
    st.integers(0, 10**12),
)
def test_transfers_are_whole_zero_sum_and_never_above_the_cap(ends, alpha, turnover):
    market, target = np.array(ends, dtype=float).T / 1e7
    target += (market.sum() - target.sum()) / len(ends)
    found = dividend(market, target, alpha=alpha, turnover=turnover / 1e6)
    assert sum(found.micro) == 0
    assert all(type(amount) is int for amount in found.micro)
    assert max(map(abs, found.micro)) <= 0.1 * turnover + 1e-6
    exact = found.alpha * (target - market) * MICRO
    assert np.abs(np.array(found.micro, dtype=float) - exact).max() <= 1 + 1e-9 * 1e5 * MICRO
    assert found.alpha <= alpha


def test_parts_of_a_micro_credit_go_to_the_largest_remainders():
    assert zero_sum_micro(np.array([2e-6, -1.6e-6, -0.4e-6])) == (2, -2, 0)
    assert zero_sum_micro(np.array([1 / 3, 1 / 3, 1 / 3, -1.0])) == (
        333334,
        333333,
        333333,
        -(10**6),
    )
    assert zero_sum_micro(np.array([3e-7, -3e-7])) == (0, 0)


@pytest.mark.parametrize(
    ("alpha", "turnover", "cap"),
    [(-0.1, 1.0, 0.1), (1.1, 1.0, 0.1), (float("nan"), 1.0, 0.1), (0.5, -1.0, 0.1), (0.5, 1.0, -1)],
)
def test_nonsense_is_refused(alpha, turnover, cap):
    with pytest.raises(ValueError, match=r"alpha|negative"):
        dividend(MARKET, TARGET, alpha=alpha, turnover=turnover, cap=cap)


def test_how_much_dividend_makes_joining_worth_its_cost():
    """C gains 0.264 at market prices; at a cost of 10 it needs 31 % of the way."""
    found = break_even(MARKET, TARGET, ALONE + np.array([0.0, 0.0, 10.0]))
    assert found[:2].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    needed = (44.1960 - 34.4602) / (66.0509 - 34.4602)
    assert found[2] == pytest.approx([needed, 1.0])
    # What A gives away must leave it its own cost, too.
    costly = break_even(MARKET, TARGET, ALONE + np.array([30.0, 0.0, 40.0]))
    assert costly[0] == pytest.approx([0.0, (70.8890 - 63.5806) / (70.8890 - 53.7101)])
    assert np.isnan(costly[2]).all(), "no dividend is enough for C"
    assert np.isnan(break_even(MARKET, MARKET, MARKET + 1.0)).all()
