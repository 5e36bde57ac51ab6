"""Every policy a venue can choose decides whole rounds: certified, feasible, whatever the order."""

import copy

import pytest

from economics.book import read_book
from economics.certificate import verify
from economics.rounds import decide
from economics.rows import POLICIES
from tests.economics.books import a_book, a_job, a_pool, example
from tests.economics.random_books import random_book

OTHERS = tuple(name for name in POLICIES if name != "surplus")
PARAMETERS = {"gittins": {"samples": [1e3, 1e4, 1e5], "quantum": 1e3}, "allox": {"alpha": 0.5}}


def ruled(document, policy):
    rules = {**document.get("rules", {}), "policy": policy}
    if policy in PARAMETERS:
        rules["parameters"] = PARAMETERS[policy]
    return {**document, "rules": rules}


def cleared(document):
    clearing = decide(read_book(document))
    assert [check for check in verify(document, clearing) if not check.holds] == []
    return clearing


@pytest.mark.parametrize("policy", OTHERS)
@pytest.mark.parametrize("gangs", [False, True, None])
def test_rounds_of_every_policy_are_certified(policy, gangs):
    for seed in range(6):
        document = ruled(random_book(seed, gangs=gangs, ties=seed % 2 == 1), policy)
        clearing = cleared(document)
        assert clearing["bound"] >= clearing["welfare"] - 1e-6
        assert set(clearing["transfers_micro"].values()) <= {0}


@pytest.mark.parametrize("policy", OTHERS)
def test_no_policy_is_worth_more_than_the_largest_surplus(policy):
    for name in ("book_three_sites", "book_gangs"):
        best = cleared(example(name))["welfare"]
        assert cleared(ruled(example(name), policy))["welfare"] <= best + 1e-6 * best


@pytest.mark.parametrize("policy", OTHERS)
def test_order_of_rows_never_matters(policy):
    document = ruled(random_book(5, gangs=None, ties=True), policy)
    turned = copy.deepcopy(document)
    for key in ("pools", "affinity", "transfer", "jobs"):
        turned[key].reverse()
    assert cleared(document) == cleared(turned)


@pytest.mark.parametrize("policy", OTHERS)
def test_empty_books_and_dead_pools(policy):
    for book in (a_book(), a_book(a_job(demand=3.0), pools=[a_pool(gpus=0)])):
        assert cleared(ruled(book, policy))["status"] == "empty"


@pytest.mark.parametrize("policy", ["max_min", "proportional", "finish_time"])
def test_equal_jobs_of_two_tenants_share_alike(policy):
    """One tenant with three jobs has no more than one with a single job."""
    jobs = [a_job(f"a{at}", demand=40.0, tenant="many") for at in range(3)]
    jobs.append(a_job("b", demand=40.0, tenant="one"))
    clearing = cleared(ruled(a_book(*jobs, pools=[a_pool(gpus=6)]), policy))
    had = {row["job"]: row["msamples"] for row in clearing["allocation"]}
    assert had["b"] == pytest.approx(3.0, rel=1e-4)
    assert sum(had.values()) == pytest.approx(6.0, rel=1e-6)


@pytest.mark.parametrize("policy", ["max_min", "proportional"])
def test_twice_the_weight_has_twice_the_share(policy):
    jobs = [a_job("a", demand=40.0, weight=2.0), a_job("b", demand=40.0, weight=1.0)]
    clearing = cleared(ruled(a_book(*jobs, pools=[a_pool(gpus=6)]), policy))
    had = {row["job"]: row["msamples"] for row in clearing["allocation"]}
    assert had["a"] == pytest.approx(2 * had["b"], rel=1e-4)


def test_the_makespan_serves_in_proportion_to_the_work():
    jobs = [a_job("long", demand=9.0), a_job("short", demand=3.0)]
    clearing = cleared(ruled(a_book(*jobs, pools=[a_pool(gpus=4)]), "makespan"))
    had = {row["job"]: row["msamples"] for row in clearing["allocation"]}
    assert had["long"] == pytest.approx(3 * had["short"], rel=1e-6)
