"""Measurements that make no sense, as an agent posts them: held back, told why, never learned."""

from __future__ import annotations

import json

import pytest

from broker.tasks import tick_affinity
from federation.models import (
    ForecastAffinity,
    QuarantinedSample,
    Report,
    StoredModel,
    ThroughputSample,
)
from tests.broker.api_world import a_batch, a_caller, a_report, problem, progress
from tests.federation.test_samples_gateway import Reporting, steps
from tests.support import world

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("tasks_at_once")]


@pytest.fixture
def site() -> Reporting:
    return Reporting()


def accepted(answer) -> list[bool]:
    assert answer.status_code == 200, answer.content
    return [receipt["accepted"] for receipt in answer.json()["receipts"]]


@pytest.mark.parametrize(
    ("said", "code", "sentence"),
    [
        ({"step_time_s": 0}, "out_of_range", "step_time_s is 0: a time is above 0"),
        ({"step_time_s": -0.5}, "out_of_range", "step_time_s is -0.5: a time is above 0"),
        ({"step_time_s": 1e300}, "out_of_range", "step_time_s is 1e+300"),
        ({"step_time_s": 5e-324}, "out_of_range", "step_time_s is 4.94066e-324"),
        ({"step_time_s": None}, "incomplete", "step_time_s is missing."),
        ({"step_time_s": 1e-7}, "too_fast", "samples/s, where nobody has shown or claimed"),
        ({"sync_time_s": -1.0}, "inconsistent", "sync_time_s is -1"),
        ({"sync_time_s": 99.0}, "inconsistent", "is not below step_time_s"),
        ({"local_batch": 0}, "out_of_range", "local_bsz is 0"),
        ({"local_batch": None}, "incomplete", "local_batch is missing."),
        ({"replicas": 7}, "wrong_gpus", "7 replicas on a lease of 2 GPUs."),
        ({"nodes": 9}, "inconsistent", "2 replicas cannot stand on 9 nodes"),
        ({"nodes": 2**62}, "inconsistent", "replicas cannot stand on"),
        ({"gpu": "Tesla V100"}, "other_gpu", "Tesla V100 was measured where the pool has A100."),
        ({"grad_sqr": -1.0}, "out_of_range", "grad_sqr is -1"),
        ({"grad_var": -1.0}, "out_of_range", "grad_var is -1"),
        ({"memory_peak_bytes": -1}, "out_of_range", "memory_peak_bytes is -1"),
        ({"accumulation": -1}, "out_of_range", "accum_steps is -1"),
        ({"line": 0}, "out_of_range", "line is 0"),
        ({"line": 50}, "future", "Line 50 of 2 lines: not yet written."),
    ],
)
def test_it_is_held_back_with_a_sentence_and_costs_no_report(site, said, code, sentence):
    assert accepted(site.send(steps(1), {**steps(2), **said})) == [True, True]
    row = QuarantinedSample.objects.get()
    assert (row.code, row.seq) == (code, 2)
    assert sentence in row.why
    assert Report.objects.count() == 2
    assert ThroughputSample.objects.get().line == 1


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1e-", b"0x1"])
def test_what_is_no_number_in_json_is_refused_whole(site, number):
    report = a_report(site.lease, 1, progress=progress(64, lines=1, measurement=steps(1)))
    raw = json.dumps(a_batch(report)).encode()
    spoilt = raw.replace(b'"step_time_s": 0.148', b'"step_time_s": ' + number)
    assert spoilt != raw
    problem(site.agent.post("/reports", spoilt), 400, "not_json")
    assert not Report.objects.exists()


def learned(site) -> StoredModel:
    tick_affinity()
    return StoredModel.objects.get()


@pytest.mark.parametrize("many", [1, 60])
def test_one_sample_or_many_equal_ones_make_no_model_and_no_forecast(site, many):
    alike = {"local_batch": 32, "step_time_s": 0.15}
    answer = site.send(*({"line": line, **alike} for line in range(1, many + 1)))
    assert accepted(answer) == [True] * many
    stored = learned(site)
    assert (stored.samples, stored.waiting) == (many, 0)
    assert stored.why == (
        f"{many} {'sample' if many == 1 else 'samples'} of one configuration only (1 nodes, "
        "2 replicas, local batch 32): a fit needs at least two that differ in nodes, replicas or "
        "local batch"
    )
    assert not ForecastAffinity.objects.exists()
    [offer] = a_caller(site.tenant).get("/offers").json()["results"]
    assert {row["source"] for row in offer["affinities"]} == {"declared"}


def test_samples_that_cannot_be_read_hold_up_no_other_model(site):
    """Such rows pass no check of ours: they came into the database by another way."""
    site.send(*(steps(line) for line in range(1, 10)))
    spoilt = ThroughputSample.objects.first()
    other = world.a_class("bert")
    StoredModel.objects.create(pk=-1, pool=spoilt.pool, job_class=other, waiting=1)
    ThroughputSample.objects.filter(pk=spoilt.pk).update(job_class=other, local_batch=0.0)
    tick_affinity()
    told = {row.job_class.name: row for row in StoredModel.objects.all()}
    assert (told["cnn"].samples, told["cnn"].why) == (8, "")
    assert told["bert"].why.startswith("Its new samples could not be read: ")
    assert (told["bert"].samples, told["bert"].waiting) == (0, 1)


def test_a_job_that_sends_nothing_but_nonsense_teaches_nothing(site):
    site.send(*(steps(line, step_time_s=-float(line)) for line in range(1, 40)))
    tick_affinity()
    assert QuarantinedSample.objects.count() == 39
    assert not StoredModel.objects.exists()
    assert not ForecastAffinity.objects.exists()
