"""A claim above what was measured is not planned on until a lease reaches it."""

from __future__ import annotations

import json

import pytest

from federation.affinity.belief import UNCONFIRMED
from federation.errors import NotFound
from federation.models import (
    Alarm,
    Contract,
    Job,
    JobClass,
    Lease,
    MeasuredAffinity,
)
from federation.selectors.accounts import trial_balance
from federation.selectors.affinity import believed_cells, current_offers
from federation.services.affinity import affinity_refit
from federation.services.guard import claim_check_request, claims_review, open_claims
from federation.services.leases import Ending
from federation.snapshot import book_build
from tests.support.world import (
    SimAgent,
    a_job,
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


def believed(now):
    [cell] = believed_cells(current_offers(a_venue(), now)).values()
    return cell


def measured(site, *, speed, leases, now=0.0, gpus=1):
    """What a cell's leases showed, as the refit writes it."""
    MeasuredAffinity.objects.update_or_create(
        pool=site.pools.get(),
        job_class=JobClass.objects.get(name="cnn"),
        gpus=gpus,
        defaults={
            "samples_per_s": speed,
            "log_sd": 0.03,
            "leases": leases,
            "updated_at": later(now),
        },
    )


def run_one(site, job, at, *, speed=1000.0, samples=5_000):
    """One round in which a job runs at a speed and ends by itself; paid, and fitted."""
    a_round(later(at))
    agent = SimAgent(site)
    agent.sync(later(at + 1))
    agent.sync(later(at + 1))
    lease = live_lease(job)
    ending = Ending("exited", 0)
    agent.report(lease, later(at + 5), samples=samples, speed=speed, ending=ending)
    affinity_refit(now=later(at + 6))
    pay(later(at + 6))
    return Lease.objects.get(pk=lease.pk)


@pytest.fixture
def north(db):
    return a_site("north", gpus=2, reserve="10", speeds={"cnn": 1000.0})


# claims


def test_a_raised_claim_is_not_planned_on_from_the_very_next_gate(north):
    run_one(north, a_job(a_tenant("ann")), 20)
    an_offer(north, gpus=2, speeds={"cnn": 2000.0}, now=later(30))
    [alarm] = claims_review(venue=a_venue(), now=later(31))
    assert (alarm.kind, alarm.about) == ("claim", "north.gpu cnn x1")
    assert alarm.figures["claimed"] == 2000.0
    cell = believed(later(32))
    assert cell.source == UNCONFIRMED
    assert cell.samples_per_s == pytest.approx(1000.0)
    book = json.loads(book_build(venue=a_venue(), now=later(32)).text)
    assert book["affinity"] == []  # nobody bids; with a bid:
    a_job(a_tenant("bob"), now=later(32))
    book = json.loads(book_build(venue=a_venue(), now=later(33)).text)
    assert [row["samples_per_s"] for row in book["affinity"]] == [pytest.approx(1000.0)]


def test_the_gate_itself_reviews_so_that_no_book_holds_such_a_claim(north):
    run_one(north, a_job(a_tenant("ann")), 20)
    an_offer(north, gpus=2, speeds={"cnn": 2000.0}, now=later(30))
    job = a_job(a_tenant("bob"), now=later(31), value="90000")
    a_round(later(40))
    assert live_lease(job).predicted_samples_per_s == pytest.approx(1000.0)


def test_a_review_is_idempotent_and_the_same_claim_raises_one_alarm(north):
    run_one(north, a_job(a_tenant("ann")), 20)
    an_offer(north, gpus=2, speeds={"cnn": 2000.0}, now=later(30))
    assert len(claims_review(venue=a_venue(), now=later(31))) == 1
    assert claims_review(venue=a_venue(), now=later(32)) == []
    assert Alarm.objects.count() == 1


def test_an_old_claim_is_doubted_only_once_several_leases_have_missed_it(north):
    measured(north, speed=500.0, leases=1)
    claims_review(venue=a_venue(), now=later(1))
    assert believed(later(1)).source == "blended"
    assert not Alarm.objects.exists()
    measured(north, speed=500.0, leases=6)
    claims_review(venue=a_venue(), now=later(2))
    assert believed(later(2)).source == UNCONFIRMED
    assert Alarm.objects.filter(kind="claim", closed_at=None).count() == 1


def test_a_claim_that_is_lowered_to_what_was_measured_is_planned_on_again(north):
    measured(north, speed=500.0, leases=6)
    claims_review(venue=a_venue(), now=later(1))
    an_offer(north, gpus=2, speeds={"cnn": 520.0}, now=later(2))
    claims_review(venue=a_venue(), now=later(3))
    assert Alarm.objects.get().closed_by == "broker"
    assert believed(later(4)).source == "blended"


def test_a_claim_that_is_withdrawn_closes_its_alarm(north):
    measured(north, speed=500.0, leases=6)
    claims_review(venue=a_venue(), now=later(1))
    an_offer(north, gpus=2, speeds={"lm": 520.0}, now=later(2))
    claims_review(venue=a_venue(), now=later(3))
    assert not open_claims(a_venue()).exists()


def test_a_probe_on_the_sites_own_account_confirms_a_claim(north):
    tenant = a_tenant("ann")
    run_one(north, a_job(tenant), 20)
    an_offer(north, gpus=2, speeds={"cnn": 2000.0}, now=later(30))
    poor = a_job(tenant, value="0.000001", now=later(31))  # it waits: the reserve is above its bid
    a_round(later(40))
    probe = Job.objects.get(kind="probe")
    assert (probe.parent, probe.command) == (None, poor.command)
    contract = Contract.objects.get(lease__job=probe)
    assert (contract.price_micro, contract.payment_micro) == (0, 0)
    agent = SimAgent(north, seqs={}, running={})
    agent.sync(later(41))
    agent.sync(later(41))
    agent.report(
        live_lease(probe), later(45), samples=9_000, speed=1950.0, ending=Ending("runtime_limit")
    )
    affinity_refit(now=later(46))
    alarm = Alarm.objects.get(kind="claim")
    assert alarm.closed_by == "measurement"
    cell = believed(later(47))
    # what was measured before the claim no longer counts
    assert (cell.leases, cell.measured) == (1, pytest.approx(1950.0))
    assert cell.samples_per_s > 1700
    pay(later(48))
    poor.refresh_from_db()
    assert (poor.spent_micro, poor.held_micro) == (0, 0)
    assert trial_balance().holds
    assert claims_review(venue=a_venue(), now=later(49)) == []


def test_a_lease_that_was_fitted_before_it_confirmed_the_claim_is_fitted_anew(north):
    tenant = a_tenant("ann")
    run_one(north, a_job(tenant), 20)
    an_offer(north, gpus=1, reserve="10", speeds={"cnn": 2000.0}, now=later(30))
    [alarm] = claims_review(venue=a_venue(), now=later(41))
    Alarm.objects.update(figures={**alarm.figures, "probe": "had one"})
    job = a_job(tenant, now=later(42), value="90000")
    a_round(later(60))
    agent = SimAgent(north)
    agent.sync(later(61))
    agent.sync(later(61))
    agent.report(live_lease(job), later(65), samples=9_000, speed=2050.0)
    # its report came in after the claims were looked at and before the cells were
    Lease.objects.filter(job=job).update(fitted_lines=5)
    affinity_refit(now=later(66))
    assert (believed(later(67)).leases, believed(later(67)).measured) == (1, pytest.approx(2050.0))


def test_a_probe_that_is_as_slow_as_before_confirms_nothing_and_is_not_repeated(north):
    tenant = a_tenant("ann")
    run_one(north, a_job(tenant), 20)
    an_offer(north, gpus=2, speeds={"cnn": 2000.0}, now=later(30))
    a_job(tenant, value="0.000001", now=later(31))
    a_round(later(40))
    agent = SimAgent(north)
    agent.sync(later(41))
    agent.sync(later(41))
    probe = live_lease(Job.objects.get(kind="probe"))
    agent.report(probe, later(45), samples=5_000, speed=1010.0, ending=Ending("runtime_limit"))
    affinity_refit(now=later(46))
    a_round(later(60))
    assert Job.objects.filter(kind="probe").count() == 1
    assert open_claims(a_venue()).exists()
    assert believed(later(61)).samples_per_s == pytest.approx(1005.0, rel=0.01)


def test_another_probe_comes_when_it_is_asked_for_and_when_the_claim_changes(north):
    tenant = a_tenant("ann")
    run_one(north, a_job(tenant), 20)
    an_offer(north, gpus=2, speeds={"cnn": 2000.0}, now=later(30))
    a_job(tenant, value="0.000001", now=later(31))
    a_round(later(40))
    pool, job_class = north.pools.get(), JobClass.objects.get(name="cnn")
    claim_check_request(pool=pool, job_class=job_class, actor="user:op", now=later(41))
    a_round(later(60))
    assert Job.objects.filter(kind="probe").count() == 2
    an_offer(north, gpus=8, speeds={"cnn": 1900.0}, now=later(61))
    a_round(later(80))
    assert Job.objects.filter(kind="probe").count() == 3


def test_nothing_can_be_checked_where_no_claim_waits(north):
    with pytest.raises(NotFound, match="No claim"):
        claim_check_request(
            pool=north.pools.get(),
            job_class=JobClass.objects.get(name="cnn"),
            actor="user:op",
            now=later(1),
        )


def test_a_claim_waits_without_a_job_that_could_lend_its_command(north):
    measured(north, speed=500.0, leases=6)
    a_job(a_tenant("ann"), pools=["nowhere.gpu"])
    a_round(later(20))
    assert open_claims(a_venue()).exists()
    assert not Job.objects.filter(kind="probe").exists()


def test_a_contract_that_reaches_the_claim_confirms_it_too(north):
    tenant = a_tenant("ann")
    run_one(north, a_job(tenant), 20)
    an_offer(north, gpus=1, reserve="10", speeds={"cnn": 2000.0}, now=later(30))
    claims_review(venue=a_venue(), now=later(31))
    Alarm.objects.update(figures={**Alarm.objects.get().figures, "probe": "had one"})
    run_one(north, a_job(tenant, now=later(32), value="90000"), 40, speed=2100.0)
    assert Alarm.objects.get(kind="claim").closed_by == "measurement"
    assert believed(later(60)).measured == pytest.approx(2100.0)
