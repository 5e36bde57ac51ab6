"""Plans: the same as by brute force, within the memory, ranked, and no family without a reason."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.planning import plans
from federation.affinity.planner.pool import BelievedSpeed, Device, Pool
from tests.federation.affinity.planner_brute_force import a_job, every_plan

A100 = Device(memory_gb=80, peak_tflops=312, intra_gbit_s=2400, inter_gbit_s=200)
BERT = ModelDescription(340e6, 24, 1024, 16, 512, 30522, 256)
POOL = Pool("A", A100, 64, 8, 1.5)


@pytest.mark.parametrize("seed", range(50))
def test_the_plans_are_those_of_brute_force(seed):
    model, pool, gpus = a_job(seed)
    found = plans(model, pool, gpus)
    expected = every_plan(model, pool, gpus)
    assert {shape(plan) for plan in found.plans} == {row[1:7] for row in expected}
    assert len(found.plans) == len(expected)
    by_shape = {row[1:7]: row for row in expected}
    for plan in found.plans:
        seconds, *_, total = by_shape[shape(plan)]
        assert plan.step_s == pytest.approx(seconds, rel=1e-9)
        assert plan.memory.total == pytest.approx(total, rel=1e-9)
    if expected:
        assert found.plans[0].step_s == pytest.approx(min(expected)[0], rel=1e-9)
    assert (found.nothing is None) == bool(expected)


def shape(plan):
    kept = ("tensor", "pipeline", "data", "zero", "recompute", "micro_batch")
    return tuple(getattr(plan, name) for name in kept)


def test_the_random_jobs_have_plans_and_have_none():
    """So that the comparison above compares something."""
    fitting = [len(plans(*a_job(seed)).plans) for seed in range(50)]
    assert sum(count > 50 for count in fitting) >= 15
    assert fitting.count(0) >= 3


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_every_plan_holds_together(seed):
    model, pool, gpus = a_job(seed)
    found = plans(model, pool, gpus)
    for plan in found.plans:
        assert plan.tensor * plan.pipeline * plan.data == gpus
        assert plan.data * plan.micro_batch * plan.micro_batches == model.global_batch
        assert plan.memory.total <= 0.92 * pool.device.memory_gb * 1e9
        assert plan.samples_per_s * plan.step_s == pytest.approx(model.global_batch)
        parts = plan.step
        total = parts.compute + parts.tensor + parts.pipeline + parts.bubble + parts.data
        assert plan.step_s == pytest.approx(total)
        assert min(parts.compute, plan.memory.weights, plan.memory.activations) > 0
    times = [plan.step_s for plan in found.plans]
    assert times == sorted(times)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_no_family_is_left_out_without_a_reason(seed):
    model, pool, gpus = a_job(seed)
    found = plans(model, pool, gpus)
    kept = {(p.tensor, p.pipeline, p.data, p.zero) for p in found.plans}
    for family in families(model, gpus):
        reasons = [row for row in found.rejected if covers(row.family, family)]
        assert bool(reasons) != (family in kept), (family, reasons)
    assert all(row.why for row in found.rejected)


def families(model, gpus):
    for tensor in (1, 2, 4, 8):
        for pipeline in range(1, gpus + 1):
            if gpus % (tensor * pipeline) == 0:
                for zero in range(4):
                    yield tensor, pipeline, gpus // (tensor * pipeline), zero


def covers(named, family):
    """Whether a family such as `tensor 2, pipeline 3, 6` holds this one."""
    for name, value in zip(("tensor", "pipeline", "data", "ZeRO"), family, strict=True):
        given = re.search(rf"{name} (above )?([\d, ]+)", named)
        if given is None:
            continue
        numbers = [int(text) for text in re.findall(r"\d+", given[2])]
        if not (value > numbers[0] if given[1] else value in numbers):
            return False
    return True


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_the_time_in_a_pipeline_is_that_of_its_schedule(seed):
    """Micro-batches through stages one after the other, each stage one at a time."""
    model, pool, gpus = a_job(seed)
    for plan in plans(model, pool, gpus).plans[:5]:
        p, m, parts = plan.pipeline, plan.micro_batches, plan.step
        if p == 1:
            assert parts.bubble == parts.pipeline == 0
            continue
        stage = parts.bubble / (p - 1)
        last = (parts.compute + parts.tensor + parts.pipeline) / m
        free = [0.0] * p
        for _ in range(m):
            at = 0.0
            for number in range(p):
                at = max(at, free[number]) + (last if number == p - 1 else stage)
                free[number] = at
        assert plan.step_s - parts.data == pytest.approx(free[-1])


def test_more_memory_never_makes_a_job_slower():
    best = []
    for memory in (2, 3, 4, 8, 16, 80):
        found = plans(BERT, replace(POOL, device=replace(A100, memory_gb=memory)), 8)
        best.append(found.plans[0].step_s)
    assert best == sorted(best, reverse=True)
    assert best[0] > best[-1]


def test_of_equal_times_the_larger_micro_batch_is_first():
    first, second = plans(BERT, POOL, 1).plans[:2]
    assert first.step_s == second.step_s
    assert first.micro_batch > second.micro_batch


def test_times_are_scaled_to_the_believed_speed():
    plain = plans(BERT, POOL, 8).plans
    speed = plain[0].samples_per_s / 2
    pool = replace(POOL, believed=BelievedSpeed(speed, 8))
    scaled = plans(BERT, pool, 8).plans
    assert scaled[0].samples_per_s == pytest.approx(speed)
    assert [shape(plan) for plan in scaled] == [shape(plan) for plan in plain]
    assert {plan.speed_from for plan in scaled} == {"believed"}
    wider = plans(BERT, pool, 16).plans[0]
    assert wider.step_s == pytest.approx(2 * plans(BERT, POOL, 16).plans[0].step_s)


def test_a_belief_at_a_size_that_nothing_fits_scales_nothing():
    large = replace(BERT, params=20e9)
    pool = replace(POOL, believed=BelievedSpeed(5.0, 1))
    assert plans(large, pool, 1).plans == ()
    assert plans(large, pool, 16).plans[0].speed_from == "formula"


def test_a_model_that_nothing_can_hold_is_told_the_tightest_part():
    found = plans(replace(BERT, params=175e9), POOL, 8)
    assert found.plans == ()
    assert "the tightest part is optimizer states" in found.nothing
    assert "in the host's memory" in found.nothing
    long = plans(replace(BERT, seq=10**8), POOL, 8)
    assert "the tightest part is activations" in long.nothing


def test_a_batch_that_cannot_be_divided_is_told_so():
    odd = replace(BERT, global_batch=1, layers=1, heads=1)
    assert "a global batch of 1" in plans(odd, POOL, 7).nothing


@pytest.mark.parametrize("gpus", [0, -8, 65, 1.5, float("nan"), True, "8", None])
def test_gpu_counts_that_the_pool_does_not_have_are_refused(gpus):
    with pytest.raises(BadDescription, match="gpus: must be"):
        plans(BERT, POOL, gpus)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "x", None, True, 10**19])
@pytest.mark.parametrize("name", ["params", "layers", "seq", "vocab", "global_batch", "heads"])
def test_a_model_of_impossible_numbers_is_refused(name, value):
    with pytest.raises(BadDescription, match=f"^{name}: must be"):
        replace(BERT, **{name: value})


def test_fewer_parameters_than_the_embedding_are_refused():
    with pytest.raises(BadDescription, match="vocab times hidden"):
        replace(BERT, params=1e6)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "x"])
@pytest.mark.parametrize("name", ["memory_gb", "peak_tflops", "intra_gbit_s", "inter_gbit_s"])
def test_a_device_of_impossible_numbers_is_refused(name, value):
    with pytest.raises(BadDescription, match=f"^gpu.{name}: must be"):
        replace(A100, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("price", -1), ("efficiency", 1.5), ("efficiency", 0), ("gpus", 0), ("id", ""), ("id", 3)],
)
def test_a_pool_of_impossible_numbers_is_refused(name, value):
    with pytest.raises(BadDescription, match=f"{name}: must be"):
        replace(POOL, **{name: value})
