"""A price that follows excess demand ends where a solver puts it."""

import math

import pytest

from bench.sharing_game import drawn
from economics.incentives.price_adjustment import (
    STEPS,
    BadTraders,
    Buyer,
    Seller,
    adjust_price,
    reference_price,
)


def test_the_price_of_a_hundred_markets_is_the_solvers_dual():
    traded = 0.0
    for seed in range(100):
        buyers, sellers = drawn(seed)
        found = adjust_price(buyers, sellers)
        assert found.kind == "settled"
        assert found.steps <= STEPS == 2000
        assert found.price == pytest.approx(reference_price(buyers, sellers), rel=0.01)
        assert len(found.path) == found.steps + 1
        traded += sum(found.demand)
    assert traded > 100


@pytest.mark.parametrize("seed", range(0, 100, 7))
def test_nobody_would_trade_otherwise_at_the_price_found(seed):
    """Marginal worth equals the price, unless a limit is in the way."""
    buyers, sellers = drawn(seed)
    found = adjust_price(buyers, sellers)
    for buyer, amount in zip(buyers, found.demand, strict=True):
        if buyer.form == "linear":
            wanted = (buyer.first - found.price) / buyer.fading
        else:
            wanted = (buyer.first / found.price - 1) / buyer.fading
        assert amount == pytest.approx(min(max(wanted, 0.0), buyer.most), rel=1e-3, abs=1e-3)
    for seller, amount in zip(sellers, found.supply, strict=True):
        offered = (found.price - seller.reserve) / seller.rising
        assert amount == pytest.approx(min(max(offered, 0.0), seller.most), rel=1e-3, abs=1e-3)
    assert sum(found.demand) - sum(found.supply) == pytest.approx(found.excess, abs=1e-9)


def test_two_straight_lines_cross_where_they_cross():
    found = adjust_price([Buyer(10.0, 1.0, 100.0)], [Seller(2.0, 1.0, 100.0)])
    assert found.price == pytest.approx(6.0, abs=1e-4)
    assert found.demand == pytest.approx((4.0,), abs=1e-4)


def test_a_scarce_good_is_priced_by_its_buyers():
    found = adjust_price([Buyer(10.0, 1.0, 100.0)], [Seller(0.5, 0.01, 3.0)])
    assert found.price == pytest.approx(7.0, abs=1e-3)


def test_where_nobody_would_sell_for_the_worth_nobody_trades():
    found = adjust_price([Buyer(1.0, 1.0, 10.0)], [Seller(2.0, 1.0, 10.0)])
    assert found.kind == "settled"
    assert 1.0 - 1e-4 <= found.price <= 2.0 + 1e-4
    assert found.demand == pytest.approx((0.0,), abs=1e-4)


def test_the_start_does_not_matter():
    buyers, sellers = drawn(3)
    prices = [adjust_price(buyers, sellers, start=start).price for start in (0.0, 1.0, 40.0)]
    assert prices == pytest.approx([prices[0]] * 3, rel=1e-4)


def test_a_pace_of_ones_own_is_kept():
    buyer, seller = Buyer(10.0, 1.0, 100.0), Seller(2.0, 1.0, 100.0)
    found = adjust_price([buyer], [seller], eta=0.25)
    # At price p both are at once at their best answers, so the excess is 12 - 2 p.
    for before, after in zip(found.path[1:], found.path[2:], strict=False):
        assert after == pytest.approx(before + 0.25 * (12 - 2 * before))


def test_a_pace_that_is_too_great_does_not_settle_and_says_so():
    found = adjust_price([Buyer(10.0, 1.0, 100.0)], [Seller(2.0, 1.0, 100.0)], eta=3.0, steps=500)
    assert found.kind == "stopped"
    assert found.steps == 500


@pytest.mark.parametrize(
    "refused",
    [
        lambda: Buyer(-1.0, 1.0, 1.0),
        lambda: Buyer(1.0, 0.0, 1.0),
        lambda: Seller(1.0, 1.0, math.inf),
        lambda: adjust_price([], [Seller(1.0, 1.0, 1.0)]),
        lambda: adjust_price([Buyer(1.0, 1.0, 1.0)], [Seller(1.0, 1.0, 1.0)], eta=0.0),
        lambda: adjust_price([Buyer(1.0, 1.0, 1.0)], [Seller(1.0, 1.0, 1.0)], start=-1.0),
    ],
)
def test_what_is_no_market_is_refused(refused):
    with pytest.raises(BadTraders):
        refused()
