"""Silence, fences and the broker's own outage: nothing lost, nothing run twice."""

from __future__ import annotations

import pytest

from federation.errors import Refused
from federation.machines.job import JobState
from federation.machines.lease import LIVE
from federation.models import Contract, Lease, Pulse
from federation.selectors.accounts import trial_balance
from federation.services import syncs
from federation.services.contracts import contracts_hold_over
from federation.services.jobs import job_cancel
from federation.services.leases import Ending
from tests.support.world import (
    GAP_S,
    HELLO,
    NOW,
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
    the_gateway_is_up,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(db):
    """A job that runs at the first of two sites; the gateway is up."""
    job = a_job(a_tenant("ann"), sites_allow=["north", "south"])
    north = a_site("north", speeds={"cnn": 2000.0})
    a_round(later(20))
    lease = live_lease(job)
    agent = SimAgent(north)
    agent.sync(later(21))
    agent.sync(later(22))
    agent.report(lease, later(23), samples=500)
    a_site("south", speeds={"cnn": 1000.0}, now=later(23))
    return job, lease, agent


def tick(now):
    syncs.sites_silence(now=now, gap_s=GAP_S)
    syncs.leases_fence(now=now, gap_s=GAP_S)


def states(job, lease):
    job.refresh_from_db()
    lease.refresh_from_db()
    return job.state, lease.state


def test_a_silent_site_loses_nothing(running):
    job, lease, _ = running
    the_gateway_is_up(later(40))
    tick(later(40))
    assert states(job, lease) == ("recovering", "silent")
    a_round(later(41))
    assert Lease.objects.filter(job=job).count() == 1  # placed nowhere else


def test_a_site_that_comes_back_in_time_goes_on_where_it_was(running):
    job, lease, agent = running
    the_gateway_is_up(later(40))
    tick(later(40))
    agent.sync(later(50))
    assert states(job, lease) == ("running", "active")
    agent.report(lease, later(51), samples=900)
    job.refresh_from_db()
    assert job.samples_done == 900


def test_past_the_fence_the_job_is_placed_elsewhere_and_the_late_report_moves_nothing(running):
    job, lease, agent = running
    venue = a_venue()
    fence = 22 + venue.fence_s + venue.fence_margin_s
    the_gateway_is_up(later(fence - 1))
    tick(later(fence - 1))
    assert states(job, lease) == ("recovering", "silent")
    late = agent.make_report(lease, samples=99_000, ending=Ending("exited", 0))
    the_gateway_is_up(later(fence + 1))
    tick(later(fence + 1))
    assert states(job, lease) == ("pending", "fenced")

    syncs.site_synced(site=a_site_named("south"), hello=HELLO, attempts=[], now=later(fence + 1))
    a_round(later(fence + 2))
    second = live_lease(job)
    assert (second.site.name, second.attempt) == ("south", 2)

    from federation.services.reports import reports_accept

    reports_accept(site=agent.site, reports=[late], now=later(fence + 3))
    assert states(job, lease) == ("reserved", "fenced")
    assert job.samples_done == 500
    assert lease.reports.filter(applied=False).count() == 1
    pay(later(fence + 4))
    [first] = Contract.objects.filter(lease=lease)
    assert (first.delivered, first.state) == (500, "settled")
    assert trial_balance().holds


def a_site_named(name):
    from federation.models import Site

    return Site.objects.get(name=name)


def test_an_attempt_that_was_given_up_is_stopped_when_its_agent_comes_back(running):
    job, lease, agent = running
    the_gateway_is_up(later(100))
    tick(later(100))
    assert states(job, lease)[1] == "fenced"
    reply = agent.sync(later(101))
    assert [(r.lease_id, r.code) for r in reply.revokes] == [(lease.pk, "superseded")]
    assert lease.pk not in [w.lease.pk for w in reply.wanted]


def test_while_the_broker_is_away_no_clock_runs_and_then_all_start_again(running):
    job, lease, agent = running
    renew = a_venue().renew_s
    the_gateway_is_up(later(23))
    back = later(23 + 10 * renew)  # ten renewal periods without a broker, past the fence too
    syncs.pulse(name=syncs.TICKS, now=back, gap_s=GAP_S)
    tick(back)  # the gateway is not up yet: nobody could have synced
    assert states(job, lease) == ("running", "active")
    syncs.pulse(name=syncs.GATEWAY, now=back, gap_s=GAP_S)
    tick(back)
    assert states(job, lease) == ("running", "active")
    assert Pulse.objects.get(name=syncs.GATEWAY).up_since == back
    agent.sync(later(23 + 10 * renew + 1))
    tick(later(23 + 10 * renew + 2))
    assert states(job, lease) == ("running", "active")
    assert Lease.objects.count() == 1


def test_the_time_of_the_outage_is_held_over_and_paid(running):
    _job, lease, _agent = running
    contracts_hold_over(now=later(60))
    [contract] = Contract.objects.filter(lease=lease)
    assert contract.extensions == 1
    assert contract.contracted > 20_000 * 0.9
    assert trial_balance().holds


def test_a_lease_that_no_reply_ever_held_is_withdrawn_at_once_when_the_site_falls_silent():
    job = a_job(a_tenant("ann"))
    a_site("north")
    a_round(later(10))
    lease = live_lease(job)
    the_gateway_is_up(later(40))
    tick(later(40))
    assert states(job, lease) == ("pending", "revoked")


def test_a_cancel_while_the_site_is_silent_waits_for_the_fence(running):
    job, lease, _ = running
    the_gateway_is_up(later(40))
    tick(later(40))
    job_cancel(job=job, actor="test", now=later(41))
    assert states(job, lease) == ("cancelling", "silent")
    the_gateway_is_up(later(100))
    tick(later(100))
    assert states(job, lease) == ("cancelled", "fenced")


def test_an_active_lease_that_its_agent_does_not_list_is_left_to_the_fence(running):
    job, lease, agent = running
    agent.running.clear()  # the journal was lost; the process may run on
    reply = agent.sync(later(30))
    assert reply.wanted == ()
    agent.sync(later(80))
    the_gateway_is_up(later(100))
    tick(later(100))
    assert states(job, lease) == ("pending", "fenced")


def test_a_clock_an_hour_wrong_at_the_agent_changes_nothing_but_what_is_shown(running):
    job, lease, agent = running
    for skew in (3600.0, -3600.0):
        hello = syncs.Hello("0.1.0", agent.boot, skew)
        seen = [syncs.AttemptSeen(lease.pk, "running", None, 1)]
        syncs.site_synced(site=agent.site, hello=hello, attempts=seen, now=later(24))
        agent.site.refresh_from_db()
        lease.refresh_from_db()
        assert agent.site.clock_skew_s == skew
        assert lease.renewed_at == later(24)
        assert states(job, lease) == ("running", "active")


class TestTwoAgentsWithOneCredential:
    def test_only_the_one_that_got_a_lease_ever_gets_it(self):
        job = a_job(a_tenant("ann"))
        site = a_site("north")
        first, second = SimAgent(site, boot="journal.2"), SimAgent(site, boot="other.1")
        first.sync(later(1))
        a_round(later(20))
        assert len(first.sync(later(21)).wanted) == 1
        assert second.sync(later(21)).wanted == ()  # it takes the site over, but not the lease
        with pytest.raises(Refused) as refusal:
            first.sync(later(22))
        assert refusal.value.code == "superseded_agent"
        the_gateway_is_up(later(100))
        second.sync(later(100))
        tick(later(100))
        lease = Lease.objects.get(job=job)
        assert lease.state == "fenced"

    def test_a_restart_of_the_same_journal_gets_its_lease_again(self):
        a_job(a_tenant("ann"))
        site = a_site("north")
        a_round(later(20))
        lost = SimAgent(site, boot="journal.2").sync(later(21))
        again = SimAgent(site, boot="journal.3").sync(later(22))
        assert [w.lease.pk for w in lost.wanted] == [w.lease.pk for w in again.wanted]
        with pytest.raises(Refused):
            SimAgent(site, boot="journal.2").sync(later(23))


def test_no_job_ever_has_two_live_leases(running):
    from django.db import transaction
    from django.db.utils import IntegrityError

    job, lease, _ = running
    with pytest.raises(IntegrityError), transaction.atomic():
        Lease.objects.create(
            job=job,
            attempt=9,
            site=lease.site,
            pool=lease.pool,
            gpus=1,
            fence_s=1,
            renewed_at=NOW,
            created_at=NOW,
        )
    assert Lease.objects.filter(job=job, state__in=sorted(LIVE)).count() == 1


def test_a_job_state_the_machine_does_not_know_is_refused_by_the_database(running):
    from django.db import transaction
    from django.db.utils import IntegrityError

    from federation.models import Job

    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.update(state="dreaming")
    assert JobState.RUNNING
