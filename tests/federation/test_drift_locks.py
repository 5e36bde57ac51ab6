"""Other hardware and a refit at the same moment: no old speed is written over the new pool."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from federation.models import Lease, MeasuredAffinity
from federation.services.affinity import affinity_refit
from tests.federation.samples_scene import Scene
from tests.federation.test_settlement_locks import waits_for_a_lock
from tests.support.together import together
from tests.support.world import an_offer, later

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("ledger_may_be_flushed"),
]


def measured_scene():
    """A site with a lease that was measured and not yet folded in."""
    scene = Scene()
    lease = scene.lease(1)
    Lease.objects.filter(pk=lease.pk).update(measured_samples_per_s=900.0, progress_lines=9)
    return scene, lease


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_a_refit_waits_for_the_offer_that_makes_its_leases_old():
    scene, _ = measured_scene()

    def refit():
        try:
            return affinity_refit(now=later(96))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as crew:
        with transaction.atomic():
            an_offer(scene.site, gpu="H100", gpus=8, now=later(95))
            waiting = crew.submit(refit)
            while not waits_for_a_lock():
                assert not waiting.done()
        assert waiting.result() == []
    assert not MeasuredAffinity.objects.exists()


def test_an_offer_a_refit_and_samples_at_once_leave_no_speed_of_the_old_hardware():
    scene, lease = measured_scene()
    for turn, gpu in enumerate(["H100", "A100", "H100"]):
        Lease.objects.update(fitted_lines=0)
        batch, now = [scene.sample(lease) for _ in range(5)], 95 + turn

        def act(worker, gpu=gpu, batch=batch, now=now):
            if worker == 0:
                an_offer(scene.site, gpu=gpu, gpus=8, now=later(now))
            elif worker == 1:
                affinity_refit(now=later(now))
            else:
                scene.send(*batch, at=now)

        together(3, act)
        assert not MeasuredAffinity.objects.exists()
