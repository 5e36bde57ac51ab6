"""Which pool, how many GPUs: cheapest by the deadline, fastest within the budget, and the front."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.affinity.planner import choosing
from federation.affinity.planner.choosing import choose
from federation.affinity.planner.errors import BadDescription, NoPlan
from federation.affinity.planner.model import ModelDescription, transformer_parameters
from federation.affinity.planner.planning import plans
from federation.affinity.planner.pool import BelievedSpeed, Device, Pool
from tests.federation.affinity.planner_brute_force import a_job, every_plan

A100 = Device(memory_gb=80, peak_tflops=312, intra_gbit_s=2400, inter_gbit_s=200)
T4 = Device(memory_gb=16, peak_tflops=65, intra_gbit_s=100, inter_gbit_s=25)
BERT = ModelDescription(340e6, 24, 1024, 16, 512, 30522, 256, samples=1e6)
DEAR, CHEAP = Pool("dear", A100, 16, 8, 3.0), Pool("cheap", T4, 4, 4, 0.2)
POOLS = [DEAR, CHEAP]


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_that_of_brute_force(seed):
    model = a_job(seed)[0]
    pools = [replace(a_job(seed * 7 + at)[1], id=f"pool-{at}", gpus=12) for at in range(3)]
    every = [
        (math.ceil(model.samples / model.global_batch) * row[0], pool.price * gpus, pool.id, gpus)
        for pool in pools
        for gpus in pool.sizes()
        for row in every_plan(model, pool, gpus)
    ]
    runs = [(took, took / 3600 * hourly) for took, hourly, *_ in every]
    if not runs:
        with pytest.raises(NoPlan):
            choose(model, pools)
        return
    deadline = sorted(runs)[len(runs) // 3][0] * (1 + 1e-9)
    budget = sorted(cost for _, cost in runs)[len(runs) // 3] * (1 + 1e-9)
    found = choose(model, pools, deadline_s=deadline, budget=budget)
    cheapest = min(cost for took, cost in runs if took <= deadline)
    fastest = min(took for took, cost in runs if cost <= budget)
    assert found.cheapest.credits == pytest.approx(cheapest, rel=1e-9)
    assert found.fastest.seconds == pytest.approx(fastest, rel=1e-9)
    for one in found.front:
        slack = 1 - 1e-9
        assert not any(t < one.seconds * slack and c < one.credits * slack for t, c in runs)
    assert found.front[0].seconds == pytest.approx(min(runs)[0], rel=1e-9)
    assert found.front[-1].credits == pytest.approx(min(cost for _, cost in runs), rel=1e-9)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_the_front_is_what_nothing_beats(seed):
    model = a_job(seed)[0]
    pools = [replace(a_job(seed + at)[1], id=f"pool-{at}") for at in range(3)]
    try:
        found = choose(model, pools)
    except NoPlan:
        return
    for quicker, cheaper in pairwise(found.front):
        assert quicker.seconds < cheaper.seconds
        assert quicker.credits > cheaper.credits
    for one in found.priced:
        assert any(f.seconds <= one.seconds and f.credits <= one.credits for f in found.front)
    random.Random(seed).shuffle(pools)
    assert choose(model, pools) == found
    assert {row.pool for row in found.refused} | {one.pool for one in found.priced} == {
        pool.id for pool in pools
    }


def test_a_later_deadline_is_never_dearer_and_a_larger_budget_never_slower():
    choices = [
        choose(BERT, POOLS, deadline_s=10.0**at, budget=0.05 * 2.0**at) for at in range(1, 9)
    ]
    cheapest = [choice.cheapest.credits for choice in choices if choice.cheapest]
    fastest = [choice.fastest.seconds for choice in choices if choice.fastest]
    assert cheapest == sorted(cheapest, reverse=True)
    assert fastest == sorted(fastest, reverse=True)
    assert len(set(cheapest)) > 1
    assert len(set(fastest)) > 1


def test_a_wish_just_missed_is_missed():
    for one in choose(BERT, POOLS).priced:
        deadline, budget = one.seconds * 0.999, one.credits * 0.999
        found = choose(BERT, POOLS, deadline_s=deadline, budget=budget)
        assert found.cheapest is None or found.cheapest.seconds <= deadline
        assert found.fastest is None or found.fastest.credits <= budget
        met = choose(BERT, POOLS, deadline_s=one.seconds, budget=one.credits)
        assert met.cheapest.credits <= one.credits
        assert met.fastest.seconds <= one.seconds


def test_wishes_that_nothing_fulfils_are_answered_with_what_comes_nearest():
    found = choose(BERT, POOLS, deadline_s=1.0, budget=0.001)
    assert found.cheapest is None
    assert found.fastest is None
    assert [line.partition(":")[0] for line in found.why] == [
        "nothing ends within 1 s",
        "nothing costs at most 0.001 credits",
    ]
    assert "16 GPUs of dear" in found.why[0]
    assert found.front


def test_a_pool_too_small_is_named_and_the_others_are_planned():
    large = replace(BERT, params=5e9)
    found = choose(large, POOLS)
    assert [row.pool for row in found.refused] == ["cheap"]
    assert "the tightest part is" in found.refused[0].why
    assert {one.pool for one in found.priced} == {"dear"}
    with pytest.raises(NoPlan, match=r"on cheap .*tightest part"):
        choose(large, [CHEAP])


def test_counts_weighed_apart_are_weighed_alike(monkeypatch):
    together = choose(BERT, POOLS)
    monkeypatch.setattr(choosing, "AT_ONCE", 1)
    assert choose(BERT, POOLS) == together
    with pytest.raises(NoPlan, match="on 4 GPUs"):
        choose(replace(BERT, params=5e9), [CHEAP])


def test_belief_decides_between_pools():
    """The same GPUs and prices; one of the two is believed to be slower than the formula says."""
    twin = replace(DEAR, id="twin")
    speed = choose(BERT, [DEAR]).priced[0].plan.samples_per_s
    slow = replace(DEAR, id="a slow one", believed=BelievedSpeed(speed / 2, 1))
    assert choose(BERT, [slow, twin]).cheapest.pool == "twin"
    quick = replace(slow, believed=BelievedSpeed(speed * 2, 1))
    assert choose(BERT, [quick, twin]).fastest.pool == "a slow one"


def test_sizes_are_all_small_counts_whole_nodes_and_the_pool():
    assert Pool("A", A100, 30, 8).sizes() == tuple(range(1, 31))
    assert Pool("A", A100, 3, 8).sizes() == (1, 2, 3)
    assert Pool("A", A100, 160, 8).sizes() == (*range(1, 129), 136, 144, 152, 160)
    many = Pool("A", A100, 10**6, 8).sizes()
    assert many[-1] == 10**6
    assert len(many) < 400
    assert set(range(8, 32 * 8, 8)) <= set(many)


def test_an_odd_count_is_found_where_it_is_cheapest():
    params = transformer_parameters(12, 4096, 50304, 2048)
    model = ModelDescription(params, 12, 4096, 32, 2048, 50304, 60, 1e5)
    pool = Pool("A", Device(16, 312, 100, 400), 24, 6, 1.0)
    every = {
        gpus: gpus * found[0].step_s
        for gpus in range(1, 25)
        if (found := plans(model, pool, gpus).plans)
    }
    least = min(every.values())
    assert choose(model, [pool]).cheapest.credits == pytest.approx(
        math.ceil(1e5 / 60) * least / 3600
    )
    assert min(every[gpus] for gpus in (12, 18, 24)) > 1.2 * least  # whole nodes alone miss it


@pytest.mark.parametrize(
    ("wishes", "line"),
    [
        ({"deadline_s": 0}, "deadline_s: must be above 0"),
        ({"deadline_s": math.nan}, "deadline_s: must be finite"),
        ({"budget": -1.0}, "budget: must be at least 0"),
        ({"budget": math.inf}, "budget: must be finite"),
    ],
)
def test_wishes_that_are_no_numbers_are_refused(wishes, line):
    with pytest.raises(BadDescription, match=line):
        choose(BERT, POOLS, **wishes)


def test_a_run_without_a_length_and_pools_without_names_are_refused():
    with pytest.raises(BadDescription, match="samples: missing"):
        choose(replace(BERT, samples=None), POOLS)
    with pytest.raises(BadDescription, match="none is on offer"):
        choose(BERT, [])
    with pytest.raises(BadDescription, match="'dear' stands twice"):
        choose(BERT, [DEAR, DEAR])
    with pytest.raises(BadDescription, match="samples: must be"):
        replace(BERT, samples=-1.0)
