"""Supply, demand and price intervals of a round, against hand, accounts and another formulation."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from economics import accounts
from economics.book import read_book
from economics.curves import curves, read_cleared
from economics.curves.demand import demand_of, own_steps
from economics.errors import BadBook
from tests.economics.books import PER_HOUR, a_book, a_job, a_pool, books, clear, example
from tests.economics.posted import posted, rich_rounds

SMALL = settings(deadline=None, max_examples=40)
HIGH, LOW = a_job("high", value=7.2, demand=8.0), a_job("low", value=3.6, demand=8.0)


def drawn(document, **options):
    """The curves of a book that is cleared, each pool by its id."""
    found = curves(read_cleared(document, clear(document)), **options)
    return found, {row["id"]: row for row in found["pools"]}


def integral(steps, low, high):
    """GPU-hours wanted, summed over all prices from low to high."""
    return steps.fixed * (high - low) + float(
        steps.hours @ np.clip(steps.worth - low, 0.0, high - low)
    )


@SMALL
@given(rich_rounds(), st.data())
def test_demand_is_what_jobs_lose_as_the_price_grows(cleared, data):
    """Envelope theorem: gain at a low price less gain at a high one = demand in between, summed."""
    market = cleared.book.market
    assume(market.pools)
    pools = np.unique(data.draw(st.lists(st.integers(0, market.pools - 1), min_size=1)))
    steps = demand_of(cleared, pools)
    assert (steps.hours > 0).all()
    assert (np.diff(steps.worth) <= 0).all()

    ends = [float(market.reserve[pools].min()), *steps.worth, 1.5 * cleared.unit]
    for low, high in ((ends[0], ends[-1]), *zip(sorted(ends), sorted(ends)[1:], strict=False)):
        gains = []
        for price in (low, high):
            rent = cleared.price - market.reserve
            rent[pools] = price - market.reserve[pools]
            gains.append(accounts.best_gain(market, rent))
        lost = float((gains[0] - gains[1])[np.isfinite(gains[1])].sum())
        size = max(1.0, float(np.abs(gains[0][np.isfinite(gains[0])]).sum()))
        assert lost == pytest.approx(integral(steps, low, high), abs=1e-7 * size)


@SMALL
@given(rich_rounds())
def test_merit_orders_fall_and_hold_each_job_once_at_its_widest(cleared):
    market = cleared.book.market
    for pool in range(market.pools):
        steps = own_steps(cleared, pool)
        assert (np.diff(steps.worth) <= 0).all()
        here = market.pool == pool
        best = np.zeros(market.jobs)
        np.maximum.at(best, market.job[here], (market.value - market.cost)[here])
        worth = np.bincount(steps.job, steps.worth * steps.hours, minlength=market.jobs)
        assert worth == pytest.approx(best, rel=1e-9, abs=1e-9)


@SMALL
@given(books())
def test_a_divisible_round_clears_on_its_curves(document):
    found, pools = drawn(document)
    unit = max([read_cleared(document, clear(document)).unit])
    near = 1e-5 * unit
    for row in pools.values():
        hours = 1e-6 * max(1.0, row["gpu_hours"], row["wanted"]["most"])
        assert row["wanted"]["least"] - hours <= row["sold"] <= row["wanted"]["most"] + hours
        assert row["sold"] >= row["gpu_hours"] - hours or row["price"] <= row["reserve"] + near
        assert row["interval"]["posted"] == "inside"
        ends = [row[key][end] for key in ("interval", "crossing") for end in ("lowest", "highest")]
        low, high, first, last = ends
        assert low - near <= first <= row["price"] + near
        assert row["price"] - near <= last <= high + near
    for row in found["gpus"]:
        of_kind = [pool for pool in pools.values() if pool["gpu"] == row["gpu"]]
        assert row["sold"] == pytest.approx(sum(pool["sold"] for pool in of_kind), abs=1e-6)
        if len(of_kind) == 1:
            assert row["demand"] == of_kind[0]["demand"]
            assert row["crossing"] == of_kind[0]["crossing"]


def ends_by_cut(document, clearing):
    """Ends of every pool's rent where total regret is least, written as economics.md, 3.4 does.

    Pure gang books: variables are rents and regrets; nobody served pays more than it gains.
    """
    market = read_book(document).market
    share = read_cleared(document, clearing).share
    pools, jobs = market.pools, market.jobs
    realised = accounts.job_gain(market, share)
    paid = np.zeros((jobs, pools))
    np.add.at(paid, (market.job, market.pool), market.gpu_hours * share)
    cost = np.append(market.capacity - accounts.used_hours(market, share), np.ones(jobs))
    rows = [np.append(paid[job], np.zeros(jobs)) for job in range(jobs)]
    most = list(realised)
    for column in range(market.columns):
        job, pool = market.job[column], market.pool[column]
        row = np.append(paid[job], np.zeros(jobs))
        row[pool] -= market.gpu_hours[column]
        row[pools + job] = -1.0
        rows.append(row)
        most.append(realised[job] - market.gain[column])
    for job in range(jobs):  # nothing at all is a choice too
        row = np.append(paid[job], np.zeros(jobs))
        row[pools + job] = -1.0
        rows.append(row)
        most.append(realised[job])
    least = linprog(cost, A_ub=rows, b_ub=most, method="highs").fun
    slack = 1e-9 * max(1.0, abs(least))
    ends = []
    for pool in np.unique(market.pool):
        aim = np.zeros(pools + jobs)
        aim[pool] = 1.0
        both = [
            linprog(sign * aim, A_ub=[*rows, cost], b_ub=[*most, least + slack], method="highs")
            for sign in (1.0, -1.0)
        ]
        ends.append([sign * one.fun for sign, one in zip((1.0, -1.0), both, strict=True)])
    return dict(zip(np.unique(market.pool), ends, strict=True))


@settings(deadline=None, max_examples=25)
@given(books(kinds=("gang",)))
def test_intervals_of_gangs_are_those_of_the_regret_programme(document):
    clearing = clear(document)
    cleared = read_cleared(document, clearing)
    assume(cleared.book.market.columns)
    rows = curves(cleared)["pools"]
    assert {row["interval"]["posted"] for row in rows} == {"inside"}
    for at, ends in ends_by_cut(document, clearing).items():
        told = [rows[at]["interval"][end] - rows[at]["reserve"] for end in ("lowest", "highest")]
        assert told == pytest.approx(ends, abs=1e-5 * cleared.unit)


@settings(deadline=None, max_examples=20)
@given(books(kinds=("divisible", "gang"), epsilon=0.05))
def test_smoothed_and_mixed_rounds_have_intervals_too(document):
    _, pools = drawn(document)
    for row in pools.values():
        interval = row["interval"]
        assert row["reserve"] - 1e-9 <= interval["lowest"] <= interval["highest"]
        outside = (row["price"] < interval["lowest"]) or (row["price"] > interval["highest"])
        assert outside or interval["posted"] == "inside"


def test_three_sites():
    """The worked example of the design: each price is the threshold of a job at the margin."""
    found, pools = drawn(example("book_three_sites"))
    assert {name: row["price"] for name, row in pools.items()} == pytest.approx(
        {"A.H": 8.374, "A.V": 2.193, "B.H": 9.31, "B.V": 2.2892, "C.V": 1.462}, abs=1e-6
    )
    for row in pools.values():
        assert row["interval"]["lowest"] == pytest.approx(row["price"], abs=1e-6)
        assert row["interval"]["highest"] == pytest.approx(row["price"], abs=1e-6)
        assert row["interval"]["position"] is None
    fast = pools["A.H"]
    assert fast["supply"] == [[0.0, 1.5], [8.0, None]]
    assert fast["demand"][0] == [0.0, pytest.approx(8.374)]
    assert fast["demand"][1][0] == pytest.approx(5.0 / 0.324)  # all that c-lm wants
    assert fast["demand"][-1][1] is None
    first = fast["merit"][0]
    assert (first["job"], first["sold"]) == ("c-lm", 8.0)
    assert first["worth"] == pytest.approx(26.0 * 0.324 - 0.05)
    [fast_kind, slow_kind] = found["gpus"]
    assert [row["pool"] for row in slow_kind["merit"]] == ["C.V", "B.V", "A.V"]
    assert [row["cumulative"] for row in slow_kind["merit"]] == [24.0, 40.0, 44.0]
    assert slow_kind["supply"] == [[0.0, 0.3], [24.0, 0.35], [40.0, 0.4], [44.0, None]]
    assert fast_kind["price"] == pytest.approx((8 * 8.374 + 4 * 9.31) / 12, abs=1e-6)


def test_the_gang_example():
    """Least regret 0.1 leaves each price 0.4 of room; the rule takes the middle."""
    _, pools = drawn(example("book_gangs"))
    for name, ends in (("A.G", (3.1, 3.5)), ("B.G", (2.7, 3.1))):
        interval = pools[name]["interval"]
        assert (interval["lowest"], interval["highest"]) == pytest.approx(ends, abs=1e-6)
        assert interval["position"] == pytest.approx(0.5, abs=1e-4)


def test_two_bidders_leave_an_interval():
    document = a_book(HIGH, LOW, pools=[a_pool(gpus=8)])
    found, pools = drawn(document)
    row = pools["A.G"]
    assert row["demand"] == [[0.0, 7.2], [8.0, 3.6], [16.0, None]]
    assert row["crossing"] == {"lowest": pytest.approx(3.6), "highest": pytest.approx(7.2)}
    assert row["interval"]["lowest"] == pytest.approx(3.6)
    assert row["interval"]["highest"] == pytest.approx(7.2)
    assert row["interval"]["position"] == pytest.approx(0.5)
    assert row["wanted"] == {"least": 8.0, "most": 8.0}
    assert [(job["job"], job["cumulative"], job["sold"]) for job in row["merit"]] == [
        ("high", 8.0, 8.0),
        ("low", 16.0, 0.0),
    ]
    assert found["gpus"][0]["crossing"] == row["crossing"]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5))
def test_one_pools_interval_is_what_the_two_ends_of_the_price_rule_give(bids):
    jobs = [
        a_job(f"j{at}", value=float(value), demand=float(demand))
        for at, (value, demand) in enumerate(bids)
    ]
    document = a_book(*jobs, pools=[a_pool(gpus=8, reserve=0.5)])
    _, pools = drawn(document)
    interval = pools["A.G"]["interval"]
    for share, end in ((0.0, "lowest"), (1.0, "highest")):
        there = clear({**document, "rules": {"epsilon": 0.0, "seller_share": share}})
        assert interval[end] == pytest.approx(there["prices"]["A.G"], abs=1e-5)


def test_a_price_outside_its_interval_is_told():
    rules = {"rules": {"epsilon": 0.05}, "previous_prices": {"A.G": 3.0}}
    _, pools = drawn(a_book(HIGH, LOW, pools=[a_pool(gpus=8)], **rules))
    assert pools["A.G"]["interval"]["posted"] == "below"
    assert pools["A.G"]["interval"]["position"] < 0


def test_a_cap_bounds_the_interval():
    rules = {"epsilon": 0.0, "price_cap": {"A.G": 5.0}}
    _, pools = drawn({**a_book(HIGH, LOW, pools=[a_pool(gpus=8)]), "rules": rules})
    interval = pools["A.G"]["interval"]
    assert (interval["lowest"], interval["highest"]) == pytest.approx((3.6, 5.0), abs=1e-6)


def test_a_floor_is_owed_at_any_price():
    """The home site promised all it has; the price still stays within what the job gains."""
    document = a_book(a_job(demand=4.0), floors=[{"job": "j", "demand": 4.0}])
    _, pools = drawn(document)
    row = pools["A.G"]
    assert row["at_any_price"] == pytest.approx(4.0, rel=1e-6)
    assert row["interval"]["highest"] == pytest.approx(4.0, abs=1e-6)
    assert row["interval"]["posted"] == "inside"
    dear = curves(posted(a_book(a_job(demand=4.0, value=1.5), pools=[a_pool(gpus=8)]), [3.0]))
    assert dear["pools"][0]["at_any_price"] == 0.0


def test_an_elastic_job_has_a_step_for_each_size_that_pays():
    """2 -> 4 GPUs bring 1.6, 4 -> 8 bring 1.2 and 1 -> 2 as much as the first: 1 is skipped."""
    affinity = [
        {"pool": "A.G", "class": "unit", "samples_per_s": PER_HOUR * speed, "gpus": gpus}
        for gpus, speed in ((1, 1.0), (2, 2.0), (4, 3.6), (8, 4.8))
    ]
    job = a_job(value=3.0, gang=[1, 2, 4, 8])
    _, pools = drawn(a_book(job, pools=[a_pool(gpus=8, reserve=0.5)], affinity=affinity))
    steps = [(row["gpu_hours"], row["worth"], row["sold"]) for row in pools["A.G"]["merit"]]
    assert steps == [(2.0, 3.0, 2.0), (2.0, pytest.approx(2.4), 2.0), (4.0, pytest.approx(0.9), 4)]
    assert pools["A.G"]["demand"] == [[0.0, 3.0], [2.0, 2.4], [4.0, 0.9], [8.0, None]]


def test_empty_idle_and_closed_pools():
    document = a_book(pools=[])
    found, _ = drawn(document)
    assert (found["pools"], found["gpus"]) == ([], [])
    closed, idle = a_pool("A", gpus=0, reserve=2.0), a_pool("B", gpus=4, reserve=9.0)
    _, pools = drawn(a_book(a_job(value=4.0), pools=[closed, idle]))
    for name, reserve in (("A.G", 2.0), ("B.G", 9.0)):
        row = pools[name]
        assert row["demand"] == [[0.0, None]]
        assert row["merit"] == []
        for ends in (row["crossing"], row["interval"]):
            assert (ends["lowest"], ends["highest"]) == (reserve, reserve)
    assert pools["A.G"]["supply"] == [[0.0, None]]


def test_only_what_is_asked_for_is_written():
    document = example("book_three_sites")
    cleared = read_cleared(document, clear(document))
    one = curves(cleared, pools=["B.V"], merit=False, intervals=False)
    assert [row["id"] for row in one["pools"]] == ["B.V"]
    assert [row["gpu"] for row in one["gpus"]] == ["V"]
    assert "merit" not in one["pools"][0]
    assert one["pools"][0]["interval"] is None
    whole = {row["id"]: row for row in curves(cleared)["pools"]}
    assert one["pools"][0]["demand"] == whole["B.V"]["demand"]


def test_a_policy_other_than_surplus_has_no_supporting_prices():
    document = {**a_book(HIGH), "rules": {"policy": "max_min"}}
    [row] = curves(posted(document, [1.0]))["pools"]
    assert row["interval"] is None
    assert row["crossing"]["lowest"] is not None


def decimals(value):
    if isinstance(value, dict):
        return max(map(decimals, value.values()), default=0)
    if isinstance(value, list):
        return max(map(decimals, value), default=0)
    text = repr(value)
    return len(text.partition(".")[2]) if isinstance(value, float) and "e" not in text else 0


@settings(deadline=None, max_examples=15)
@given(rich_rounds())
def test_numbers_are_short_and_finite_and_pools_come_by_id(cleared):
    found = curves(cleared, intervals=False)
    json.dumps(found, allow_nan=False)
    assert decimals(found) <= 9
    assert [row["id"] for row in found["pools"]] == sorted(row["id"] for row in found["pools"])


def test_the_order_of_the_book_changes_nothing():
    document = example("book_three_sites")
    clearing = clear(document)
    turned = {**document, "jobs": document["jobs"][::-1], "pools": document["pools"][::-1]}
    assert curves(read_cleared(turned, clearing)) == curves(read_cleared(document, clearing))


def test_a_clearing_of_another_book_is_refused():
    document = example("book_three_sites")
    other = {**document, "round_hours": 2.0}
    with pytest.raises(BadBook, match="is of another book"):
        read_cleared(other, clear(document))
