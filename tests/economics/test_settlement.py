"""Money is whole micro-credits and never made or lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from economics.settlement import Paid, settle, split

amounts = st.integers(0, 10**18)


@given(amounts, amounts, amounts)
def test_pay_and_refund_are_the_payment(payment, contracted, delivered):
    paid = settle(payment_micro=payment, contracted=contracted, delivered=delivered)
    assert paid.pay_micro + paid.refund_micro == payment
    assert 0 <= paid.pay_micro <= payment


@given(amounts, st.integers(1, 10**18), amounts)
def test_over_delivery_pays_what_delivery_pays(payment, contracted, more):
    exact = settle(payment_micro=payment, contracted=contracted, delivered=contracted)
    over = settle(payment_micro=payment, contracted=contracted, delivered=contracted + more)
    assert exact == over == Paid(payment, 0)


def test_the_worked_settlement():
    """92 % of 'C lm on A.H': 61.6326 of 66.9920 credits are due."""
    paid = settle(payment_micro=66_992_000, contracted=2_592_000, delivered=2_384_640)
    assert paid == Paid(61_632_640, 5_359_360)


def test_nothing_contracted_is_all_refunded():
    assert settle(payment_micro=5, contracted=0, delivered=9) == Paid(0, 5)


@pytest.mark.parametrize("name", ["payment_micro", "contracted", "delivered"])
def test_negative_amounts_are_refused(name):
    with pytest.raises(ValueError, match=name):
        settle(**{"payment_micro": 1, "contracted": 1, "delivered": 1, name: -1})


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=12))
def test_parts_sum_to_the_whole(total, weights):
    if sum(weights) == 0:
        weights[0] = 1
    parts = split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


def test_ties_go_to_the_earlier_part():
    assert split(2, (1, 1, 1)) == (1, 1, 0)
    assert split(-2, (1, 1, 1)) == (-1, -1, 0)
    assert split(10, (1, 0, 3)) == (3, 0, 7)


def test_nothing_to_split_by():
    assert split(0, (0, 0)) == (0, 0)
    assert split(0, ()) == ()
    with pytest.raises(ValueError, match="sum to zero"):
        split(1, (0, 0))
    with pytest.raises(ValueError, match="negative"):
        split(1, (2, -1))
