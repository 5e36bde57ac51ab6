"""The main story, in the tests' own time: offer, bid, round, lease, reports, settlement."""

from __future__ import annotations

import pytest

from federation.models import Contract, Lease, MeasuredAffinity, Round
from federation.selectors.accounts import funds_micro, statement, trial_balance
from federation.services.affinity import affinity_refit
from federation.services.leases import Ending
from tests.support.world import (
    SimAgent,
    a_job,
    a_member,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db


def test_a_job_is_awarded_run_measured_and_paid():
    venue, tenant = a_venue(), a_tenant("ann")
    site = a_site("north", speeds={"cnn": 1000.0})
    job = a_job(tenant, samples=8_000)
    agent = SimAgent(site)

    a_round(later(10))
    lease = live_lease(job)
    reply = agent.sync(later(11))
    assert [w.lease.pk for w in reply.wanted] == [lease.pk]
    agent.sync(later(11.5))
    agent.report(lease, later(12), samples=0)
    agent.report(lease, later(16), samples=5_000, speed=900.0)
    agent.report(lease, later(19), samples=8_000, speed=900.0, ending=Ending("exited", 0))
    affinity_refit(now=later(20))
    pay(later(20))

    job.refresh_from_db()
    [contract] = Contract.objects.filter(lease=lease)
    [round] = Round.objects.filter(state="settled")
    assert (job.state, job.samples_done) == ("succeeded", 8_000)
    assert round.certified
    assert contract.paid_micro == contract.payment_micro > 0
    assert job.spent_micro == contract.paid_micro
    assert job.held_micro == 0
    assert funds_micro(tenant, venue) == 10_000_000_000 - contract.paid_micro
    assert statement(a_member("alder"), currency="cash").earned_micro == contract.paid_micro
    assert trial_balance().holds
    assert MeasuredAffinity.objects.get().samples_per_s == pytest.approx(900.0)
    assert Lease.objects.get().state == "done"
