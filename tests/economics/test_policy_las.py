"""2D-LAS: queues by attained GPU-seconds, served one after the other, each by maximum surplus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics import accounts
from economics.book import read_book
from economics.clearing.allocation import allocate, linear_of
from economics.clearing.paths import FEW_COLUMNS
from economics.clearing.program import program_of
from economics.clearing.solver import minimise
from economics.errors import BadBook
from economics.policies import policy_of, question_of
from economics.policies.las import THRESHOLDS
from economics.policies.queues import queue_of, until_drop, until_promotion
from tests.economics.awards import assert_feasible, awarded
from tests.economics.books import a_book, a_job, a_pool, books
from tests.economics.random_books import random_book

HOUR = 3600.0


def test_a_job_drops_a_queue_when_it_reaches_a_threshold():
    attained = np.array([0.0, 3249.0, 3250.0, 7199.9, 7200.0, 1e9])
    assert queue_of(attained, (7200.0, 3250.0)).tolist() == [1, 1, 2, 2, 3, 3]
    assert queue_of(np.array([0.1 * 3]), (0.3,)).tolist() == [2]  # 0.30000000000000004
    assert queue_of(np.array([0.7 + 0.1]), (0.8,)).tolist() == [2]  # 0.7999999999999999


def test_the_time_to_a_threshold_is_gpu_seconds_over_gpus():
    attained, gpus = np.array([0.0, 100.0, 250.0]), np.array([1.0, 4.0, 4.0])
    assert until_drop(attained, gpus, (200.0,)).tolist() == [200.0, 25.0, np.inf]


def test_a_job_below_the_first_queue_is_promoted_once_it_waited_as_long_as_it_ran():
    queue = np.array([1, 2, 2, 3, 2])
    waited = np.array([99.0, 10.0, 50.0, 10.0, 10.0])
    ran = np.array([1.0, 30.0, 30.0, 5.0, 0.0])
    assert until_promotion(queue, waited, ran, 1.0).tolist() == [np.inf, 20, 0, 0, np.inf]
    assert until_promotion(queue, waited, ran, 2.0).tolist() == [np.inf, 50, 10, 0, np.inf]
    assert np.isinf(until_promotion(queue, waited, ran, np.inf)).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 500), min_size=1), st.lists(st.integers(1, 300), min_size=1))
def test_a_queue_is_one_plus_the_thresholds_reached(attained, thresholds):
    counted = [1 + sum(limit <= service for limit in thresholds) for service in attained]
    assert queue_of(np.array(attained, dtype=float), thresholds).tolist() == counted


def test_the_first_queue_is_served_first_whatever_the_others_bid():
    jobs = [
        a_job("old", value=90.0, gang=3, attained_gpu_s=20 * HOUR),
        a_job("new", value=2.0, gang=3, attained_gpu_s=15 * HOUR),
    ]
    assert awarded(a_book(*jobs), "las") == {"new": {"A.G": 3.0}}
    assert awarded(a_book(*jobs), "las", thresholds=(30 * HOUR,)) == {"old": {"A.G": 3.0}}


def test_the_next_queue_gets_what_is_left():
    jobs = [
        a_job("old", value=90.0, demand=9.0, attained_gpu_s=HOUR),
        a_job("older", value=95.0, demand=9.0, attained_gpu_s=5 * HOUR),
        a_job("new", value=2.0, demand=3.0),
    ]
    given_to = awarded(a_book(*jobs), "las", thresholds=(HOUR, 3 * HOUR))
    assert given_to == {"new": {"A.G": 3.0}, "old": {"A.G": 1.0}}


def test_inside_a_queue_the_surplus_decides_and_then_the_service_attained_and_the_id():
    jobs = [
        a_job("a", value=4.0, gang=2, attained_gpu_s=900),
        a_job("b", value=4.0, gang=2, attained_gpu_s=400),
        a_job("c", value=4.0, gang=2, attained_gpu_s=400),
        a_job("d", value=5.0, gang=2, attained_gpu_s=1000),
    ]
    document = a_book(*jobs, pools=[a_pool(gpus=2)])
    assert set(awarded(document, "las")) == {"d"}
    document["jobs"] = jobs[:3]
    assert set(awarded(document, "las")) == {"b"}
    document["jobs"] = jobs[:2]
    assert set(awarded(document, "las")) == {"b"}


def test_divisible_ties_go_to_the_job_with_less_service_too():
    jobs = [a_job("a", demand=3.0, attained_gpu_s=9), a_job("b", demand=3.0, attained_gpu_s=5)]
    assert awarded(a_book(*jobs), "las") == {"a": {"A.G": 1.0}, "b": {"A.G": 3.0}}


def test_floors_come_before_the_first_queue_and_are_not_given_twice():
    jobs = [
        a_job("new", value=9.0, demand=9.0),
        a_job("old", value=2.0, demand=2.0, attained_gpu_s=99 * HOUR),
    ]
    document = a_book(*jobs, floors=[{"job": "old", "demand": 1.5}])
    given_to = awarded(document, "las")
    assert given_to["new"]["A.G"] == pytest.approx(2.5, abs=1e-5)
    assert given_to["old"]["A.G"] == pytest.approx(1.5, abs=1e-5)
    document["jobs"] = [{**jobs[0], "demand": 1.0}, jobs[1]]
    assert awarded(document, "las")["old"]["A.G"] == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(
    ("thresholds", "path"),
    [((), "thresholds"), (5.0, "thresholds"), ((1.0, 0.0), r"thresholds\[1\]")],
)
def test_thresholds_that_are_none_are_refused(thresholds, path):
    with pytest.raises(BadBook, match=rf"rules\.parameters\.{path}"):
        awarded(a_book(a_job()), "las", thresholds=thresholds)


def with_service(document, seed):
    """The same book with jobs that attained something."""
    draw = np.random.default_rng(seed)
    jobs = [{**job, "attained_gpu_s": float(draw.integers(0, 4)) * HOUR}
            for job in document["jobs"]]  # fmt: skip
    return {**document, "jobs": jobs}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(books(kinds=("divisible", "gang")), st.integers(0, 99))
def test_an_award_is_feasible(document, seed):
    awarded(with_service(document, seed), "las", thresholds=(HOUR, 2 * HOUR))


@pytest.mark.parametrize("seed", range(8))
def test_the_first_queue_gains_as_much_as_if_it_were_alone(seed):
    document = with_service(random_book(seed, gangs=None, jobs=20), seed)
    document["rules"] = {"policy": "las", "parameters": {"thresholds": (2 * HOUR,)}}
    book = read_book(document)
    question = question_of(book)
    gain = accounts.job_gain(book.market, policy_of("las")(question))
    first = [job for job in document["jobs"] if job["attained_gpu_s"] < 2 * HOUR]
    alone = read_book({**document, "jobs": first}).market
    best = accounts.welfare(alone, allocate(alone, nodes=book.rules.nodes).share)
    assert gain[question.attained < 2 * HOUR].sum() == pytest.approx(best, rel=1e-6, abs=1e-6)


def test_a_queue_too_large_for_the_reference_path_gains_as_much():
    document = large_book(jobs=1500)
    book = read_book(document)
    question = question_of(book)
    share = policy_of("las")(question)
    assert_feasible(book.market, share)
    first = question.attained < THRESHOLDS[0]
    alone = read_book(
        {**document, "jobs": [job for job, new in zip(document["jobs"], first, strict=True) if new]}
    ).market
    assert alone.columns > FEW_COLUMNS
    best = -minimise(linear_of(program_of(alone))).objective
    assert accounts.job_gain(book.market, share)[first].sum() == pytest.approx(best, rel=1e-6)


def large_book(jobs):
    """Divisible jobs of a few classes on ten pools, half of them past the first threshold."""
    draw = np.random.default_rng(5)
    pools = [a_pool(f"S{k % 3}", f"G{k}", int(draw.integers(20, 60))) for k in range(10)]
    rows = [
        {
            **a_job(f"j{k:05}", f"S{k % 3}", float(draw.integers(2, 90)), demand=0.5),
            "class": f"c{k % 4}",
            "attained_gpu_s": float(draw.integers(0, 2)) * 2 * THRESHOLDS[0],
        }
        for k in range(jobs)
    ]
    document = a_book(*rows, pools=pools, rules={"policy": "las"})
    document["affinity"] = [
        {"pool": pool["id"], "class": f"c{k}", "samples_per_s": int(draw.integers(1, 9)) * 300.0}
        for pool in pools
        for k in range(4)
    ]
    return document
