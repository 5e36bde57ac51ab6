"""A site's own rules at the broker: refused leases, what the market learns, what it may cost."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from federation.admission import LESSONS, Published, Scope
from federation.decision import decide
from federation.errors import BadInput
from federation.models import Assignment, Contract, Job, Lease, Offer, Round, Site, SiteRefusal
from federation.selectors.admission import refusals_at, staying
from federation.selectors.jobs import job_why
from federation.selectors.records import non_starts, recent_starts
from federation.selectors.replay import replay
from federation.services import offers, rounds
from federation.services.contracts import contracts_hold_over
from federation.services.leases import MAX_SITE_FAILURES, Ending
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
    later,
    live_lease,
    pay,
)

BIRCH_RULES = Published("rules-1")
SECRET = "this site takes no jobs of ann"


def offer(
    site: Site,
    *,
    gpus: int = 4,
    rules: Published | None = BIRCH_RULES,
    speed: float = 1000.0,
    now=NOW,
) -> Offer:
    """Put a new version on the market, with the site's rules."""
    draft = offers.OfferDraft(
        digest=uuid.uuid4().hex,
        pools=[offers.PoolLine("gpu", "A100", gpus, "10")],
        affinities=[offers.AffinityLine("gpu", "cnn", 1, speed, "declared")],
        valid_from=None,
        valid_until=None,
        note="",
        rules=rules,
    )
    return offers.offer_submit(site=site, draft=draft, now=now)


@pytest.fixture
def fast(db):
    site = a_site("fast", speeds={"cnn": 2000.0})
    offer(site, speed=2000.0)
    return site


@pytest.fixture
def slow(db):
    return a_site("slow", speeds={"cnn": 1000.0}, member=a_member("clover"))


def declined(job: Job, code: str, at: float, why: str = SECRET) -> Lease:
    """The site that was awarded the job fetches its lease and declines it."""
    lease = live_lease(job)
    agent = SimAgent(lease.site, running={})
    agent.sync(later(at))
    agent.report(lease, later(at), ending=Ending("declined", message=why, code=code))
    lease.refresh_from_db()
    job.refresh_from_db()
    return lease


def site_of(job: Job) -> str:
    return live_lease(job).site.name


def test_a_refused_tenant_is_not_awarded_there_again_until_the_rules_change(fast, slow):
    ann, bob = a_tenant("ann"), a_tenant("bob")
    first = a_job(ann, samples=10**7)
    a_round(later(10))
    assert site_of(first) == "fast"

    declined(first, "tenant_not_admitted", 11)
    assert (first.state, first.reason_code, first.reason) == (
        "pending",
        "tenant_not_admitted",
        SECRET,
    )
    assert first.site_failures == 0
    second, other = a_job(ann, samples=10**7), a_job(bob, samples=10**7)
    a_round(later(20))
    assert (site_of(first), site_of(second), site_of(other)) == ("slow", "slow", "fast")

    offer(fast, gpus=3, speed=2000.0, now=later(25))  # other GPUs, the same rules
    third = a_job(ann, samples=10**7)
    a_round(later(30))
    assert site_of(third) == "slow"

    offer(fast, rules=Published("rules-2"), speed=2000.0, now=later(35))
    fourth = a_job(ann, samples=10**7, sites_allow=["fast"])
    a_round(later(40))
    assert site_of(fourth) == "fast"
    assert replay().holds


def test_it_is_asked_again_when_the_time_is_over(fast):
    ann = a_tenant("ann")
    first = a_job(ann)
    a_round(later(10))
    declined(first, "class_not_admitted", 11)
    holds = LESSONS["class_not_admitted"].holds.total_seconds()
    a_round(later(holds))
    first.refresh_from_db()
    assert (first.state, first.outcome_code) == ("pending", "not_admitted")
    assert "fast.gpu (class_not_admitted)" in first.outcome_why
    a_round(later(holds + 12))
    assert site_of(first) == "fast"


@pytest.mark.parametrize("code", sorted(LESSONS))
def test_what_is_learnt_holds_for_the_tenant_the_class_or_the_job(fast, code):
    a_class("lm")
    ann, bob = a_tenant("ann"), a_tenant("bob")
    job = a_job(ann)
    a_round(later(10))
    declined(job, code, 11)
    refusal = SiteRefusal.objects.get()
    scope = LESSONS[code].scope
    assert (refusal.tenant_id, refusal.job_class_id, refusal.job_id) == (
        ann.pk if scope is Scope.TENANT else None,
        job.job_class_id if scope is Scope.CLASS else None,
        job.pk if scope is Scope.JOB else None,
    )
    assert [row.code for row in refusals_at(fast.pk)] == [code]
    same, others = a_job(ann), a_job(bob)
    a_round(later(20))
    placed = {
        job.pk: Lease.objects.filter(job=job, state="offered").exists()
        for job in (job, same, others)
    }
    assert placed == {
        job.pk: False,
        same.pk: scope is Scope.JOB,
        others.pk: scope is not Scope.CLASS,
    }


def test_a_passing_reason_is_over_with_the_next_offer(fast):
    job = a_job(a_tenant("ann"))
    a_round(later(10))
    declined(job, "draining", 11)
    offer(fast, speed=2000.0, now=later(15))
    a_round(later(20))
    assert site_of(job) == "fast"


def bond_of(lease: Lease, at: float) -> Contract:
    pay(later(at))
    return Contract.objects.get(lease=lease)


def test_a_rule_that_nobody_could_know_costs_what_a_lease_costs_that_never_started(fast):
    job = a_job(a_tenant("ann"))
    a_round(later(10))
    lease = declined(job, "tenant_not_admitted", 11)
    assert (lease.state, lease.end_reason) == ("declined", "vetoed_unannounced")
    contract = bond_of(lease, 12)
    assert (contract.cause, contract.paid_micro) == ("site", 0)
    assert contract.penalty_micro == contract.bond_micro > 0
    assert not SiteRefusal.objects.get().announced
    assert replay().holds


@pytest.mark.parametrize("late_s", [1, 3000])
def test_a_rule_that_was_published_is_free(fast, late_s):
    """Published between the gate and the award: the site could not know what it would get."""
    ann = a_tenant("ann")
    job = a_job(ann, max_runtime_s=7200.0)
    a_round(later(10))
    lease = live_lease(job)
    made = Offer.objects.filter(site=fast, state="active")
    made.update(rules=replace(BIRCH_RULES, max_runtime_s=3600.0).document())

    lease = declined(job, "walltime_too_long", 10 + late_s)

    assert (lease.state, lease.end_reason) == ("declined", "vetoed")
    contract = bond_of(lease, 11 + late_s)
    assert (contract.penalty_micro, contract.paid_micro) == (0, 0)
    assert contract.refunded_micro == contract.payment_micro
    job.refresh_from_db()
    assert (job.held_micro, job.spent_micro, job.site_failures) == (0, 0, 0)
    assert SiteRefusal.objects.get().announced
    assert replay().holds


def test_a_smaller_offer_before_the_award_announces_a_drain_one_after_it_does_not(fast):
    ann = a_tenant("ann")
    before, after = a_job(ann), a_job(ann)
    a_round(later(10))
    offer(fast, gpus=0, now=later(5))
    lease = declined(before, "draining", 11)
    assert lease.end_reason == "vetoed"
    Offer.objects.filter(site=fast, state="active").update(created_at=later(10.5))
    lease = declined(after, "draining", 11)
    assert lease.end_reason == "vetoed_unannounced"


def test_a_site_that_has_closed_since_the_gate_is_awarded_nothing(fast, slow):
    job = a_job(a_tenant("ann"), samples=10**7)
    venue = a_venue()
    rounds.round_ensure_open(venue=venue, now=later(0))
    rounds.rounds_close(now=later(10))
    [round_id] = rounds.rounds_due(now=later(10))
    claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=later(10))
    decision = decide(claim.book)
    assert rounds.round_record(claim=claim, decision=decision, solve_s=0.1, now=later(10))
    offer(fast, gpus=0, now=later(10))
    rounds.rounds_publish(now=later(11))
    award = Assignment.objects.get(job=job)
    assert (award.status, award.note) == (
        "dropped",
        "fast.gpu has fewer GPUs on offer since the gate.",
    )
    assert not Lease.objects.exists()
    a_round(later(20))
    assert site_of(job) == "slow"
    assert replay().holds


def test_a_refusal_is_no_failure_of_the_job_nor_of_the_sites_record(fast, slow):
    job = a_job(a_tenant("ann"), sites_allow=["fast"])
    for n in range(MAX_SITE_FAILURES + 1):
        at = 20.0 * (n + 1)
        a_round(later(at))
        declined(job, "too_many_gpus", at + 1)
        offer(fast, rules=Published(f"rules-{n + 2}"), now=later(at + 2))
    assert (job.state, job.site_failures, job.attempts) == ("pending", 0, MAX_SITE_FAILURES + 1)
    assert non_starts(fast) == 0
    assert all(starts.non_starts == 0 for starts in recent_starts(fast, NOW).values())


@pytest.mark.parametrize("code", ["", "busy", "because"])
def test_any_other_word_is_a_lease_that_the_site_could_not_keep(fast, code):
    job = a_job(a_tenant("ann"))
    a_round(later(10))
    lease = declined(job, code, 11)
    assert (lease.end_reason, job.site_failures) == ("declined", 1)
    assert not SiteRefusal.objects.exists()
    assert non_starts(fast) == 1


def test_a_site_that_leaves_pays_for_it_and_the_job_is_not_blamed(fast, slow):
    job = a_job(a_tenant("ann"), samples=10**7)
    a_round(later(10))
    lease = live_lease(job)
    agent = SimAgent(fast, running={})
    agent.sync(later(11))
    agent.report(lease, later(12), samples=2000)
    offer(fast, gpus=0, now=later(13))
    ending = Ending("driver_failed", message="the site leaves", code="leaving")
    agent.report(lease, later(14), ending=ending)
    job.refresh_from_db()
    assert (job.state, job.reason_code, job.site_failures) == ("pending", "leaving", 0)
    assert job.samples_done == 2000
    a_round(later(20))
    assert site_of(job) == "slow"
    pay(later(21))
    first = Contract.objects.get(lease=lease)
    assert (first.cause, first.accepted) == ("site", 2000)
    assert 0 < first.penalty_micro <= first.bond_micro


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ({"tenants_deny": ("an*",)}, "tenant_not_admitted"),
        ({"tenants_allow": ("bob",)}, "tenant_not_admitted"),
        ({"classes_deny": ("cn?", "cnn")}, "class_not_admitted"),
        ({"max_runtime_s": 3599.0}, "walltime_too_long"),
        ({"max_gpus": 1}, "too_many_gpus"),
    ],
)
def test_what_a_site_has_published_is_not_awarded_there(fast, rules, code):
    ann = a_tenant("ann")
    offer(fast, rules=Published("p", **rules), speed=2000.0)
    fields = {"gpus": [2], "max_runtime_s": 3600.0}
    here = a_job(ann, sites_allow=["fast"], **fields)
    a_round(later(10))
    here.refresh_from_db()
    assert (here.state, here.outcome_code) == ("pending", "not_admitted")
    assert here.outcome_why.endswith(f"fast.gpu ({code}).")
    offer(fast, rules=Published("q"), speed=2000.0, now=later(15))
    a_round(later(20))
    assert site_of(here) == "fast"


def test_jobs_alike_but_for_tenant_and_length_are_told_apart(fast, slow):
    rules = Published("p", tenants_deny=("ann",), max_runtime_s=3600.0)
    offer(fast, rules=rules, speed=2000.0)
    ann, bob = a_tenant("ann"), a_tenant("bob")
    jobs = {
        "ann short": a_job(ann, max_runtime_s=60.0),
        "bob short": a_job(bob, max_runtime_s=60.0),
        "bob long": a_job(bob, max_runtime_s=7200.0),
        "bob as long as it may be": a_job(bob, max_runtime_s=3600.0),
    }
    assert len({job.group for job in jobs.values()}) == 1
    a_round(later(10))
    assert {name: site_of(job) for name, job in jobs.items()} == {
        "ann short": "slow",
        "bob short": "fast",
        "bob long": "slow",
        "bob as long as it may be": "fast",
    }


def test_a_job_of_several_sizes_gets_one_that_the_site_gives(fast):
    offer(fast, rules=Published("p", max_gpus=2), speed=2000.0, gpus=4)
    job = a_job(a_tenant("ann"), gpus=[1, 2, 4], samples=10**8, max_cost="10000")
    a_round(later(10))
    assert live_lease(job).gpus == 2


def runs(job: Job, at: float) -> SimAgent:
    lease = live_lease(job)
    agent = SimAgent(lease.site, running={})
    agent.sync(later(at))
    agent.report(lease, later(at), samples=100, speed=2000.0)
    return agent


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": 0},
        {"gpus": 1},
        {"rules": Published("p", tenants_deny=("ann",))},
        {"gpus": 0, "rules": Published("p", tenants_deny=("ann",))},
    ],
)
def test_a_shrinking_offer_and_new_rules_stop_nothing_that_runs(fast, change):
    ann = a_tenant("ann")
    kept = [a_job(ann, samples=10**8, max_cost="5000") for _ in range(2)]
    a_round(later(10))
    agent = runs(kept[0], 11)
    agent.report(live_lease(kept[1]), later(11), samples=100, speed=2000.0)
    offer(fast, **{"gpus": 2, "speed": 2000.0, **change}, now=later(12))
    assert staying(a_venue(), later(13)) == {str(job.pk) for job in kept}
    rich = a_job(a_tenant("eve"), value="50000", max_cost="100000", samples=10**8)

    for at in (20, 30, 40):
        a_round(later(at))
        agent.sync(later(at + 1))
        contracts_hold_over(now=later(at + 8))

    assert {live_lease(job).state for job in kept} == {"active"}
    assert not Lease.objects.filter(revoke_asked_at__isnull=False).exists()
    assert Job.objects.get(pk=rich.pk).state == "pending"
    extended = Contract.objects.filter(lease__job__in=kept, extensions__gt=0)
    assert extended.count() == 2

    offer(fast, gpus=2, speed=2000.0, now=later(42))  # open again: the market decides
    assert staying(a_venue(), later(43)) == frozenset()
    a_round(later(50))
    assert Lease.objects.filter(revoke_code="outbid").count() == 1


def test_a_probe_that_waits_for_gpus_is_no_shrinking_offer(fast):
    """It is placed beside what the next round may take back, so somebody must bid for less."""
    a_class("new")
    ann = a_tenant("ann")
    kept = [a_job(ann, samples=10**8, max_cost="5000") for _ in range(4)]
    a_round(later(10))
    agent = runs(kept[0], 11)
    for job in kept[1:]:
        agent.report(live_lease(job), later(11), samples=100, speed=2000.0)
    a_job(a_tenant("eve"), job_class="new", samples=10**8, value="50000", max_cost="100000")
    a_round(later(20))
    assert Job.objects.filter(kind="probe").count() == 1
    assert staying(a_venue(), later(21)) == frozenset()
    a_round(later(30))
    assert Lease.objects.filter(revoke_code="outbid").count() == 1


def test_when_what_runs_fits_again_it_bids_again(fast):
    ann = a_tenant("ann")
    first, second = (a_job(ann, samples=10**8, max_cost="5000") for _ in range(2))
    a_round(later(10))
    agent = runs(first, 11)
    agent.report(live_lease(second), later(11), samples=100, speed=2000.0)
    offer(fast, gpus=1, speed=2000.0, now=later(12))
    agent.report(live_lease(first), later(13), ending=Ending("exited", 0))
    assert staying(a_venue(), later(14)) == frozenset()
    a_round(later(20))
    lease = live_lease(second)
    assert Contract.objects.filter(lease=lease).count() == 2  # awarded anew where it runs


def test_a_refused_probe_is_not_sent_again_and_another_site_measures(fast, slow):
    a_class("new")
    for site in (fast, slow):
        offer(site, rules=Published("p"))
    job = a_job(a_tenant("ann"), job_class="new")
    venue = a_venue()
    venue.probe_pools = 1
    venue.save()
    a_round(later(10))
    [probe] = Job.objects.filter(kind="probe")
    refused = declined(probe, "kept_for_local_users", 11).site.name
    assert SiteRefusal.objects.get().job_id == job.pk
    a_round(later(20))
    second = Job.objects.filter(kind="probe").exclude(pk=probe.pk).get()
    assert site_of(second) == ({"fast", "slow"} - {refused}).pop()


def test_the_tenant_reads_who_refused_it_and_until_when(fast):
    ann = a_tenant("ann")
    job, other = a_job(ann), a_job(a_tenant("bob"))
    a_round(later(10))
    declined(job, "tenant_not_admitted", 11)
    [row] = job_why(job, later(12))["refusals"]
    until = later(11) + LESSONS["tenant_not_admitted"].holds
    assert row == {
        "site": "fast",
        "code": "tenant_not_admitted",
        "why": SECRET,
        "until": until,
    }
    assert job_why(other, later(12))["refusals"] == []
    story = job_why(job, later(12))["story"]
    assert ("requeue", "tenant_not_admitted", SECRET) in {
        (line["event"], line["code"], line["why"]) for line in story
    }


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        (Published(""), "policy.digest"),
        (Published("x" * 65), "policy.digest"),
        (Published("x", tenants_deny=("y" * 65,)), "policy.tenants_deny"),
        (Published("x", classes_allow=("y",) * 1001), "policy.classes_allow"),
        (Published("x", max_gpus=0), "policy.max_gpus"),
        (Published("x", max_runtime_s=0.0), "policy.max_runtime_s"),
        (Published("x", time_zone="y" * 65), "policy.time_zone"),
    ],
)
def test_rules_that_make_no_sense_are_named(fast, rules, path):
    with pytest.raises(BadInput) as caught:
        offer(fast, rules=rules, now=later(1))
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_federation_without_rules_looks_nothing_up(fast, slow, django_assert_max_num_queries):
    Offer.objects.update(rules={})
    a_job(a_tenant("ann"))
    venue = a_venue()
    with django_assert_max_num_queries(4):
        assert staying(venue, later(5)) == frozenset()
    a_round(later(10))
    assert Round.objects.filter(state="published").count() == 1
