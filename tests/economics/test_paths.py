"""The fast path and the reference path decide the same: welfare, prices, awards, certificate."""

import copy
import random

import numpy as np
import pytest

from economics.book import read_book
from economics.certificate import verify
from economics.clearing import paths
from economics.clearing.tiers.grouping import misfits
from economics.rounds import decide
from tests.economics.books import a_book, a_job, a_pool
from tests.economics.random_books import random_book

BOOKS = 500
PARTS = 10


def decided(document, path):
    return decide(read_book(document), path=path)


def path_of(clearing):
    (row,) = [row for row in clearing["certificate"] if row["check"].startswith("path_")]
    return row["check"].removeprefix("path_")


def books_without_misfits():
    """500 books: half drawn from few numbers, so that they tie; two thirds with old prices."""
    seed = found = 0
    while found < BOOKS:
        document = random_book(seed, ties=seed % 2 == 1)
        seed += 1
        if not misfits(read_book(document).market).any():
            found += 1
            yield document


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_both_paths_agree_on_500_books(part):
    for document in list(books_without_misfits())[part::PARTS]:
        exact, fast = (decided(document, path) for path in (paths.REFERENCE, paths.TIERS))
        size = max(1.0, exact["welfare"])
        assert abs(fast["welfare"] - exact["welfare"]) <= 1e-6 * size
        assert fast["prices"] == pytest.approx(exact["prices"], rel=1e-6, abs=1e-6)
        assert fast["payoffs"] == pytest.approx(exact["payoffs"], abs=1e-5 * size)
        assert [check for check in verify(document, fast) if not check.holds] == []


@pytest.mark.parametrize("seed", range(20))
def test_gangs_come_within_the_published_gap(seed):
    document = random_book(seed, gangs=True, ties=seed % 2 == 1)
    exact, fast = (decided(document, path) for path in (paths.REFERENCE, paths.TIERS))
    size = max(1.0, exact["welfare"])
    assert fast["welfare"] <= exact["welfare"] + 1e-6 * size
    assert fast["bound"] >= exact["welfare"] - 1e-6 * size
    assert fast["lp_bound"] == pytest.approx(exact["lp_bound"], rel=1e-6, abs=1e-6)
    assert [check for check in verify(document, fast) if not check.holds] == []


@pytest.mark.parametrize("seed", range(20))
def test_mixed_books_are_certified(seed):
    document = random_book(seed, gangs=None)
    fast = decided(document, paths.TIERS)
    assert [check for check in verify(document, fast) if not check.holds] == []


@pytest.mark.parametrize("seed", range(8))
def test_order_of_rows_never_matters(seed):
    document = random_book(seed, ties=seed % 2 == 1)
    shuffled = copy.deepcopy(document)
    for key in ("pools", "affinity", "transfer", "jobs"):
        random.Random(seed).shuffle(shuffled[key])
    one, other = (decided(book, paths.TIERS) for book in (document, shuffled))
    assert one == other


def test_the_book_decides_the_path():
    document = random_book(3, jobs=12)
    assert path_of(decided(document, paths.AUTOMATIC)) == "reference"
    assert path_of(decided(document, paths.TIERS)) == "tiers"


def test_what_no_tier_describes_goes_to_the_reference_path_by_itself():
    pools = [a_pool("A", gpus=4, reserve=0.5), a_pool("B", gpus=4, reserve=0.5)]
    jobs = [a_job("a", demand=3.0), a_job("b", demand=2.0)]
    floor = {"job": "b", "demand": 1.0}
    moves = a_job("c", demand=1.0, running_on="B.G", move_cost=0.5)
    for document in (a_book(*jobs, pools=pools, floors=[floor]), a_book(*jobs, moves, pools=pools)):
        assert path_of(decided(document, paths.TIERS)) == "reference"
    assert path_of(decided(a_book(*jobs, pools=pools), paths.TIERS)) == "tiers"


def test_an_empty_book_and_a_dead_market():
    for document in (random_book(0, jobs=0), random_book(1, value=1e-9)):
        clearing = decided(document, paths.TIERS)
        assert clearing["status"] == "empty"
        reserves = {row["id"]: row["reserve"] for row in document["pools"]}
        assert clearing["prices"] == pytest.approx(reserves, abs=1e-9)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_money_of_any_magnitude(size):
    document = random_book(7, money=size)
    exact, fast = (decided(document, path) for path in (paths.REFERENCE, paths.TIERS))
    assert fast["welfare"] == pytest.approx(exact["welfare"], rel=1e-6)
    for pool, price in exact["prices"].items():
        assert np.isclose(fast["prices"][pool], price, rtol=1e-6, atol=1e-6 * size)
