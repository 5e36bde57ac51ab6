"""2D-Gittins: the index against its definition and known distributions, and who it serves first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics.errors import BadBook
from economics.policies.gittins_index import Experience
from tests.economics.awards import awarded
from tests.economics.books import a_book, a_job, a_pool, books

HOUR = 3600.0


def by_definition(samples, quantum, attained):
    """P(S - a <= D | S > a) / E[min(S - a, D) | S > a], counted sample by sample."""
    left = [sample - attained for sample in samples if sample > attained]
    if not left:
        return 0.0
    chance = sum(more <= quantum for more in left) / len(left)
    return chance / (sum(min(more, quantum) for more in left) / len(left))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
    st.integers(1, 40),
    st.lists(st.integers(0, 70), min_size=1, max_size=10),
)
def test_the_index_is_its_definition(samples, quantum, attained):
    index = Experience.of(samples, quantum).index(np.array(attained, dtype=float))
    expected = [by_definition(samples, quantum, service) for service in attained]
    np.testing.assert_allclose(index, expected, rtol=1e-9)


def test_without_memory_the_index_is_constant():
    samples = np.random.default_rng(0).exponential(100.0, 20_000)
    attained = np.linspace(0.0, np.quantile(samples, 0.9), 50)
    index = Experience.of(samples, 100.0).index(attained)
    assert np.abs(index / index[0] - 1).max() <= 0.10
    assert index[0] == pytest.approx(1 / 100.0, rel=0.05)  # the rate


def test_a_job_that_outlived_the_short_ones_is_hopeless_for_a_while():
    experience = Experience.of([1.0] * 9 + [100.0], 2.0)
    index = experience.index(np.array([0.0, 1.5, 98.5]))
    assert index[0] == pytest.approx(0.9 / (0.9 * 1 + 0.1 * 2))
    assert index[1] == 0.0
    assert index[2] == pytest.approx(1 / 1.5)


def test_the_service_still_to_come_counts_and_not_the_whole():
    # One sample of 10: at 9 a job has 1 to go, so it finishes at a rate of 1.
    assert Experience.of([10.0], 5.0).index(np.array([9.0])).tolist() == [1.0]


def test_nothing_is_known_past_the_largest_sample():
    experience = Experience.of([10.0, 20.0], 15.0)
    assert experience.index(np.array([20.0, 21.0])).tolist() == [0.0, 0.0]
    assert experience.priority(np.array([20.0, 29.0, 300.0])).tolist() == [0.0, 0.0, 0.0]


def test_the_priority_changes_at_whole_quanta_and_at_the_largest_sample():
    experience = Experience.of([4.0, 12.0, 25.0], 10.0)
    assert experience.until_change(np.array([0.0, 7.0, 10.0, 20.0])).tolist() == [10, 3, 10, 5]
    assert experience.until_change(np.array([25.0])).tolist() == [np.inf]
    at = experience.priority(np.array([10.0, 13.0, 19.0]))
    assert (at == experience.index(np.array([10.0]))).all()


@pytest.mark.parametrize(
    ("samples", "quantum"), [([], 1.0), ([0.0], 1.0), ([np.inf], 1.0), ([1.0], 0.0), ([1.0], -1.0)]
)
def test_what_cannot_be_learned_from_is_refused(samples, quantum):
    with pytest.raises(ValueError, match=r"positive|no total"):
        Experience.of(samples, quantum)


# On a book: half of the past jobs took an hour on one GPU, half a hundred hours.

PAST = (HOUR, HOUR, 100 * HOUR, 100 * HOUR)


def test_the_job_likely_to_finish_goes_first_whatever_the_others_bid():
    jobs = [
        a_job("hopeless", value=90.0, gang=3, attained_gpu_s=2 * HOUR),
        a_job("new", value=2.0, gang=3),
        a_job("nearly", value=2.0, gang=3, attained_gpu_s=99 * HOUR),
    ]
    by_turns = []
    while jobs:
        given_to = awarded(a_book(*jobs), "gittins", quantum=HOUR, samples=PAST)
        by_turns += list(given_to)
        jobs = [job for job in jobs if job["id"] not in given_to]
    assert by_turns == ["nearly", "new", "hopeless"]


def test_jobs_of_one_index_are_served_together_by_surplus():
    jobs = [
        a_job("a", value=4.0, gang=2, attained_gpu_s=1800),
        a_job("b", value=5.0, gang=2, attained_gpu_s=3000),
        a_job("c", value=4.0, gang=2, attained_gpu_s=600),
    ]
    document = a_book(*jobs)
    assert set(awarded(document, "gittins", quantum=HOUR, samples=PAST)) == {"b", "c"}
    narrow = a_book(*jobs, pools=[a_pool(gpus=2)])
    assert set(awarded(narrow, "gittins", quantum=HOUR, samples=PAST)) == {"b"}


def test_a_job_that_outlived_all_comes_last_and_still_gets_what_is_left():
    jobs = [a_job("old", value=90.0, gang=3, attained_gpu_s=101 * HOUR), a_job("new", gang=1)]
    both = {"old": {"A.G": 3.0}, "new": {"A.G": 1.0}}
    assert awarded(a_book(*jobs), "gittins", samples=PAST) == both
    jobs[1]["gang"] = 2
    assert awarded(a_book(*jobs), "gittins", samples=PAST) == {"new": {"A.G": 2.0}}


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({}, "samples: is missing"),
        ({"samples": ()}, "samples"),
        ({"samples": (3.0, 0.0)}, r"samples\[1\]"),
        ({"samples": PAST, "quantum": 0.0}, "quantum"),
    ],
)
def test_parameters_that_say_nothing_are_refused(parameters, path):
    with pytest.raises(BadBook, match=rf"rules\.parameters\.{path}"):
        awarded(a_book(a_job()), "gittins", **parameters)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(books(kinds=("divisible", "gang")), st.integers(0, 99))
def test_an_award_is_feasible(document, seed):
    draw = np.random.default_rng(seed)
    jobs = [{**job, "attained_gpu_s": float(draw.integers(0, 120)) * HOUR}
            for job in document["jobs"]]  # fmt: skip
    awarded({**document, "jobs": jobs}, "gittins", quantum=HOUR, samples=PAST)
