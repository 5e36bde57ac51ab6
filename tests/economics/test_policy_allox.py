"""AlloX: the matching is the best order on every machine, and what of it a round awards."""

import numpy as np
import pytest
from hypothesis import given, settings

from economics.errors import BadBook
from economics.policies.fairness import ever_more
from economics.policies.matching import NOWHERE, Work, match, match_by_lp, starts
from tests.economics.awards import awarded
from tests.economics.books import PER_HOUR, a_book, a_job, a_pool, books
from tests.economics.random_books import random_book


def best_of_all_orders(work):
    """Least sum of completion times over every split of the jobs and every order on a machine."""
    jobs, machines = work.time.shape
    everybody = 2**jobs - 1
    least = [0.0] + [np.inf] * everybody  # over the machines so far, by set of jobs
    for machine in range(machines):
        alone = _best_order(work, machine)
        least = [
            min(least[some ^ part] + alone[part] for part in _parts(some))
            for some in range(everybody + 1)
        ]
    return least[everybody]


def _best_order(work, machine):
    """Least sum of completion times since release on one machine, by set of jobs."""
    jobs, frees = work.time.shape[0], work.available[machine]
    toll = np.zeros(jobs) if work.toll is None else work.toll[:, machine]
    best = [0.0] + [np.inf] * (2**jobs - 1)
    for some in range(1, 2**jobs):
        members = [job for job in range(jobs) if some >> job & 1]
        took = sum(work.time[job, machine] for job in members)
        best[some] = min(
            best[some ^ 1 << job] + took + toll[job] + max(frees - work.release[job], 0.0)
            for job in members
        )
    return best


def _parts(some):
    part = some
    while True:
        yield part
        if not part:
            return
        part = (part - 1) & some


def drawn(seed, most_jobs=7, most_machines=3):
    draw = np.random.default_rng(seed)
    jobs, machines = draw.integers(1, most_jobs + 1), draw.integers(1, most_machines + 1)
    time = draw.integers(1, 40, (jobs, machines)).astype(float)
    if seed % 3 == 0:  # some jobs cannot run everywhere
        time[draw.random(time.shape) < 0.2] = np.inf
        time[np.isinf(time).all(axis=1), 0] = 5.0
    available = draw.integers(0, 50, machines).astype(float)
    release = np.zeros(jobs) if seed % 2 else -draw.integers(0, 30, jobs).astype(float)
    toll = draw.integers(0, 9, time.shape).astype(float) if seed % 5 == 0 else None
    return Work(time, available, release, toll)


@pytest.mark.parametrize("batch", range(4))
def test_the_programme_is_whole_and_no_order_is_better(batch):
    for seed in range(50 * batch, 50 * batch + 50):
        work = drawn(seed)
        best = best_of_all_orders(work)
        by_lp, x = match_by_lp(work)
        assert by_lp.total == pytest.approx(best, abs=1e-6)
        assert np.minimum(np.abs(x), np.abs(x - 1)).max() <= 1e-6
        assert match(work).total == pytest.approx(best, abs=1e-6)


def completion(work, found):
    """Sum of completion times since release, and of tolls, from the order alone."""
    jobs = np.arange(work.release.size)
    toll = 0.0 if work.toll is None else work.toll[jobs, found.machine]
    took = work.time[jobs, found.machine]
    return float((starts(work, found) + took - work.release + toll).sum())


def test_leaving_out_places_of_machines_that_are_alike_loses_nothing():
    for seed in range(60):
        draw = np.random.default_rng(seed)
        jobs, kinds = draw.integers(1, 13), draw.integers(1, 4)
        kind = np.repeat(np.arange(kinds), draw.integers(1, 5, kinds))
        time = draw.integers(1, 30, (jobs, kinds))[:, kind].astype(float)
        work = Work(time, draw.integers(0, 45, kind.size).astype(float), np.zeros(jobs))
        found, (by_lp, _) = match(work), match_by_lp(work)
        assert found.total == pytest.approx(by_lp.total, abs=1e-6)
        assert completion(work, found) == pytest.approx(found.total, abs=1e-6)


def test_a_hundred_jobs_and_forty_machines_are_matched_as_by_all_places():
    draw = np.random.default_rng(11)
    time = draw.integers(1, 200, (100, 4))[:, np.arange(40) % 4].astype(float)
    work = Work(time, np.zeros(40), np.zeros(100))
    apart = Work(time, np.zeros(40), np.zeros(100), kind=np.arange(40))  # nothing is left out
    assert match(work).total == pytest.approx(match(apart).total, rel=1e-9)
    assert completion(work, match(work)) == pytest.approx(match(work).total)


def test_a_job_that_can_run_nowhere_has_no_place():
    work = Work(np.array([[np.inf], [2.0]]), np.zeros(1), np.zeros(2))
    for found in (match(work), match_by_lp(work)[0]):
        assert found.machine.tolist() == [NOWHERE, 0]
        assert found.total == 2.0
    nothing = Work(np.full((1, 1), np.inf), np.zeros(1), np.zeros(1))
    assert match_by_lp(nothing)[0].machine.tolist() == match(nothing).machine.tolist() == [NOWHERE]


def test_of_equal_jobs_the_first_by_number_starts_first():
    work = Work(np.full((5, 2), 3.0), np.zeros(2), np.zeros(5))
    assert starts(work, match(work)).tolist() == [0, 0, 3, 3, 6]


def test_ever_more_users_compete_and_the_least_served_come_first():
    score, had = np.array([0.5, 0.0, 0.0, 0.2, 0.0]), np.array([0.0, 9.0, 2.0, 0.0, 1.0])
    users = np.array([0, 1, 2, 3])
    tries = [chosen.tolist() for chosen in ever_more(score, had, users, 0.25)]
    assert tries == [[2], [2, 1], [2, 1, 3, 0]]
    assert [chosen.tolist() for chosen in ever_more(score, had, users, 1.0)] == [[2, 1, 3, 0]]
    with pytest.raises(ValueError, match="alpha"):
        next(ever_more(score, had, users, 0.0))


# On a book


def two_speeds(*jobs, fast=10.0, slow=1.0):
    """A fast and a slow GPU, Msamples an hour."""
    pools = [a_pool("A", "F", 1, 0.1), a_pool("B", "S", 1, 0.1)]
    document = a_book(*jobs, pools=pools)
    for row, speed in zip(document["affinity"], (fast, slow), strict=True):
        row["samples_per_s"] = speed * PER_HOUR
    return document


def test_a_job_waits_for_the_pool_where_it_is_fast():
    jobs = [a_job(name, gang=1, demand=20.0) for name in ("j0", "j1")]
    # Two hours each on F; twenty on S: the second is better off waiting for F.
    assert awarded(two_speeds(*jobs), "allox") == {"j0": {"A.F": 1.0}}
    # On an S half as fast, four hours, it starts there at once.
    assert awarded(two_speeds(*jobs, slow=6.0), "allox") == {
        "j0": {"A.F": 1.0},
        "j1": {"B.S": 1.0},
    }


def test_the_shorter_job_goes_first_whatever_it_bids():
    jobs = [a_job("rich", value=90.0, gang=1, demand=30.0), a_job("short", gang=1, demand=20.0)]
    assert awarded(two_speeds(*jobs), "allox") == {"short": {"A.F": 1.0}}


def test_whoever_gains_most_by_the_fast_pool_gets_it():
    pools = [a_pool("A", "F", 1, 0.1), a_pool("B", "S", 1, 0.1)]
    document = a_book(
        a_job("a", gang=1, demand=8.0), {**a_job("b", gang=1, demand=8.0), "class": "deep"},
        pools=pools,
    )  # fmt: skip
    speeds = {("A.F", "unit"): 8, ("B.S", "unit"): 6, ("A.F", "deep"): 4, ("B.S", "deep"): 1}
    document["affinity"] = [
        {"pool": pool, "class": name, "samples_per_s": speed * PER_HOUR}
        for (pool, name), speed in speeds.items()
    ]
    assert awarded(document, "allox") == {"a": {"B.S": 1.0}, "b": {"A.F": 1.0}}


def test_a_running_job_is_not_put_back():
    jobs = [
        a_job("long", gang=1, demand=90.0, running_on="A.F"),
        a_job("short", gang=1, demand=10.0),
    ]
    given_to = awarded(two_speeds(*jobs), "allox")
    assert given_to["long"] == {"A.F": 1.0}


def test_gangs_of_different_sizes_share_a_pool():
    jobs = [a_job("wide", gang=4, demand=4.0), *(a_job(f"n{k}", gang=1) for k in range(4))]
    given_to = awarded(a_book(*jobs, pools=[a_pool(gpus=8)]), "allox")
    assert sum(sum(pools.values()) for pools in given_to.values()) == 8.0
    assert "wide" in given_to


def test_an_elastic_job_takes_the_widest_size_that_fits():
    jobs = [a_job("whole", gang=5, running_on="A.G"), a_job("elastic", gang=[1, 2, 4, 8])]
    given_to = awarded(a_book(*jobs, pools=[a_pool(gpus=8)]), "allox")
    assert given_to == {"whole": {"A.G": 5.0}, "elastic": {"A.G": 2.0}}


def test_divisible_jobs_follow_each_other_within_the_round():
    jobs = [a_job("long", demand=9.0), a_job("short", demand=1.0), a_job("mid", demand=2.0)]
    given_to = awarded(a_book(*jobs), "allox")
    assert given_to == {"short": {"A.G": 1.0}, "mid": {"A.G": 2.0}, "long": {"A.G": 1.0}}


def test_a_divisible_job_does_not_move_for_less_than_moving_costs():
    job = a_job("mover", value=2.0, demand=1.0, running_on="B.G", pools=["A.G"], move_cost=0.9)
    pools = [a_pool("A"), a_pool("B")]
    assert awarded(a_book(job, pools=pools), "allox") == {"mover": {"A.G": 1.0}}
    job["move_cost"] = 1.1
    assert awarded(a_book(job, pools=pools), "allox") == {}


def test_floors_come_first():
    jobs = [a_job("short", demand=1.0), a_job("long", demand=9.0)]
    document = a_book(*jobs, floors=[{"job": "long", "demand": 3.5}])
    given_to = awarded(document, "allox")
    assert given_to["long"]["A.G"] == pytest.approx(3.5, abs=1e-5)
    assert given_to["short"]["A.G"] == pytest.approx(0.5, abs=1e-5)


def test_a_small_alpha_serves_the_tenant_that_has_least():
    jobs = [
        *(a_job(f"a{k}", gang=1, demand=2.0, tenant="big") for k in range(4)),
        a_job("b", gang=1, demand=50.0, tenant="small"),
    ]
    document = a_book(*jobs, pools=[a_pool(gpus=2)])
    assert set(awarded(document, "allox")) == {"a0", "a1"}
    assert set(awarded(document, "allox", alpha=0.1)) == {"a0", "b"}


def test_service_attained_decides_between_tenants_that_have_nothing():
    jobs = [
        a_job("a", gang=1, demand=2.0, tenant="served", attained_gpu_s=7200),
        a_job("b", gang=1, demand=50.0, tenant="waiting"),
    ]
    document = a_book(*jobs, pools=[a_pool(gpus=1)])
    assert set(awarded(document, "allox", alpha=0.1)) == {"b"}
    assert set(awarded(document, "allox")) == {"a"}


@pytest.mark.parametrize("alpha", [0.0, 1.5, (0.5,)])
def test_an_alpha_that_is_no_share_is_refused(alpha):
    with pytest.raises(BadBook, match=r"rules\.parameters\.alpha"):
        awarded(a_book(a_job()), "allox", alpha=alpha)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(books(kinds=("divisible", "gang")))
def test_an_award_is_feasible(document):
    for alpha in (1.0, 0.2):
        awarded(document, "allox", alpha=alpha)


@pytest.mark.parametrize("seed", range(6))
def test_an_award_of_a_larger_book_is_feasible(seed):
    document = random_book(seed, gangs=None, jobs=150)
    for alpha in (1.0, 0.1):
        assert awarded(document, "allox", alpha=alpha) == awarded(document, "allox", alpha=alpha)


def test_the_order_of_rows_changes_nothing():
    document = random_book(3, ties=True, gangs=None, jobs=40)
    backwards = {key: value[::-1] if isinstance(value, list) else value
                 for key, value in document.items()}  # fmt: skip
    assert awarded(document, "allox", alpha=0.3) == awarded(backwards, "allox", alpha=0.3)


def test_all_parts_of_a_set_are_tried():
    assert sorted(_parts(0b101)) == [0b000, 0b001, 0b100, 0b101]
    assert len(list(_parts(0b111))) == 8
