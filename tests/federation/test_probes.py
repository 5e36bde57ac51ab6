"""A class that nobody has run gets a small paid probe before its first award."""

from __future__ import annotations

import pytest

from federation.models import Contract, Job
from federation.selectors.accounts import trial_balance
from federation.services.affinity import affinity_refit
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
