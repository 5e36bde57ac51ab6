"""A class that nobody has run gets a small paid probe before its first award."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.models import Contract, Job, MeasuredAffinity
from federation.selectors.accounts import trial_balance
from federation.services.affinity import affinity_refit
from federation.services.jobs import job_cancel
from federation.services.leases import Ending
from tests.support.world import (
    SimAgent,
    a_class,
    a_job,
    a_round,
    a_site,
    a_tenant,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def unknown(db):
    a_class("new")
    site = a_site("north", gpus=2, reserve="3600", speeds={"cnn": 1000.0})
    job = a_job(a_tenant("ann"), job_class="new", value="100000")
    a_round(later(20))
    return job, SimAgent(site)


def test_the_probe_runs_first_at_the_reserve_price_and_the_award_follows(unknown):
    job, agent = unknown
    [probe] = Job.objects.filter(kind="probe")
    assert probe.parent == job
    lease = live_lease(probe)
    contract = Contract.objects.get(lease=lease)
    assert (contract.price_micro, contract.basis) == (3_600_000_000, "gpu_ms")
    [wanted] = agent.sync(later(21)).wanted
    assert wanted.lease.job.kind == "probe"
    agent.sync(later(21))
    # two GPU-seconds of work at 3,600 credits per GPU-hour
    agent.report(lease, later(23), samples=2_000, speed=990.0, ending=Ending("runtime_limit"))
    affinity_refit(now=later(24))
    pay(later(24))
    probe.refresh_from_db()
    contract.refresh_from_db()
    job.refresh_from_db()
    assert (probe.state, probe.reason_code) == ("succeeded", "probed")
    assert contract.paid_micro == 2_000_000
    assert job.spent_micro == 2_000_000  # a probe is part of what its job may cost
    agent.sync(later(30))
    a_round(later(36))
    assert live_lease(job).predicted_samples_per_s == pytest.approx(990.0)
    assert trial_balance().holds


def test_a_class_whose_probes_fail_is_rejected_with_the_reason(unknown):
    job, agent = unknown
    now = 21.0
    for _ in range(2):
        agent.sync(later(now))
        agent.sync(later(now))
        lease = live_lease(Job.objects.get(kind="probe", ended_at=None))
        agent.report(lease, later(now + 1), samples=0, ending=Ending("exited", 127))
        now += 15
        agent.sync(later(now))
        a_round(later(now))
    a_round(later(now + 15))
    job.refresh_from_db()
    assert (job.state, job.reason_code) == ("rejected", "probe_failed")
    assert "exit code 127" in job.reason
    pay(later(now + 16))
    assert trial_balance().holds


def test_one_job_speaks_for_its_class(unknown):
    job, _ = unknown
    a_job(job.tenant, job_class="new", value="100000")
    a_round(later(31))
    assert Job.objects.filter(kind="probe").count() == 1


def test_the_probes_of_a_job_never_cost_more_than_its_max_cost():
    a_class("new")
    for name in ("n1", "n2", "n3"):
        a_site(name, gpus=2, reserve="3600", speeds={"cnn": 1000.0})
    # one probe may cost 35 GPU-seconds at a credit each
    job = a_job(a_tenant("ann"), job_class="new", value="100000", max_cost="36")
    a_round(later(20))
    job.refresh_from_db()
    assert Job.objects.filter(parent=job).count() == 1
    assert job.held_micro == 35_000_000
    pay(later(21))
    assert trial_balance().holds


def test_a_cancelled_job_takes_its_probes_with_it(unknown):
    job, agent = unknown
    agent.sync(later(21))
    probe = Job.objects.get(kind="probe")
    job_cancel(job=job, actor="test", now=later(22))
    probe.refresh_from_db()
    assert probe.state == "cancelling"
    agent.sync(later(22))
    agent.report(live_lease(probe), later(23), samples=0, ending=Ending("revoked"))
    pay(later(24))
    job.refresh_from_db()
    probe.refresh_from_db()
    assert (job.held_micro, probe.held_micro, probe.state) == (0, 0, "cancelled")
    assert trial_balance().holds


def test_a_job_that_cannot_be_probed_does_not_stop_its_class():
    a_class("new")
    a_site("north", gpus=2, reserve="3600", speeds={"cnn": 1000.0})
    tenant = a_tenant("ann")
    new = {"job_class": "new", "value": "100000"}
    poor = a_job(tenant, now=later(1), max_cost="0.01", **new)
    lost = a_job(tenant, now=later(2), pools=["nowhere.gpu"], **new)
    wide = a_job(tenant, now=later(3), gpus=[64], **new)
    good = a_job(tenant, now=later(4), **new)
    a_round(later(20))
    [probe] = Job.objects.filter(kind="probe")
    assert probe.parent == good
    codes = {}
    for job in (poor, lost, wide, good):
        job.refresh_from_db()
        codes[job.pk] = job.outcome_code
    assert list(codes.values()) == ["max_cost", "no_feasible_pool", "no_capacity", "probing"]


def test_a_size_that_nobody_has_run_gets_its_own_probe(unknown):
    job, agent = unknown
    agent.sync(later(21))
    agent.sync(later(21))
    probe = live_lease(Job.objects.get(kind="probe"))
    MeasuredAffinity.objects.create(
        pool=probe.pool,
        job_class=job.job_class,
        gpus=4,
        samples_per_s=4000.0,
        leases=1,
        updated_at=later(21),
    )
    agent.report(probe, later(23), samples=0, ending=Ending("revoked"))
    pair = a_job(job.tenant, job_class="new", value="100000", gpus=[2])
    agent.sync(later(30))
    a_round(later(36))
    assert Job.objects.filter(kind="probe", parent=pair, gpus=[2]).count() == 1


def test_a_probe_waits_for_free_gpus(unknown):
    job, agent = unknown
    site = agent.site
    firm = a_job(job.tenant, value="900000", gpus=[2], preemptible=False)
    live_lease(Job.objects.get(kind="probe"))
    agent.sync(later(21))
    agent.report(
        live_lease(Job.objects.get(kind="probe")), later(22), samples=0, ending=Ending("revoked")
    )
    Job.objects.filter(pk=job.pk).update(state="cancelled")
    agent.sync(later(30))
    a_round(later(36))
    assert live_lease(firm).site == site
    late = a_job(job.tenant, job_class="new", value="100000")
    a_round(later(47))
    late.refresh_from_db()
    assert late.outcome_code in ("no_capacity", "")
    assert not Job.objects.filter(parent=late).exists()


def test_a_probe_that_told_nothing_says_which_call_is_missing(unknown):
    _, agent = unknown
    [probe] = Job.objects.filter(kind="probe")
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(live_lease(probe), later(23), samples=0, ending=Ending("exited", 0))
    probe.refresh_from_db()
    assert (probe.state, probe.reason_code) == ("succeeded", "probed")
    assert "Call hanse.report in the training loop" in probe.reason
    [page] = re.findall(r"docs/\S+\.md", probe.reason)
    assert Path(page).is_file()
