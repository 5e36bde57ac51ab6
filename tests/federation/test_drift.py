"""A pool that becomes slower, or gets other hardware, is believed to be what it is now."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from federation.affinity.alarms import Witness, shifted_from
from federation.models import (
    Alarm,
    ForecastAffinity,
    Forgotten,
    JobClass,
    Lease,
    MeasuredAffinity,
    PriorAffinity,
    StoredModel,
)
from federation.selectors.affinity import believed_cells, current_offers
from federation.services.affinity import affinity_refit
from federation.services.fits import models_refit
from federation.services.leases import Ending
from federation.services.records import records_refit
from tests.federation.samples_scene import Scene
from tests.support.world import (
    NOW,
    SimAgent,
    a_class,
    a_job,
    a_member,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    an_offer,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db
BEFORE = 15  #: leases at the speed that is claimed


def shifted(logs):
    """The same of leases that two owners took turns at."""
    return shifted_from(logs, [Witness("birch" if at % 2 else "clover") for at in range(len(logs))])


def drawn(mean, many, spread, seed):
    draw = random.Random(seed)
    return [draw.gauss(mean, spread) for _ in range(many)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spread", [0.01, 0.03, 0.05])
def test_a_lasting_shift_is_found_in_few_leases_and_where_it_began(seed, spread):
    logs = drawn(5.0, BEFORE, spread, seed)
    assert shifted(logs) is None
    slow = drawn(5.0 + math.log(0.7), 6, spread, seed + 1000)
    found = [shifted(logs + slow[:many]) for many in range(1, 7)]
    assert found[:4] == [None] * 4  # few slow leases do not decide
    assert found[4:] == [BEFORE] * 2
    assert shifted(logs + [-x + 10 for x in slow[:5]]) == BEFORE  # as much faster


def test_two_shifts_leave_the_newest_alone():
    logs = [0.0] * 8 + [-0.4] * 8 + [0.0] * 8
    assert shifted(logs) == 16


def test_nothing_shifts_in_nothing():
    assert shifted([]) is None
    assert shifted([3.0]) is None
    assert shifted([3.0] * 40) is None


def test_honest_leases_are_seldom_forgotten():
    """At the usual noise: in 20 leases, once in some hundred cells."""
    found = [shifted(drawn(0.0, 20, 0.05, seed)) for seed in range(500)]
    assert sum(place is not None for place in found) <= 10


class Run:
    """One pool, one lease after another, of two owners in turns, through the real services."""

    def __init__(self, owners=("birch", "clover")):
        self.site = a_site("north", gpus=2, reserve="10", speeds={"cnn": 1000.0})
        self.tenants = itertools.cycle(
            a_tenant(f"of-{owner}", member=a_member(owner), credits=10**7) for owner in owners
        )
        self.agent = SimAgent(self.site)
        self.now = 20.0

    def lease(self, speed):
        """A round in which a job runs at that speed, is paid and folded in; what is believed."""
        self.tenant = next(self.tenants)
        job = a_job(self.tenant, now=later(self.now - 9), samples=5_000, value="90000")
        a_round(later(self.now))
        self.agent.sync(later(self.now + 1))
        self.agent.sync(later(self.now + 1))
        lease, end = live_lease(job), Ending("exited", 0)
        self.agent.report(
            lease, later(self.now + 5), samples=lease.contracts.get().contracted, speed=speed,
            ending=end,
        )  # fmt: skip
        affinity_refit(now=later(self.now + 6))
        pay(later(self.now + 6))
        records_refit(now=later(self.now + 7))
        self.now += 20
        return self.believed()

    def believed(self):
        [cell] = believed_cells(current_offers(a_venue(), later(self.now))).values()
        return cell


def speeds(factor, many, seed):
    return [1000.0 * factor * math.exp(x) for x in drawn(0.0, many, 0.03, seed)]


def test_a_pool_that_becomes_slower_is_noticed_alarmed_and_believed_in_few_leases():
    run = Run()
    for speed in speeds(1.0, BEFORE, 1):
        told = run.lease(speed)
    assert told.samples_per_s == pytest.approx(1000.0, rel=0.03)
    assert (told.leases, Forgotten.objects.count()) == (BEFORE, 0)
    assert not Alarm.objects.exists()
    alarmed, forgot, followed = None, None, None
    for at, speed in enumerate(speeds(0.7, 6, 2), start=1):
        told = run.lease(speed)
        if alarmed is None and Alarm.objects.filter(kind="drift", closed_at=None).exists():
            alarmed = at
        if forgot is None and Forgotten.objects.exists():
            forgot = at
        if followed is None and told.samples_per_s < 750:
            followed = at
    assert alarmed <= 2
    assert forgot == 5
    assert followed == 5
    assert told.samples_per_s == pytest.approx(700.0, rel=0.05)
    assert told.leases == 6  # the fifteen of before count no more
    [kept] = Forgotten.objects.all()
    first = Lease.objects.order_by("created_at")[BEFORE]
    assert (kept.cause, kept.since) == ("drift", first.created_at)
    assert "in 15 leases" in kept.why


def test_one_slow_lease_moves_little_and_is_not_the_end_of_what_was_known():
    run = Run()
    for speed in [*speeds(1.0, 10, 3), 600.0, *speeds(1.0, 3, 4)]:
        told = run.lease(speed)
    assert not Forgotten.objects.exists()
    assert told.leases == 14
    assert told.samples_per_s > 930


def test_what_was_forgotten_stays_forgotten():
    run = Run()
    for speed in [*speeds(1.0, 8, 5), *speeds(0.6, 5, 6), *speeds(0.6, 8, 7)]:
        told = run.lease(speed)
    assert Forgotten.objects.count() == 1
    assert told.measured == pytest.approx(600.0, rel=0.03)


def test_other_hardware_is_another_pool_at_once():
    scene = Scene()
    for lease in [scene.lease(gpus) for gpus in (1, 2, 4)]:
        scene.measure(lease, batches=(16, 32, 32, 64))
    models_refit(now=later(200))
    pool = scene.site.pools.get()
    cnn = JobClass.objects.get(name="cnn")
    MeasuredAffinity.objects.create(
        pool=pool, job_class=cnn, gpus=1, samples_per_s=900.0, leases=9, updated_at=NOW
    )
    PriorAffinity.objects.create(
        pool=pool, job_class=a_class("lm"), gpus=1, log_mean=3.0, log_sd=0.3,
        source="roofline", n=0, made_at=NOW,
    )  # fmt: skip
    assert ForecastAffinity.objects.exists()
    an_offer(scene.site, gpus=64, gpu="H100", speeds={"cnn": 3000.0}, now=later(300))
    for model in (MeasuredAffinity, ForecastAffinity, PriorAffinity):
        assert not model.objects.exists()
    assert StoredModel.objects.get().body == {}
    [kept] = Forgotten.objects.all()
    assert (kept.cause, kept.since, kept.job_class) == ("hardware", later(300), None)
    assert kept.why == "its GPUs are H100, no longer A100"
    # and the new claim is not planned on before anybody has seen it
    assert (pool.pk, cnn.pk, 1) not in believed_cells(current_offers(a_venue(), later(301)))


def test_a_lease_from_before_the_other_hardware_counts_no_more():
    run = Run()
    run.lease(1000.0)
    an_offer(run.site, gpus=2, gpu="H100", speeds={"cnn": 3000.0}, now=later(run.now - 15))
    Lease.objects.update(fitted_lines=0)
    assert affinity_refit(now=later(run.now - 14)) == []
    a_job(run.tenant, now=later(run.now - 9))
    a_round(later(run.now))  # its speed is known nowhere now: it is measured first
    for probe in Lease.objects.filter(job__kind="probe"):
        run.agent.sync(later(run.now + 1))
        run.agent.report(
            probe, later(run.now + 5), samples=100, speed=2900.0, ending=Ending("exited", 0)
        )  # fmt: skip
    affinity_refit(now=later(run.now + 6))
    assert run.believed().measured == pytest.approx(2900.0)
    assert run.believed().leases == Lease.objects.filter(job__kind="probe").count()


def test_the_same_hardware_again_forgets_nothing():
    run = Run()
    run.lease(1000.0)
    an_offer(run.site, gpus=2, speeds={"cnn": 1010.0}, now=later(run.now - 5))
    assert MeasuredAffinity.objects.get().leases == 1
    assert not Forgotten.objects.exists()
