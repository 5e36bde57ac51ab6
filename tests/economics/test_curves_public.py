"""What bidders may see of the curves they bid against."""

import json

import numpy as np
import pytest
from hypothesis import given, settings

from economics.curves import curves, public_curves, read_cleared, without_merit
from economics.curves.demand import Steps
from economics.curves.public import blocks
from tests.economics.books import a_book, a_job, a_pool, clear
from tests.economics.posted import rich_rounds


def owned(name, tenant, value, demand=2.0):
    return a_job(name, value=value, demand=demand, tenant=tenant)


def test_no_single_bid_shows_in_public():
    bids = (("ann", 7.13), ("bob", 6.17), ("cleo", 5.19), ("ann", 4.23), ("bob", 3.29))
    jobs = [owned(f"j{at}", tenant, value) for at, (tenant, value) in enumerate(bids)]
    document = a_book(*jobs, pools=[a_pool(gpus=8)])
    cleared = read_cleared(document, clear(document))
    full = curves(cleared)
    [shown] = public_curves(cleared, full)["pools"]
    assert shown["demand"] == [[0.0, pytest.approx((7.13 + 6.17 + 5.19) / 3)], [6.0, None]]
    assert "merit" not in shown
    assert (shown["wanted"], shown["crossing"]) == (None, None)
    ends = [full["pools"][0]["interval"][end] for end in ("lowest", "highest")]
    assert ends == pytest.approx([3.29, 4.23])
    assert [shown["interval"][end] for end in ("lowest", "highest")] == [3.2, 4.3]
    told = json.dumps(public_curves(cleared, full))
    assert all(str(value) not in told for _, value in bids)
    assert "j0" not in told
    assert set(without_merit(full["pools"][0])) == set(full["pools"][0]) - {"merit"}


def test_too_few_tenants_show_nothing_but_the_price():
    document = a_book(owned("a", "ann", 7.0), owned("b", "bob", 6.0), owned("c", "ann", 5.0))
    cleared = read_cleared(document, clear(document))
    shown = public_curves(cleared, curves(cleared))
    [row] = shown["pools"]
    assert (row["demand"], row["interval"]) == (None, None)
    assert row["price"] > 0
    assert shown["gpus"][0]["demand"] is None


def steps(*hours):
    size = len(hours)
    return Steps(np.arange(size), np.array(hours), np.arange(size, 0, -1.0), 0.0)


def test_a_block_in_which_one_tenant_is_nearly_all_waits_for_more():
    assert blocks(steps(20.0, 1.0, 1.0), ["a", "b", "c"]) is None
    wide = blocks(steps(20.0, 1.0, 1.0, 9.0), ["a", "b", "c", "b"])
    assert wide == [[0.0, pytest.approx((80 + 3 + 2 + 9) / 31)], [31.0, None]]


@settings(deadline=None, max_examples=25)
@given(rich_rounds())
def test_public_curves_fall_and_name_no_job(cleared):
    shown = public_curves(cleared, curves(cleared, intervals=False))
    assert all("merit" not in row for row in shown["pools"])
    for row in (*shown["pools"], *shown["gpus"]):
        prices = [price for _, price in row["demand"] or [] if price is not None]
        assert prices == sorted(prices, reverse=True)
        assert row["crossing"] is None
