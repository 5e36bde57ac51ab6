"""The reasons of all jobs are found together; here each job is asked alone."""

import math
import re

import numpy as np
import pytest

from economics.book import read_book
from economics.reasons import apart, unplaced
from tests.economics.books import a_book, a_job, a_pool
from tests.economics.large import large_book
from tests.economics.varied import an_award, varied_book


def verdict(book, job, share, price):
    """(reason, pool and bid it would run at) of one job, or None when it has nothing to ask."""
    market, row = book.market, book.jobs[job]
    if 0 in (row.value, row.demand, row.max_gpus):
        return None
    at = np.arange(market.columns)[market.columns_of(job)]
    if not at.size:
        return without_columns(book, row), None
    reason = (gang_left_out if row.gang else not_in_full)(book, job, at, share[at], price)
    spent = market.cost[at] + price[market.pool[at]] * market.gpu_hours[at]
    bids = spent / market.msamples[at]
    pool = book.pools[market.pool[at[bids.argmin()]]].id
    return reason and (reason, (pool, round(float(bids.min()), 9)))


def gang_left_out(book, _, at, share, price):
    if share.any():
        return None
    market = book.market
    worth = market.value[at]
    keeps = worth - market.cost[at] - price[market.pool[at]] * market.gpu_hours[at]
    return "rejected_at_price" if keeps.max() > 1e-9 * worth[keeps.argmax()] else "priced_out"


def not_in_full(book, job, at, share, _):
    market, enough = book.market, 1 - 1e-6
    given = (market.msamples[at] * share).sum()
    hours = (market.gpu_hours[at] * share).sum()
    if given >= book.jobs[job].demand * enough or hours >= market.width[job] * enough:
        return None
    if given >= market.demand[job] * enough:
        return "budget"
    return "partly_served" if given else "priced_out"


def without_columns(book, row):
    sizes = row.gang or (1,)
    fast = []
    for pool in book.pools:
        rates = book.speed.get((pool.id, row.job_class), {})
        if row.pools is None or pool.id in row.pools:
            fast += [
                (pool, size, rates.get(size, size * rates.get(1, 0.0)))
                for size in sizes
                if rates.get(size, size * rates.get(1, 0.0)) > 0
            ]
    fits = [(pool, size, rate) for pool, size, rate in fast if size <= pool.gpus]
    if not fits:
        return "no_capacity" if fast else "no_feasible_pool"
    if row.gang and all(
        row.value * min(row.demand, rate * 0.0036 * book.hours) > row.budget * (1 + 1e-12)
        for _, _, rate in fits
    ):
        return "budget"
    return "budget" if row.budget == 0 else "priced_out"


def assert_verdicts(book, share, price):
    rows = {row["job"]: row for row in unplaced(book, share, price)}
    assert list(rows) == sorted(rows)
    for job, row in enumerate(book.jobs):
        expected = verdict(book, job, share, price)
        assert (row.id in rows) == (expected is not None)
        if expected is None:
            continue
        reason, bid = expected
        assert rows[row.id]["reason"] == reason
        there = rows[row.id]["would_run_at"]
        assert (there and (there["pool"], there["value"])) == bid
    return rows


def test_verdicts_of_varied_books():
    seen = set()
    for seed in range(200):
        book = read_book(varied_book(seed))
        for turn in range(2):
            share, price = an_award(book, 2 * seed + turn)
            rows = assert_verdicts(book, share, price)
            seen |= {row["reason"] for row in rows.values()}
    assert seen == {
        *("priced_out", "no_capacity", "rejected_at_price", "budget"),
        *("no_feasible_pool", "partly_served"),
    }


@pytest.mark.parametrize("gangs", [False, True])
def test_verdicts_of_large_books(gangs):
    book = read_book(large_book(300, gangs=gangs, pools=30, classes=8))
    assert_verdicts(book, *an_award(book, 1))
    assert_verdicts(book, np.zeros(book.market.columns), book.market.reserve)


def test_the_best_offer_below_reserve_is_named():
    """Of equals the last pool by id; sums in the sentence are the job's own."""
    pools = [
        a_pool(site, reserve=reserve) for site, reserve in (("A", 6.0), ("B", 5.0), ("C", 5.0))
    ]
    jobs = [a_job("one", value=4.0, demand=9.0), a_job("two", value=4.5, gang=2, demand=1.0)]
    [one, two] = unplaced(read_book(a_book(*jobs, pools=pools)), np.zeros(0), np.full(3, 9.0))
    assert one["why"] == (
        "bids 4 credits per million samples, worth 4 per GPU-hour at C.G; its reserve there is 5 "
        "before transfer and moving."
    )
    assert "worth 2.25 per GPU-hour at C.G" in two["why"]


def test_more_jobs_than_are_compared_in_one_step():
    """2,500 jobs of one kind below every reserve: each is told of its own bid."""
    jobs = [a_job(f"j{at:04}", value=1 + at / 2500, demand=9.0) for at in range(2500)]
    book = read_book(a_book(*jobs, pools=[a_pool(reserve=5.0)]))
    rows = unplaced(book, np.zeros(0), np.full(1, 5.0))
    told = [float(re.search(r"^bids (\S+) credits", row["why"])[1]) for row in rows]
    assert told == pytest.approx([row.value for row in book.jobs], rel=1e-5)
    assert math.isclose(told[-1], 1.9996)


def test_a_bid_beyond_every_double_is_still_written():
    document = a_book(a_job(value=1e15, gang=1, demand=1e-320), pools=[a_pool(reserve=0.0)])
    book = read_book(document)
    [row] = unplaced(book, np.zeros(book.market.columns), np.full(1, 1.0))
    assert row["would_run_at"]["value"] == 1e15


@pytest.mark.parametrize(
    ("one", "other", "texts"),
    [
        (12.0, 8.0, ("12", "8")),
        (1.3920004, 1.392, ("1.3920004", "1.392")),
        (11.112300000000001, 11.1123, ("11.1123", "11.1123")),
    ],
)
def test_of_two_sums_it_can_be_seen_which_is_more(one, other, texts):
    shown = apart(one, other)
    assert shown[0] != shown[1]
    assert float(shown[0]) > float(shown[1])
    if texts[0] != texts[1]:
        assert shown == texts
