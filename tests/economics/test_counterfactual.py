"""The round without one tenant, and with one bid more: by hand, by brute force, as properties."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics.book import document_sha256
from economics.counterfactual import (
    large,
    marginal_contribution,
    quote,
    standings,
    tenants,
    with_bid,
    without,
)
from economics.errors import BadBook
from tests.economics.books import Document, a_book, a_job, a_pool, books, clear, example

SURE = 1e-6


def of(tenant: str, name: str, value: float, **more: Any) -> Document:
    return a_job(name, value=value, tenant=tenant, **{"demand": 4.0, **more})


def a_single_gpu(*jobs: Document) -> Document:
    """One GPU for one hour at a reserve of one credit; speed one million samples an hour."""
    return a_book(*jobs, pools=[a_pool(gpus=1, reserve=1.0)])


def named(found, name):
    [row] = [row for row in found if row.tenant == name]
    return row


def test_two_bids_for_one_gpu_are_a_second_price_auction():
    book = a_single_gpu(of("ann", "a", 7.0, demand=1.0), of("bob", "b", 4.0, demand=1.0))
    cleared = clear(book)
    ann, bob = (marginal_contribution(book, cleared, name) for name in ("ann", "bob"))
    assert (ann.marginal, ann.would_pay) == pytest.approx((3.0, 4.0), abs=SURE)
    assert (bob.marginal, bob.would_pay) == pytest.approx((0.0, 0.0), abs=SURE)
    assert ann.exact
    assert bob.exact


def test_a_tenant_alone_contributes_the_whole_surplus_and_would_pay_the_reserve():
    book = a_single_gpu(of("ann", "a", 7.0, demand=1.0))
    found = marginal_contribution(book, clear(book), "ann")
    assert (found.marginal, found.would_pay) == pytest.approx((6.0, 1.0), abs=SURE)


def test_a_standing_adds_up_from_the_lines_of_the_clearing():
    book = a_book(
        of("ann", "a1", 7.0, demand=2.0),
        of("ann", "a2", 5.0, demand=1.0),
        of("bob", "b", 4.0, demand=3.0),
        a_job("nobody", value=0.5, demand=1.0),
    )
    cleared = clear(book)
    found = standings(book, cleared)
    assert [row.tenant for row in found] == ["ann", "bob"]
    ann, bob = found
    assert (ann.jobs, ann.gpu_hours, ann.share, ann.worth) == pytest.approx((2, 3.0, 0.75, 19.0))
    assert (bob.jobs, bob.gpu_hours, bob.share, bob.worth) == pytest.approx((1, 1.0, 0.25, 4.0))
    paid = sum(line["payment_micro"] for line in cleared["allocation"]) / 1e6
    assert ann.paid + bob.paid == pytest.approx(paid)
    assert ann.surplus == pytest.approx(19.0 - ann.paid)
    assert large(found, 0.5) == ("ann",)
    assert large(found, 0.25) == ("ann", "bob")


def test_the_three_sites_bounds_lie_below_the_contributions():
    book = example("book_three_sites")
    for row in book["jobs"]:
        row["tenant"] = row["site"]
    cleared = clear(book)
    for row in standings(book, cleared):
        found = marginal_contribution(book, cleared, row.tenant)
        alone = clear(without(book, row.tenant))["welfare"]
        assert found.marginal == pytest.approx(cleared["welfare"] - alone, abs=1e-6)
        assert found.exact
        assert 0 < row.at_least <= found.marginal + SURE
        assert row.surplus == pytest.approx(row.at_least, abs=1e-6)  # divisible, at exact prices


def test_without_a_tenant_its_jobs_and_floors_are_gone_and_the_book_is_untouched():
    book = a_book(of("ann", "a", 7.0), of("bob", "b", 4.0), floors=[{"job": "a", "demand": 1.0}])
    before = copy.deepcopy(book)
    rest = without(book, "ann")
    assert [job["id"] for job in rest["jobs"]] == ["b"]
    assert rest["floors"] == []
    assert book == before
    found = marginal_contribution(book, clear(book), "ann")
    assert found.marginal == pytest.approx(clear(book)["welfare"] - clear(rest)["welfare"])


def test_who_has_no_job_and_what_does_not_belong_together_is_refused():
    book = a_book(of("ann", "a", 7.0), a_job("free", value=1.0))
    cleared = clear(book)
    assert tenants(book) == ("ann",)
    for call in (
        lambda: without(book, "bob"),
        lambda: marginal_contribution(book, cleared, "bob"),
        lambda: standings({**book, "round_hours": 2.0}, cleared),
        lambda: marginal_contribution({**book, "round_hours": 2.0}, cleared, "ann"),
        lambda: with_bid(book, a_job("a"), []),
    ):
        with pytest.raises(BadBook):
            call()


def test_under_another_policy_the_surplus_is_measured_on_both_sides():
    book = a_single_gpu(of("ann", "a", 7.0, demand=1.0), of("bob", "b", 4.0, demand=1.0))
    cleared = clear(book)
    fair = {**book, "rules": {"epsilon": 0.0, "policy": "max_min"}}
    shared = {**cleared, "welfare": 4.5, "bound": 4.5, "book_sha256": document_sha256(fair)}
    assert marginal_contribution(fair, shared, "ann").marginal == pytest.approx(3.0, abs=SURE)


def with_tenants(document: Document, names: list[int]) -> Document:
    for job, name in zip(document["jobs"], names, strict=False):
        job["tenant"] = f"t{name}"
    return document


@settings(deadline=None, max_examples=60)
@given(books(kinds=("divisible", "gang")), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_a_contribution_is_bracketed_and_never_below_its_certified_bound(document, names):
    book = with_tenants(document, names)
    cleared = clear(book)
    size = max(1.0, cleared["welfare"])
    shares = 0.0
    for row in standings(book, cleared):
        found = marginal_contribution(book, cleared, row.tenant)
        rest = clear(without(book, row.tenant))
        assert found.marginal == pytest.approx(
            max(cleared["welfare"] - rest["welfare"], 0.0), abs=SURE * size
        )
        assert found.low - SURE * size <= found.marginal <= found.high + SURE * size
        assert row.at_least <= found.high + SURE * size
        assert row.surplus == pytest.approx(row.worth - row.paid)
        assert row.surplus >= -SURE * size  # no award at a loss
        shares += row.share
    assert shares == pytest.approx(1.0 if cleared["allocation"] and tenants(book) else 0.0)


@settings(deadline=None, max_examples=40)
@given(books(), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_contributions_of_a_divisible_book_cover_what_tenants_keep_at_the_prices(document, names):
    """Nobody would keep less under Vickrey, Clarke and Groves than at the published prices."""
    book = with_tenants(document, names)
    cleared = clear(book)
    for row in standings(book, cleared):
        found = marginal_contribution(book, cleared, row.tenant)
        room = SURE * max(1.0, cleared["welfare"])
        assert found.would_pay <= row.paid + room + cleared["regret"]


def test_a_quote_says_where_at_what_price_and_whom_it_displaces():
    book = a_single_gpu(of("ann", "a", 4.0, gang=1), of("bob", "b", 3.0, gang=1))
    cleared = clear(book)
    found = quote(book, cleared, a_job("mine", value=6.0, gang=1))
    [placed] = found.placed
    assert (placed.pool, placed.gpu_hours, placed.msamples) == ("A.G", 1.0, 1.0)
    assert placed.payment_micro == round(placed.price * 1e6)
    assert 4.0 <= placed.price <= 6.0
    assert placed.price_before == cleared["prices"]["A.G"]
    [gone] = found.displaced
    assert (gone.job, gone.before, gone.after) == ("a", 1.0, 0.0)
    assert (found.reason, found.why, found.would_run_at) == ("", "", None)


def test_a_quote_that_would_not_run_says_which_bid_would_have():
    book = a_single_gpu(of("ann", "a", 4.0, gang=1))
    found = quote(book, clear(book), a_job("mine", value=2.0, gang=1))
    assert (found.placed, found.displaced) == ((), ())
    assert found.reason in ("priced_out", "rejected_at_price")
    assert found.why
    assert found.would_run_at is not None
    higher = a_job("mine", value=found.would_run_at["value"] + 4.0, gang=1)
    assert quote(book, clear(book), higher).placed


def test_a_quote_brings_the_speeds_that_the_book_lacks_and_believes_those_it_has():
    book = a_single_gpu(of("ann", "a", 4.0, gang=1))
    bid = {**a_job("mine", value=6.0, gang=1), "class": "new"}
    cell = {"pool": "A.G", "class": "new", "samples_per_s": 1000.0}
    assert quote(book, clear(book), bid).reason == "no_feasible_pool"
    assert quote(book, clear(book), bid, [cell]).placed[0].msamples == pytest.approx(3.6)
    faster = {"pool": "A.G", "class": "unit", "samples_per_s": 9e9}
    strange = {**cell, "pool": "Z.Z"}
    longer = with_bid(book, bid, [faster, strange, cell])
    assert longer["affinity"] == [*book["affinity"], cell]


@settings(deadline=None, max_examples=40)
@given(books(kinds=("divisible", "gang")), st.integers(0, 9), st.sampled_from([1, 2, [1, 2]]))
def test_a_quote_is_the_round_that_would_have_been(document, value, gang):
    bid = {"id": "mine", "site": "S0", "class": "cnn", "value": float(value), "gang": gang}
    cleared = clear(document)
    found = quote(document, cleared, bid)
    again = clear({**document, "jobs": [*document["jobs"], bid]})
    lines = [line for line in again["allocation"] if line["job"] == "mine"]
    assert [p.payment_micro for p in found.placed] == [line["payment_micro"] for line in lines]
    assert [p.price for p in found.placed] == [again["prices"][line["pool"]] for line in lines]
    assert not {row.job for row in found.displaced} & {"mine"}
    for row in found.displaced:
        assert row.after < row.before
