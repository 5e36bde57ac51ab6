"""Measured steps: stored once, held back with a reason, and never dropped."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from uuid import UUID

import pytest

from federation.affinity.models_file import read_model
from federation.affinity.samples import Configuration, Sample
from federation.affinity.throughput import fit
from federation.models import (
    Alarm,
    Contract,
    ForecastAffinity,
    Job,
    Lease,
    QuarantinedSample,
    Report,
    StoredModel,
    ThroughputSample,
)
from federation.services import fits
from federation.services.affinity import affinity_refit
from federation.services.fits import (
    AGAIN,
    model_refit,
    models_due,
    models_refit,
    waiting_refit,
)
from federation.services.reports import Measured, reports_accept
from federation.services.sample_checks import same_kind
from federation.services.samples import Kept, samples_accept, samples_forget
from tests.federation.samples_scene import Scene, step_s
from tests.support.world import a_class, a_site, later

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_measurement_is_stored_with_all_that_it_says(scene):
    lease = scene.lease(2)
    said = {"sync_s": 0.01, "nodes": 2, "accumulation": 3, "grad_sqr": 1.5, "grad_var": 0.5}
    scene.send(scene.sample(lease, memory_peak=3 * 2**30, gpu="NVIDIA A100-SXM4-80GB", **said))
    row = ThroughputSample.objects.get()
    assert (row.lease_id, row.pool_id, row.job_class_id) == (
        *(lease.pk, lease.pool_id, lease.job.job_class_id),
    )
    assert (row.nodes, row.replicas, row.local_batch, row.accumulation) == (2, 2, 32.0, 3)
    assert (row.step_s, row.sync_s) == (step_s(2, 32), 0.01)
    assert (row.grad_sqr, row.grad_var, row.memory_peak) == (1.5, 0.5, 3 * 2**30)
    assert StoredModel.objects.get().waiting == 1


def test_what_is_not_said_is_one_node_without_accumulation_on_all_gpus(scene):
    scene.send(scene.sample(scene.lease(4)))
    row = ThroughputSample.objects.get()
    assert (row.nodes, row.replicas, row.accumulation, row.sync_s) == (1, 4, 0, None)


BAD = [
    ("out_of_range", {"step_s": 0.0}),
    ("out_of_range", {"step_s": -1.0}),
    ("out_of_range", {"step_s": math.nan}),
    ("out_of_range", {"step_s": math.inf}),
    ("out_of_range", {"step_s": 1e-12}),
    ("out_of_range", {"local_batch": 0.0}),
    ("out_of_range", {"local_batch": math.nan}),
    ("out_of_range", {"nodes": 0}),
    ("out_of_range", {"accumulation": -1}),
    ("out_of_range", {"accumulation": 2**62}),
    ("out_of_range", {"line": 0}),
    ("out_of_range", {"line": 2**40, "lines": 2**40}),
    ("out_of_range", {"grad_sqr": -1.0}),
    ("out_of_range", {"grad_var": math.inf}),
    ("out_of_range", {"memory_peak": -5}),
    ("incomplete", {"step_s": None}),
    ("incomplete", {"local_batch": None}),
    ("inconsistent", {"sync_s": 9.0}),
    ("inconsistent", {"sync_s": -0.1}),
    ("inconsistent", {"sync_s": math.nan}),
    ("inconsistent", {"nodes": 3}),
    ("wrong_gpus", {"replicas": 3}),
    ("wrong_gpus", {"replicas": 0}),
    ("other_gpu", {"gpu": "Tesla V100-SXM2-16GB"}),
    ("too_fast", {"step_s": 0.0001}),
    ("future", {"line": 5, "lines": 4}),
    ("unreadable", {"problem": "step_time_s is 'fast'"}),
]


def test_what_nothing_can_be_learned_from_is_held_back_with_the_reason(scene):
    lease = scene.lease(2)
    samples = [scene.sample(lease, **said) for _, said in BAD]
    scene.send(*samples)
    rows = QuarantinedSample.objects.order_by("seq")
    assert [(row.seq, row.code) for row in rows] == list(enumerate((c for c, _ in BAD), 1))
    assert all(row.why for row in rows)
    assert rows[2].body["step_s"] == "nan"
    assert rows[2].body["local_batch"] == 32.0
    assert not ThroughputSample.objects.exists()
    assert not StoredModel.objects.exists()
    assert models_refit(now=later(40)) == []
    assert Report.objects.count() == len(BAD)  # the reports themselves count


def test_a_replay_changes_nothing(scene):
    lease = scene.lease(2)
    batch = [scene.sample(lease), scene.sample(lease, step_s=-1.0), scene.sample(lease)]
    scene.send(*batch)
    scene.send(*batch, *batch)
    assert (ThroughputSample.objects.count(), QuarantinedSample.objects.count()) == (2, 1)
    assert StoredModel.objects.get().waiting == 2
    again = samples_accept(site=scene.site, samples=batch, now=later(50))
    assert again == Kept(0, 0)


def test_a_line_that_was_measured_before_is_a_duplicate_wherever_it_comes(scene):
    lease = scene.lease(1)
    first = scene.sample(lease)
    scene.send(first)
    scene.send(scene.sample(lease, line=first.line))
    scene.send(scene.sample(lease, line=9, lines=9), scene.sample(lease, line=9, lines=9))
    assert sorted(ThroughputSample.objects.values_list("line", flat=True)) == [1, 9]
    assert set(QuarantinedSample.objects.values_list("code", flat=True)) == {"duplicate"}
    assert QuarantinedSample.objects.count() == 2


def test_an_attempt_that_was_given_up_teaches_nothing(scene):
    lease = scene.lease(1)
    Lease.objects.filter(pk=lease.pk).update(state="fenced")
    scene.send(scene.sample(lease))
    assert QuarantinedSample.objects.get().code == "superseded"


def test_another_site_cannot_measure_our_lease(scene):
    lease, other = scene.lease(1), a_site("south")
    kept = samples_accept(site=other, samples=[scene.sample(lease)], now=later(30))
    assert kept == Kept(0, 0)
    unheard = replace(scene.sample(lease), lease_id=UUID(int=7))
    assert samples_accept(site=scene.site, samples=[unheard], now=later(30)) == Kept(0, 0)


@pytest.mark.parametrize(
    ("said", "kind", "same"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100", True),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb", True),
        ("NVIDIA GeForce RTX 4090", "RTX4090", True),
        ("NVIDIA H100 80GB HBM3", "H100-SXM", True),
        ("cpu", "cpu", True),
        ("Tesla V100-SXM2-16GB", "A100-SXM2", False),
        ("NVIDIA L4", "L40S", False),
        ("NVIDIA A10", "A100", False),
        ("cpu", "A100", False),
    ],
)
def test_names_of_gpus(said, kind, same):
    assert same_kind(said, kind) is same


def test_a_model_is_fitted_when_two_configurations_were_measured_and_reads_each_sample_once(scene):
    lease = scene.lease(1)
    scene.measure(lease, batches=(32,))
    [first] = models_refit(now=later(40))
    assert (first.pool, first.job_class, first.samples) == ("north.gpu", "cnn", 3)
    assert "one configuration only" in first.why
    assert not ForecastAffinity.objects.exists()
    scene.measure(lease, batches=(64,))
    [second] = models_refit(now=later(50))
    assert (second.version, second.samples, second.why) == (2, 6, "")
    stored = StoredModel.objects.get()
    assert (stored.waiting, stored.samples, stored.fitted_at) == (0, 6, later(50))
    assert read_model(stored.body["model"]).tally.samples == 6
    assert models_refit(now=later(60)) == []  # nothing new: nothing to do


def test_the_stored_model_is_the_one_of_all_samples(scene):
    """Refitted batch by batch it forecasts what one fit of everything does."""
    for lease in [scene.lease(gpus) for gpus in (1, 2, 4)]:
        scene.measure(lease)
        models_refit(now=later(200))
    rows = ThroughputSample.objects.values_list(
        "nodes", "replicas", "local_batch", "accumulation", "step_s", "sync_s"
    )
    whole = fit([Sample(*row) for row in rows])
    kept = read_model(StoredModel.objects.get().body["model"])
    for gpus in (1, 2, 3, 4):
        one, other = (m.forecast(Configuration(1, gpus, 32.0)) for m in (whole, kept))
        assert one.step_s == pytest.approx(other.step_s, rel=0.02)
        assert other.step_s == pytest.approx(step_s(gpus, 32), rel=0.05)


def test_forecasts_are_stored_for_gang_sizes_and_those_beyond_are_marked(scene):
    for gpus in (1, 4):
        scene.measure(scene.lease(gpus))
    models_refit(now=later(200))
    rows = {row.gpus: row for row in ForecastAffinity.objects.all()}
    assert sorted(rows) == [1, 2, 3, 4, 8, 16, 32]
    assert [gpus for gpus, row in rows.items() if row.extrapolated] == [8, 16, 32]
    for gpus in (1, 2, 3, 4):
        assert rows[gpus].low < gpus * 32 / step_s(gpus, 32) * 1.1
        assert rows[gpus].low < rows[gpus].samples_per_s < rows[gpus].high
        assert (rows[gpus].samples, rows[gpus].fitted_at) == (18, later(200))


def test_each_changed_model_is_handed_to_one_worker_and_again_when_that_is_lost(scene):
    scene.measure(scene.lease(1))
    known = StoredModel.objects.get()
    StoredModel.objects.create(pool=known.pool, job_class=a_class("other"), waiting=3)
    first, second = models_due(now=later(40))
    assert models_due(now=later(41)) == [], "both are with a worker"
    assert waiting_refit(model=first, now=later(42)) is not None
    assert waiting_refit(model=first, now=later(43)) is None, "a message that came twice"
    assert models_due(now=later(40) + AGAIN) == [second], "its worker was killed"


def test_a_worker_that_was_second_writes_nothing(scene):
    scene.measure(scene.lease(1))
    mine, theirs = StoredModel.objects.get(), StoredModel.objects.get()
    assert model_refit(stored=theirs, now=later(40)) is not None
    before = list(StoredModel.objects.values())
    assert model_refit(stored=mine, now=later(41)) is None
    assert list(StoredModel.objects.values()) == before


def test_a_body_that_cannot_be_read_is_fitted_anew_from_all_samples(scene):
    lease = scene.lease(1)
    scene.measure(lease)
    models_refit(now=later(40))
    StoredModel.objects.update(body={"model": {"cells": "of another age"}})
    scene.measure(lease)
    assert models_refit(now=later(50)) == []
    [again] = models_refit(now=later(60))
    assert (again.samples, again.why) == (18, "")


def test_a_long_queue_is_read_in_parts(scene, monkeypatch):
    scene.measure(scene.lease(1))
    monkeypatch.setattr(fits, "SAMPLES_AT_ONCE", 5)
    assert [fit.samples for _ in range(3) for fit in models_refit(now=later(40))] == [5, 9]
    assert StoredModel.objects.get().waiting == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_ends_where_its_reports_one_by_one_end(scene, seed):
    """Reports of a batch are applied as one; what they move is the same."""
    draw = random.Random(seed)
    one, other = scene.lease(1), scene.lease(1)
    told = [
        Measured(
            samples=draw.choice([0, draw.randrange(10**5)]),
            contract_samples=0,
            gpu_seconds=draw.uniform(0, 1000),
            samples_per_s=draw.choice([None, draw.uniform(1, 900)]),
            lines=draw.randrange(6),
            loss=draw.choice([None, draw.random()]),
        )
        for _ in range(12)
    ]
    for lease, sizes in ((one, [1] * 12), (other, [5, 7])):
        contract = Contract.objects.get(lease=lease)
        reports = [
            replace(
                scene.report(scene.sample(lease)),
                measured=measured,
                contract_id=contract.pk,
                sample=None,
            )
            for measured in told
        ]
        for size in sizes:
            batch, reports = reports[:size], reports[size:]
            reports_accept(site=scene.site, reports=batch, now=later(90))
    ends = []
    for lease in (one, other):
        lease.refresh_from_db()
        contract, job = Contract.objects.get(lease=lease), Job.objects.get(pk=lease.job_id)
        ends.append(
            (
                *(lease.samples, lease.gpu_seconds, lease.measured_samples_per_s, lease.loss),
                *(lease.progress_lines, lease.state, lease.reports_stored, lease.reports_highest),
                *(job.state, job.samples_done, contract.delivered, contract.gpu_seconds),
            )
        )
    assert ends[0] == ends[1]
    assert ends[0][0] == max(measured.samples for measured in told)


def test_a_confirmed_claim_makes_a_model_learn_anew(scene):
    """Who showed new hardware is not held to what the old one did."""
    lease = scene.lease(1)
    scene.measure(lease)
    models_refit(now=later(40))
    assert ForecastAffinity.objects.exists()
    Alarm.objects.create(
        kind="claim",
        about="raised",
        why="raised",
        figures={"gpus": 1, "claimed": 900.0, "noise_log": 0.1},
        site=scene.site,
        pool=lease.pool,
        job_class=lease.job.job_class,
        created_at=lease.created_at,
    )
    Alarm.objects.update(created_at=later(45))
    Lease.objects.filter(pk=lease.pk).update(
        created_at=later(46), measured_samples_per_s=950.0, progress_lines=9
    )
    scene.send(scene.sample(lease, local_batch=64.0, step_s=0.1), at=50)
    affinity_refit(now=later(60))
    models_refit(now=later(60))
    stored = StoredModel.objects.get()
    assert (stored.samples, stored.waiting) == (1, 0)
    assert "one configuration only" in stored.why
    assert not ForecastAffinity.objects.exists()
    assert ThroughputSample.objects.count() == 10


def test_what_is_past_retention_is_forgotten_once_its_model_has_read_it(scene):
    lease = scene.lease(2)
    for batch in (8, 16, 32):
        scene.send(scene.sample(lease, local_batch=float(batch), step_s=step_s(2, batch)))
    scene.send(scene.sample(lease, step_s=-1.0))
    ages_later = later(500 * 86400)
    assert samples_forget(now=ages_later) == 0, "the lease still runs"
    Lease.objects.filter(pk=lease.pk).update(ended_at=later(100))
    assert samples_forget(now=later(200)) == 0, "within its retention"
    assert samples_forget(now=ages_later) == 1, "what is held back waits for no model"
    assert ThroughputSample.objects.count() == 3, "not read yet"
    models_refit(now=later(300))
    learned = StoredModel.objects.get().body
    assert samples_forget(now=ages_later) == 3
    assert not ThroughputSample.objects.exists()
    assert StoredModel.objects.get().body == learned
