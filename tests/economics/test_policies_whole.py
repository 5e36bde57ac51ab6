"""Gangs out of parts of a round: who goes first, where to, and that it evens out over rounds."""

from __future__ import annotations

import numpy as np

from economics.book import read_book
from economics.policies import question_of
from economics.policies.whole import place_gangs
from tests.economics.books import a_book, a_job, a_pool


def placed(document, part, attained=None):
    """{job: pool} of the gangs that run when each should have `part` of each of its columns."""
    book = read_book(document)
    market = book.market
    had = np.zeros(market.jobs) if attained is None else np.asarray(attained, dtype=float)
    way = np.zeros(market.columns, dtype=np.int64)
    for pool in range(market.pools):
        way[market.pool == pool] = pool
    share = place_gangs(market, np.asarray(part, dtype=float), way, market.capacity.copy(), had)
    return {
        book.jobs[market.job[column]].id: book.pools[market.pool[column]].id
        for column in np.flatnonzero(share)
    }


def two_gangs(**more):
    return a_book(a_job("a", gang=4, **more.get("a", {})), a_job("b", gang=4, **more.get("b", {})))


def test_the_gang_that_should_have_more_of_the_round_goes_first():
    assert placed(two_gangs(), [0.4, 0.6]) == {"b": "A.G"}


def test_equal_parts_go_by_id():
    assert placed(two_gangs(), [0.5, 0.5]) == {"a": "A.G"}


def test_what_a_gang_already_had_counts_against_it():
    assert placed(two_gangs(), [0.6, 0.4], attained=[2 * 4 * 3600.0, 0.0]) == {"b": "A.G"}


def test_a_gang_that_should_have_the_whole_round_is_never_passed_over():
    assert placed(two_gangs(), [1.0, 0.9], attained=[100 * 4 * 3600.0, 0.0]) == {"a": "A.G"}


def test_gangs_go_where_most_is_left_of_what_their_kind_was_given():
    document = a_book(
        *(a_job(name, gang=2) for name in "abc"), pools=[a_pool("A"), a_pool("B", gpus=8)]
    )
    found = placed(document, [1 / 3, 2 / 3] * 3)
    assert sorted(found.values()) == ["A.G", "B.G", "B.G"]


def test_a_gang_stays_where_it_runs_while_its_kind_has_some_of_that():
    document = a_book(a_job("a", gang=2, running_on="A.G"), pools=[a_pool("A"), a_pool("B")])
    assert placed(document, [0.1, 0.9]) == {"a": "A.G"}


def test_a_gang_without_room_where_it_was_given_some_goes_elsewhere():
    document = a_book(a_job("a", gang=4), a_job("b", gang=4), pools=[a_pool("A"), a_pool("B")])
    assert placed(document, [0.6, 0.0, 0.4, 0.0]) == {"a": "A.G", "b": "B.G"}


def test_a_small_gang_fills_what_a_large_one_cannot():
    document = a_book(a_job("a", gang=3), a_job("b", gang=4), a_job("c", gang=1))
    assert placed(document, [0.9, 0.8, 0.1]) == {"a": "A.G", "c": "A.G"}


def test_over_the_rounds_everybody_has_the_part_it_should():
    """Three gangs of four GPUs on four: two should have a quarter of the rounds, one half."""
    document = a_book(*(a_job(name, gang=4) for name in "abc"))
    had = dict.fromkeys("abc", 0)
    for _ in range(40):
        [name] = placed(
            document, [0.25, 0.25, 0.5], attained=[had[one] * 4 * 3600.0 for one in "abc"]
        )
        had[name] += 1
    assert had["c"] in range(18, 23)
    assert had["a"] in range(9, 12)


def test_claims_of_jobs_without_a_column_go_to_those_that_have_one():
    jobs = [a_job("a"), a_job("b", pools=[]), a_job("c", "B", pools=[]), a_job("d", "C")]
    weight = question_of(read_book(a_book(*jobs))).weight
    assert weight[0] == weight[3] == 0.5
    assert (weight > 0).all()
