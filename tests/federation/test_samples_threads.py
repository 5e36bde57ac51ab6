"""Measurements that come at once: each is stored once, and no model misses one."""

from __future__ import annotations

import pytest

from federation.models import QuarantinedSample, StoredModel, ThroughputSample
from federation.services.fits import models_refit
from federation.services.samples import Kept, samples_accept
from tests.federation.samples_scene import Scene
from tests.support.together import together
from tests.support.world import later

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
MANY = 4


def test_one_batch_that_comes_many_times_at_once_is_stored_once():
    scene = Scene()
    lease = scene.lease(1)
    batch = [scene.sample(lease, local_batch=float(16 << at % 3)) for at in range(20)]
    batch += [scene.sample(lease, step_s=-1.0) for _ in range(5)]
    kept = together(MANY, lambda _: samples_accept(site=scene.site, samples=batch, now=later(40)))
    assert sorted(kept, key=lambda one: one.samples)[-1] == Kept(20, 5)
    assert sum(one.samples for one in kept) == 20
    assert (ThroughputSample.objects.count(), QuarantinedSample.objects.count()) == (20, 5)
    assert StoredModel.objects.get().waiting == 20


def test_a_model_that_is_refitted_while_samples_come_misses_none():
    scene = Scene()
    lease = scene.lease(1)
    batches = [
        [scene.sample(lease, local_batch=float(16 << at % 3)) for at in range(10)]
        for _ in range(2 * MANY)
    ]

    def run(number: int) -> None:
        for batch in batches[number::MANY]:
            samples_accept(site=scene.site, samples=batch, now=later(40))
            models_refit(now=later(41))

    together(MANY, run)
    while models_refit(now=later(50)):
        pass
    stored = StoredModel.objects.get()
    assert (stored.samples, stored.waiting) == (20 * MANY, 0)
    assert not QuarantinedSample.objects.exists()
