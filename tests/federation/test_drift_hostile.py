"""Nobody sheds a bad record by a word, and nobody's few jobs spoil a good one."""

from __future__ import annotations

import json
import math

import pytest

from federation.affinity.alarms import Witness, reined_in, shifted_from
from federation.models import (
    Alarm,
    Event,
    Forgotten,
    Job,
    JobClass,
    Lease,
    MeasuredAffinity,
    QuarantinedSample,
    StoredModel,
)
from federation.services.affinity import affinity_refit
from federation.services.fits import models_refit
from federation.services.forgetting import same_hardware
from federation.services.guard import claims_review, open_claims
from federation.services.leases import Ending
from federation.services.probes import claims_probe
from federation.services.reports import reports_accept
from federation.snapshot import book_build
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
)

pytestmark = pytest.mark.django_db


def book(at):
    rows = json.loads(book_build(venue=a_venue(), now=later(at)).text)["affinity"]
    return {row["class"]: row["samples_per_s"] for row in rows if row["samples_per_s"]}


# --- other hardware on paper ---


@pytest.fixture
def north():
    """A site that claims 2000 and showed 900 in fifteen leases, and a job that waits."""
    site = a_site("north", gpu="A100", gpus=4, speeds={"cnn": 2000.0})
    a_job(a_tenant("ann"), now=later(1))
    MeasuredAffinity.objects.create(
        pool=site.pools.get(), job_class=a_class("cnn"), gpus=1, samples_per_s=900.0,
        log_sd=0.02, leases=15, updated_at=NOW,
    )  # fmt: skip
    [alarm] = claims_review(venue=a_venue(), now=later(3))
    assert book(4) == {"cnn": 900.0}
    return site, alarm


@pytest.mark.parametrize("gpu", ["a100", "A-100", "nvidia-a100", "A100-80GB"])
def test_another_spelling_of_its_gpus_is_no_other_hardware(north, gpu):
    site, alarm = north
    an_offer(site, gpu=gpu, speeds={"cnn": 2000.0}, now=later(5))
    assert claims_review(venue=a_venue(), now=later(6)) == []
    assert book(7) == {"cnn": 900.0}
    assert list(open_claims(a_venue())) == [alarm]
    assert site.pools.get().gpu == gpu
    assert not Forgotten.objects.exists()


def test_other_hardware_on_paper_is_not_planned_on(north):
    site, alarm = north
    an_offer(site, gpu="H100", speeds={"cnn": 2000.0}, now=later(5))
    assert book(5) == {}
    claims_review(venue=a_venue(), now=later(6))
    assert book(7) == {}
    [still] = open_claims(a_venue())
    assert still.pk == alarm.pk
    assert "GPUs of another kind" in still.why
    [told] = Event.objects.filter(event="forget")
    assert told.why == (
        "north.gpu: its GPUs are H100, no longer A100; its claims wait for a lease or a probe "
        "that reaches them"
    )


def test_nor_once_the_claim_was_taken_back_and_made_again(north):
    site, _ = north
    an_offer(site, gpu="H100", speeds={"cnn": 2000.0}, now=later(5))
    an_offer(site, gpu="H100", speeds={}, now=later(6))
    claims_review(venue=a_venue(), now=later(7))
    assert not open_claims(a_venue()).exists()
    an_offer(site, gpu="A100", speeds={"cnn": 2500.0}, now=later(8))
    assert book(9) == {}
    [raised] = claims_review(venue=a_venue(), now=later(9))
    assert (raised.figures["claimed"], raised.figures["leases"]) == (2500.0, 0)


def test_one_slow_lease_on_other_hardware_and_another_claim_do_not_launder_either(north):
    site, _ = north
    an_offer(site, gpu="H100", speeds={"cnn": 2000.0}, now=later(5))
    MeasuredAffinity.objects.create(
        pool=site.pools.get(), job_class=a_class("cnn"), gpus=1, samples_per_s=900.0,
        leases=1, updated_at=later(6),
    )  # fmt: skip
    an_offer(site, gpu="H100", speeds={}, now=later(7))
    claims_review(venue=a_venue(), now=later(8))
    an_offer(site, gpu="H100", speeds={"cnn": 2000.0}, now=later(9))
    assert [alarm.kind for alarm in claims_review(venue=a_venue(), now=later(10))] == ["claim"]
    assert book(11) == {"cnn": pytest.approx(900.0)}


@pytest.mark.parametrize(("shown", "planned"), [(2960.0, 2800.0), (1000.0, 0.0)])
def test_a_probe_on_the_sites_account_settles_it(north, shown, planned):
    site, alarm = north
    Alarm.objects.filter(pk=alarm.pk).update(figures={**alarm.figures, "probe": "an older one"})
    an_offer(site, gpu="H100", speeds={"cnn": 3000.0}, now=later(5))
    claims_review(venue=a_venue(), now=later(6))
    [probe] = claims_probe(venue=a_venue(), now=later(7))
    agent = SimAgent(site)
    agent.sync(later(8))
    agent.sync(later(8))
    agent.report(
        live_lease(probe), later(9), samples=100, speed=shown, ending=Ending("exited", 0)
    )  # fmt: skip
    affinity_refit(now=later(10))
    claims_review(venue=a_venue(), now=later(11))
    assert open_claims(a_venue()).exists() is (not planned)
    assert book(12)["cnn"] > planned
    assert book(12)["cnn"] < shown * 1.02


def test_a_new_pool_is_still_a_newcomer():
    a_site("north", gpu="A100", speeds={"cnn": 2000.0})
    a_job(a_tenant("ann"), now=later(1))
    assert claims_review(venue=a_venue(), now=later(2)) == []
    assert book(3) == {"cnn": 2000.0}


@pytest.mark.parametrize(
    ("gpu", "other", "same"),
    [
        ("A100", "a100", True),
        ("RTX-4090", "rtx4090", True),
        ("MI300X", "mi-300x", True),
        ("A100", "H100", False),
        ("L4", "L40", False),
        ("A10", "A100", False),
        ("A100-40GB", "A100-80GB", False),
        ("MI250", "MI300X", False),
    ],
)
def test_names_of_one_kind(gpu, other, same):
    assert same_hardware(gpu, other) is same


def test_steps_of_a_lease_from_before_the_other_hardware_teach_it_nothing():
    scene = Scene()
    lease = scene.lease(1)
    scene.send(scene.sample(lease), at=90)
    an_offer(scene.site, gpu="H100", gpus=8, now=later(95))
    late = [scene.report(scene.sample(lease)), scene.report(scene.sample(lease, gpu="A100"))]
    reports_accept(site=scene.site, reports=late, now=later(100))
    models_refit(now=later(101))
    stored = StoredModel.objects.get()
    assert (stored.samples, stored.waiting, stored.body) == (0, 0, {})
    assert list(QuarantinedSample.objects.values_list("code", flat=True)) == ["other_hardware"] * 2


# --- a few slow jobs ---


def lease_of(site, tenant, speed, at):
    """A lease that ran at that speed, done within a round."""
    job = a_job(tenant, now=later(at), value="900", samples=10**7)
    a_round(later(at + 5))
    lease = live_lease(job)
    Lease.objects.filter(pk=lease.pk).update(
        measured_samples_per_s=speed, progress_lines=10, fitted_lines=0, state="done",
        created_at=later(at + 5), ended_at=later(at + 6),
    )  # fmt: skip
    Job.objects.filter(pk=job.pk).update(state="succeeded", ended_at=later(at + 6))


@pytest.mark.parametrize("owner", ["birch", "clover"])
@pytest.mark.parametrize("many", [1, 2, 6])
def test_slow_jobs_of_one_tenant_neither_erase_nor_spoil_a_history(owner, many):
    site = a_site("north", gpus=64, speeds={"cnn": 1000.0})
    ann = a_tenant("ann", credits=10**6)
    mallory = a_tenant("mallory", member=a_member(owner), credits=10**6)
    at = 20
    for turn in range(12):
        lease_of(site, ann, 1000.0 * (1 + 0.01 * (turn % 3)), at)
        at += 12
    for _ in range(many):
        lease_of(site, mallory, 100.0, at)
        at += 12
        affinity_refit(now=later(at - 1))
    a_job(ann, now=later(at))
    claims_review(venue=a_venue(), now=later(at))
    assert not Forgotten.objects.exists()
    assert not open_claims(a_venue()).exists()
    assert book(at + 1)["cnn"] > 900.0
    assert MeasuredAffinity.objects.get().leases == 12 + many


def of(*parts):
    """Logarithms and witnesses of [(speed, owner, how many)]."""
    logs = [math.log(speed) for speed, _, many in parts for _ in range(many)]
    return logs, [Witness(owner) for _, owner, many in parts for _ in range(many)]


def test_one_owner_alone_shifts_nothing_however_often():
    assert shifted_from(*of((1000, "ann", 12), (100, "mallory", 20))) is None
    assert shifted_from(*of((1000, "ann", 12), (700, "ann", 20))) is None


def test_leases_at_the_old_speed_are_no_witnesses_of_the_new():
    assert shifted_from(*of((1000, "ann", 12), (100, "mallory", 4), (1000, "ann", 1))) is None


def test_a_spike_that_ends_takes_nothing_along():
    spike = of((1000, "ann", 12), (100, "mallory", 3), (1000, "bob", 4), (1000, "ann", 4))
    assert shifted_from(*spike) is None
    after = of((1000, "ann", 12), (100, "mallory", 3), (700, "bob", 4), (700, "ann", 4))
    assert shifted_from(*after) == 15


def test_a_probe_on_the_sites_account_speaks_for_more():
    logs, witnesses = of((1000, "ann", 12), (700, "ann", 3))
    assert shifted_from(logs, witnesses) is None
    assert shifted_from(logs, [*witnesses[:-1], Witness("ann", free=True)]) == 12
    assert shifted_from(logs, [*witnesses[:-1], Witness("bob", free=True)]) == 12
    # not where one owner's slow jobs, one of them lent to the probe, would undo another's
    logs, witnesses = of((1000, "ann", 12), (100, "mallory", 3))
    assert shifted_from(logs, [*witnesses[:-1], Witness("mallory", free=True)]) is None


def test_outliers_are_reined_in_and_nothing_else_is():
    logs = [0.0, 0.04, -0.03, 0.05, 0.01, -0.04, 0.02]
    assert reined_in(logs) == logs
    told = reined_in([*logs, -9.0])
    assert told[:-1] == logs
    assert -0.4 < told[-1] < -0.1


def test_the_pool_whose_one_tenant_is_everybody_follows_slowly():
    """Nobody else's measurements are at stake; the claim's probe, if any, settles it at once."""
    site = a_site("north", gpus=64, speeds={"cnn": 1000.0})
    ann = a_tenant("ann", credits=10**6)
    at = 20
    for speed in [1000.0] * 10 + [700.0] * 6:
        lease_of(site, ann, speed, at)
        at += 12
    affinity_refit(now=later(at))
    kept = MeasuredAffinity.objects.get(job_class=JobClass.objects.get(name="cnn"))
    assert kept.samples_per_s == pytest.approx(1000.0 * 0.7 ** (6 / 16), rel=1e-3)
    assert not Forgotten.objects.exists()
