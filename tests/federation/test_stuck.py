"""Nothing may stop the market, hold money or keep a job for ever."""

from __future__ import annotations

import pytest

from federation.errors import BadInput
from federation.models import Account, Contract, Job, Lease, Round
from federation.selectors.accounts import trial_balance
from federation.services import offers, rounds, syncs
from federation.services.contracts import _hold_over as hold_over
from federation.services.contracts import contracts_hold_over
from federation.services.leases import Ending
from tests.support.world import (
    GAP_S,
    SimAgent,
    a_class,
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


def test_an_absurd_job_does_not_stop_the_market():
    a_site("north", gpus=2, reserve="0")
    tenant = a_tenant("ann")
    a_job(tenant, samples=10**15, value="0.5", max_cost="1000000000", preemptible=False)
    honest = a_job(tenant)
    a_round(later(20))
    assert Round.objects.filter(state="published").count() == 1
    assert live_lease(honest)
    assert trial_balance().holds


def test_a_speed_near_zero_does_not_stop_settlement():
    job = a_job(a_tenant("ann"), preemptible=False)
    agent = SimAgent(a_site("north"))
    a_round(later(20))
    lease = live_lease(job)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(22), samples=10, speed=1e-12)
    Contract.objects.update(ends_at=later(23))
    contracts_hold_over(now=later(30))
    assert Contract.objects.get().ends_at > later(30)


def test_a_round_that_cannot_be_published_ends_void(monkeypatch):
    job = a_job(a_tenant("ann"))
    a_site("north")

    def broken(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(rounds, "awards_carry_out", broken)
    a_round(later(20))
    [round] = Round.objects.filter(state="void")
    assert round.void_code == "not_published"
    monkeypatch.undo()
    a_round(later(40))
    assert live_lease(job)
    assert trial_balance().holds


def test_an_end_that_is_never_told_is_decided_by_the_fence():
    job = a_job(a_tenant("ann"))
    agent = SimAgent(a_site("north"))
    a_round(later(20))
    lease = live_lease(job)
    agent.sync(later(21))
    agent.running[lease.pk] = "ended"  # its last report was refused, or lost with the disk
    for second in range(22, 100, 5):
        agent.sync(later(second))
    the_gateway_is_up(later(100))
    syncs.leases_fence(now=later(100), gap_s=GAP_S)
    lease.refresh_from_db()
    job.refresh_from_db()
    assert (lease.state, job.state) == ("fenced", "pending")
    pay(later(101))
    job.refresh_from_db()
    assert job.held_micro == 0
    assert list(agent.sync(later(102)).forget) == [lease.pk]


def test_a_lease_that_is_fetched_late_is_fenced_late():
    """The agent counts from the sync that brought it: the broker must not be earlier."""
    job = a_job(a_tenant("ann"))
    agent = SimAgent(a_site("north"))
    a_round(later(20))
    agent.sync(later(28))  # the lease is eight seconds old, the margin is five
    venue = a_venue()
    the_gateway_is_up(later(28 + venue.fence_s + 1))
    assert syncs.leases_fence(now=later(28 + venue.fence_s + 1), gap_s=GAP_S) == []
    assert live_lease(job)


def test_a_firm_job_larger_than_its_tenant_s_funds_buys_what_it_can():
    a_site("north", gpus=2, reserve="10")
    poor = a_tenant("poor", credits=10)
    firm = a_job(poor, gpus=[2], samples=10**12, max_cost="100000", preemptible=False)
    a_round(later(20))
    [contract] = Contract.objects.filter(lease=live_lease(firm))
    assert 0 < contract.payment_micro <= 10_000_000
    assert contract.contracted < 10**12


def test_quiet_contracts_give_their_escrow_back_once_the_agent_has_moved_on():
    tenant = a_tenant("ann")
    job = a_job(tenant, samples=10**7)
    agent = SimAgent(a_site("north"))
    now = 20.0
    a_round(later(now))
    lease = live_lease(job)
    most = 0
    for _ in range(6):
        agent.sync(later(now + 1))
        contract = Contract.objects.filter(lease=lease).order_by("-sequence")[0]
        seen = [syncs.AttemptSeen(lease.pk, "waiting", contract.pk, 0)]
        hello = syncs.Hello("0.1.0", agent.boot, 0.0)
        syncs.site_synced(site=agent.site, hello=hello, attempts=seen, now=later(now + 2))
        pay(later(now + 3))
        escrow = Account.objects.get(kind="tenant_escrow", tenant=tenant).balance_micro
        most = max(most, escrow // contract.payment_micro)
        now += 11
        a_round(later(now))
    assert most == 1
    assert trial_balance().holds


def test_a_pool_s_name_has_no_dot():
    site = a_site("ham", online=False)
    a_class("cnn")
    draft = offers.OfferDraft("d", [offers.PoolLine("dc1.gpu", "A", 1, "1")], [], None, None, "")
    with pytest.raises(BadInput, match="no dot"):
        offers.offer_submit(site=site, draft=draft, now=later(0))


def test_a_pool_that_lost_a_job_is_not_asked_again_while_another_can():
    a_site("cheap", reserve="1", speeds={"cnn": 1000.0})
    a_site("dear", reserve="50", speeds={"cnn": 1000.0})
    job = a_job(a_tenant("ann"))
    a_round(later(20))
    first = live_lease(job)
    agent = SimAgent(first.site)
    agent.sync(later(21))
    agent.report(first, later(22), samples=0, ending=Ending("driver_failed", message="no"))
    agent.sync(later(30))
    a_round(later(36))
    assert live_lease(job).site != first.site


def test_a_site_that_fell_silent_before_publication_gets_nothing_new():
    job = a_job(a_tenant("ann"))
    site = a_site("north")
    rounds.round_ensure_open(venue=a_venue(), now=later(0))
    rounds.rounds_close(now=later(20))
    the_gateway_is_up(later(40))
    syncs.sites_silence(now=later(40), gap_s=GAP_S)
    a_round(later(41))
    job.refresh_from_db()
    assert job.state == "pending"
    assert not Lease.objects.filter(site=site).exists()


def test_a_job_whose_money_is_spent_is_told_so_and_ends():
    job = a_job(a_tenant("ann"), max_cost="0.05")
    agent = SimAgent(a_site("north", reserve="10"))
    now = 20.0
    while not Job.objects.get(pk=job.pk).ended_at:
        a_round(later(now))
        lease = Lease.objects.filter(job=job, state__in=["offered", "active"]).first()
        if lease is not None:
            agent.sync(later(now + 1))
            agent.sync(later(now + 1))
            contract = lease.contracts.order_by("-sequence")[0]
            done = lease.samples + contract.contracted
            agent.report(lease, later(now + 5), samples=done, ending=Ending("revoked"))
        pay(later(now + 6))
        agent.sync(later(now + 7))
        now += 11
        assert now < 500
    job.refresh_from_db()
    assert (job.state, job.reason_code) == ("failed", "max_cost")
    assert job.spent_micro <= 50_000


def test_a_job_too_wide_for_every_pool_keeps_no_money_from_its_tenant_s_others():
    tenant = a_tenant("ann", credits=1)
    a_site("north", gpus=2, reserve="1")
    a_job(tenant, name="wide", gpus=[8], value="900")
    small = a_job(tenant, name="small", value="500")
    a_round(later(20))
    assert live_lease(small)


def test_a_contract_that_was_settled_meanwhile_is_not_prolonged():
    job = a_job(a_tenant("ann"))
    agent = SimAgent(a_site("north"))
    a_round(later(20))
    lease = live_lease(job)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(lease, later(22), samples=500)
    rows = Contract.objects.select_related("lease__job__venue", "lease__site__member", "round")
    seen_before = rows.get(lease=lease)  # as a slow worker still has it in hand
    agent.report(lease, later(25), samples=900, ending=Ending("exited", 0))
    pay(later(26))
    assert hold_over(seen_before, later(40)) is False
    job.refresh_from_db()
    assert job.held_micro == 0
    assert trial_balance().holds
