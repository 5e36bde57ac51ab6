"""What every fair policy keeps to on any book, and what each of them promises."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from economics import accounts
from economics.book import read_book
from economics.clearing.allocation import allocate
from economics.errors import NotCleared
from economics.market import Array
from economics.policies import NAMES, Question, policy_of, question_of, reference
from economics.policies.board import Board
from economics.policies.entitlements import entitlements
from economics.policies.finish_time import curve_of
from tests.economics.books import a_book, a_job, a_pool, books
from tests.economics.random_books import random_book

FAIR = ("max_min", "proportional", "finish_time", "makespan")
BY_CLAIM = ("max_min", "proportional", "finish_time")
ROUNDING = 1e-6


def asked(document) -> Question:
    return question_of(read_book(document))


def awarded(document, policy) -> tuple[Question, Array]:
    question = asked(document)
    return question, policy_of(policy)(question)


def delivered(document, policy) -> dict[str, float]:
    question, share = awarded(document, policy)
    return dict(zip(question.ids, accounts.delivered(question.market, share), strict=True))


def assert_feasible(question: Question, share: Array) -> None:
    market = question.market
    gang = market.gang[market.job]
    assert ((share >= 0) & (share <= 1 + 1e-9)).all()
    assert set(share[gang]) <= {0.0, 1.0}
    assert (np.bincount(market.job[gang], share[gang], market.jobs) <= 1).all()
    room = 1 + ROUNDING
    assert (accounts.used_hours(market, share) <= market.capacity * room).all()
    had = accounts.delivered(market, share)
    hours = np.bincount(market.job, market.gpu_hours * share, market.jobs)
    whole = market.gang
    assert (had[~whole] <= market.demand[~whole] * room).all()
    assert (hours[~whole] <= market.width[~whole] * room).all()
    assert (had >= market.floor * (1 - ROUNDING)).all()


@pytest.mark.parametrize("policy", FAIR)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=books(kinds=("divisible", "gang")))
def test_an_award_keeps_to_the_market(policy, document):
    assert_feasible(*awarded(document, policy))


@pytest.mark.parametrize("policy", FAIR)
@pytest.mark.parametrize("seed", range(8))
def test_nothing_somebody_could_use_is_left_idle(policy, seed):
    question, share = awarded(random_book(seed, gangs=None), policy)
    market = question.market
    left = market.capacity - accounts.used_hours(market, share)
    served = np.bincount(market.job, share, market.jobs) > 0
    waiting = market.gang[market.job] & ~served[market.job]
    assert not (waiting & (market.gpu_hours <= left[market.pool])).any()
    had = accounts.delivered(market, share)
    hours = np.bincount(market.job, market.gpu_hours * share, market.jobs)
    wants = (had < market.demand * (1 - 1e-4)) & (hours < market.width * (1 - 1e-4))
    open_ = ~market.gang[market.job] & wants[market.job]
    assert not (open_ & (left[market.pool] > 1e-4 * market.capacity[market.pool])).any()


@pytest.mark.parametrize("policy", FAIR)
def test_the_order_of_rows_changes_nothing(policy):
    document = random_book(5, gangs=None, ties=True)
    turned = copy.deepcopy(document)
    for key in ("pools", "affinity", "transfer", "jobs"):
        turned[key].reverse()
    assert (awarded(document, policy)[1] == awarded(turned, policy)[1]).all()


@pytest.mark.parametrize("policy", FAIR)
def test_books_with_nothing_to_share(policy):
    empty = a_book()
    dead = a_book(a_job(demand=3.0), pools=[a_pool(gpus=0)])
    dear = a_book(a_job(demand=3.0, value=0.5), pools=[a_pool(reserve=1.0)])
    for document in (empty, dead, dear):
        assert awarded(document, policy)[1].size == 0


@pytest.mark.parametrize("policy", FAIR)
def test_a_lone_job_has_all_it_can_use(policy):
    assert delivered(a_book(a_job(demand=3.0)), policy) == {"j": pytest.approx(3.0)}
    assert delivered(a_book(a_job(gang=3)), policy) == {"j": pytest.approx(3.0)}
    assert delivered(a_book(a_job(gang=[1, 2, 4])), policy) == {"j": pytest.approx(4.0)}


@pytest.mark.parametrize("policy", FAIR)
def test_bids_decide_nothing_beyond_who_may_run(policy):
    jobs = [a_job("a", demand=40.0, value=2.0), a_job("b", demand=40.0, value=9.0)]
    had = delivered(a_book(*jobs), policy)
    assert had["a"] == pytest.approx(had["b"], rel=1e-3)


@pytest.mark.parametrize("policy", FAIR)
def test_floors_are_kept_and_floors_that_do_not_fit_are_an_error(policy):
    jobs = [a_job("a", demand=8.0), a_job("b", demand=8.0)]
    book = a_book(*jobs, floors=[{"job": "a", "demand": 3.0}])
    assert delivered(book, policy)["a"] == pytest.approx(3.0, rel=1e-3)
    floors = [{"job": "a", "demand": 3.0}, {"job": "b", "demand": 2.0}]
    with pytest.raises(NotCleared, match="infeasible"):
        delivered(a_book(*jobs, floors=floors), policy)


@pytest.mark.parametrize("policy", FAIR)
def test_on_equal_terms_a_divisible_job_stays_where_it_runs(policy):
    pools = [a_pool("A"), a_pool("B")]
    for place in ("A.G", "B.G"):
        job = a_job("a", max_gpus=4, running_on=place, move_cost=1.0)
        question, share = awarded(a_book(job, pools=pools), policy)
        assert question.market.stays[share > 0].all()


@pytest.mark.parametrize("policy", FAIR)
def test_on_equal_terms_gangs_stay_where_they_run(policy):
    pools = [a_pool("A"), a_pool("B")]
    jobs = [
        a_job("a", gang=4, running_on="B.G", move_cost=0.5),
        a_job("b", gang=4, running_on="A.G", move_cost=0.5),
    ]
    question, share = awarded(a_book(*jobs, pools=pools), policy)
    assert question.market.stays[share > 0].tolist() == [True, True]


@pytest.mark.parametrize("policy", BY_CLAIM)
def test_twice_the_weight_has_twice_as_much(policy):
    jobs = [a_job("a", demand=40.0, weight=2.0), a_job("b", demand=40.0, weight=1.0)]
    had = delivered(a_book(*jobs, pools=[a_pool(gpus=6)]), policy)
    assert had["a"] == pytest.approx(4.0, rel=1e-3)
    assert had["b"] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("policy", BY_CLAIM)
def test_members_tenants_and_jobs_share_in_turn(policy):
    """Half for each member; a quarter for each tenant of A; by weight for the jobs of x."""
    jobs = [
        a_job("a1", "A", tenant="x", weight=3.0, demand=90.0),
        a_job("a2", "A", tenant="x", weight=1.0, demand=90.0),
        a_job("a3", "A", tenant="y", demand=90.0),
        a_job("b1", "B", demand=90.0),
    ]
    had = delivered(a_book(*jobs, pools=[a_pool("A", gpus=16)]), policy)
    assert [had[name] for name in ("a1", "a2", "a3", "b1")] == pytest.approx(
        [3.0, 1.0, 4.0, 8.0], rel=1e-3
    )


@pytest.mark.parametrize("seed", range(12))
def test_nobody_has_less_than_its_own_share_would_give_it(seed):
    """... under max-min, up to what the job can use, when nothing is promised to others."""
    question, share = awarded(random_book(seed, gangs=False), "max_min")
    market = question.market
    had, own = accounts.delivered(market, share), entitlements(question)
    usable = np.minimum(np.minimum(own.output, market.demand), own.quickest)
    without = market.floor == 0
    if without.all():
        assert (had >= usable * (1 - 1e-6)).all()


@pytest.mark.parametrize("seed", range(12))
def test_the_delivery_of_divisible_books_is_that_of_a_row_for_each_job(seed):
    document = random_book(seed, gangs=False, jobs=6)
    question, share = awarded(document, "max_min")
    market = question.market
    board = Board.of(market, np.ones(market.jobs, dtype=bool), market.capacity)
    pace = entitlements(question).output[board.jobs]
    expected = reference.lexicographic(board.fleet, board.crowd, pace)
    had = accounts.delivered(market, share)[board.jobs]
    assert had == pytest.approx(expected, rel=1e-4, abs=1e-6 * float(pace.max(initial=0.0)))


@pytest.mark.parametrize("seed", range(12))
def test_finish_times_are_those_of_the_cone_programme(seed):
    question = asked(random_book(seed, gangs=False, jobs=8))
    attained = np.random.default_rng(seed).random(question.market.jobs) * 3e4
    question = replace(question, attained=attained)
    share = policy_of("finish_time")(question)
    market = question.market
    board = Board.of(market, np.ones(market.jobs, dtype=bool), market.capacity)
    if not board.jobs.size or market.floor.any():
        return
    curve = curve_of(question)
    pace, lead = curve.pace[board.jobs], curve.lead[board.jobs]
    ratio, _ = reference.smallest_ratio(
        board.fleet, board.crowd, replace(curve, pace=pace, lead=lead)
    )
    had = accounts.delivered(market, share)[board.jobs]
    assert (lead + pace / had).max() == pytest.approx(ratio, rel=2e-6)


def test_finish_times_favour_the_job_that_had_less():
    jobs = [
        a_job("a", max_gpus=4, attained_gpu_s=20 * 3600.0),
        a_job("b", max_gpus=4, attained_gpu_s=0.0),
    ]
    had = delivered(a_book(*jobs), "finish_time")
    assert had["b"] > 1.5 * had["a"]


def test_a_makespan_finishes_all_work_together():
    jobs = [a_job("a", demand=30.0), a_job("b", demand=10.0)]
    had = delivered(a_book(*jobs), "makespan")
    assert had == {"a": pytest.approx(3.0), "b": pytest.approx(1.0)}


def test_a_makespan_uses_each_pool_for_what_it_is_quick_at():
    """Job a is quick on A only: 8 an hour against 1; b is 2 an hour on either."""
    pools = [a_pool("A", gpus=1), a_pool("B", gpus=1)]
    document = a_book(
        a_job("a", demand=8.0, **{"class": "quick"}), a_job("b", demand=2.0, **{"class": "even"})
    )
    document["pools"] = pools
    document["affinity"] = [
        {"pool": pool, "class": name, "samples_per_s": rate * 1e6 / 3600}
        for pool, name, rate in (
            *(("A.G", "quick", 8), ("B.G", "quick", 1)),
            *(("A.G", "even", 2), ("B.G", "even", 2)),
        )
    ]
    assert delivered(document, "makespan") == {"a": pytest.approx(8.0), "b": pytest.approx(2.0)}


def test_surplus_is_the_award_of_largest_welfare():
    for seed in range(6):
        question, share = awarded(random_book(seed, gangs=None), "surplus")
        best = allocate(question.market, nodes=question.nodes)
        assert accounts.welfare(question.market, share) == pytest.approx(best.welfare, rel=1e-6)


def test_the_registry_knows_every_policy_and_no_other():
    for name in NAMES:
        assert callable(policy_of(name))
    with pytest.raises(KeyError):
        policy_of("lottery")


def test_importing_the_registry_brings_in_no_solver():
    import subprocess
    import sys

    code = (
        "import sys, economics.policies;"
        "print(any(name.startswith(('highspy', 'cvxpy', 'scipy')) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
