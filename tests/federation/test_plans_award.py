"""From a submission with a model to a lease with a plan, and a plan that fits no more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from federation.errors import BadInput, Refused
from federation.machines.job import JobState
from federation.models import Assignment, Event, IdempotencyKey, Job, Lease, OfferPool, Pool
from federation.selectors.plans_award import plan_at
from federation.services.leases import Ending
from federation.services.placement import assignment_carry_out
from federation.services.publication import awards_carry_out
from tests.federation.planned_scene import LARGE, SMALL, WIDE, a_line, put_on_offer
from tests.federation.test_bulk_publication import a_cleared_round
from tests.support.world import (
    NOW,
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    later,
    live_lease,
)

pytestmark = pytest.mark.django_db


def a_planned_job(tenant=None, **changes: Any) -> Job:
    wanted = {
        "model": SMALL,
        "gpus": (),
        "samples": 10_000,
        "value": "90000",
        "max_cost": "900",
        **changes,
    }
    return a_job(tenant or a_tenant(), **wanted)


@pytest.fixture
def north():
    site = a_site("north", speeds={})
    put_on_offer(
        site,
        a_line("big", "A100-80", 16, reserve="2"),
        a_line("old", "T4", 16, reserve="0.3"),
        speeds={"big": 6.0, "old": 0.6},
    )
    return site


def one_by_one(round, now):
    for assignment in Assignment.objects.filter(round=round).order_by("job_id"):
        assignment_carry_out(assignment=assignment, now=now)


def all_at_once(round, now):
    awards_carry_out(round=round, now=now)


def story(job: Job, event: str) -> list[str]:
    rows = Event.objects.filter(subject="job", subject_id=str(job.pk), event=event)
    return list(rows.order_by("pk").values_list("why", flat=True))


def test_a_model_alone_gets_sizes_and_pools(north):
    job = a_planned_job()

    assert job.gpus
    assert job.pools == ["north.big", "north.old"]
    assert job.model == SMALL
    [why] = story(job, "submit")
    assert why.startswith("Planned for ")
    assert "north.big, north.old" in why


def test_jobs_that_the_planner_gave_the_same_are_one_group(north):
    tenant = a_tenant()

    first, second = a_planned_job(tenant), a_planned_job(tenant)
    other = a_job(tenant, gpus=first.gpus)

    assert first.group == second.group
    assert other.group != first.group


def test_own_sizes_that_do_not_fit_are_dropped_in_the_story(north):
    job = a_planned_job(gpus=(1, 8))

    assert (job.gpus, job.pools) == ([8], ["north.big", "north.old"])
    [why] = story(job, "submit")
    assert "Without 1 GPUs: the model does not fit so at every pool chosen." in why


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"model": LARGE, "gpus": (1,)}, Refused),
        ({"gpu_kinds": ("B200",)}, Refused),
        ({"model": {**SMALL, "layers": 0}}, BadInput),
        ({"model": None, "gpus": ()}, BadInput),
    ],
)
def test_what_nothing_can_hold_stores_nothing(north, changes, refusal):
    tenant = a_tenant()
    with pytest.raises(refusal):
        a_planned_job(tenant, key="k", **changes)
    assert not Job.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_a_repeat_with_its_key_is_the_first_ones_job_whatever_is_on_offer_by_then(north):
    tenant = a_tenant()
    first = a_planned_job(tenant, name="once", key="k")
    put_on_offer(north, a_line("big", "A100-80", 2), speeds={"big": 6.0})

    again = a_planned_job(tenant, name="once", key="k")

    assert again.pk == first.pk


def test_a_job_without_a_model_is_submitted_as_ever(north):
    job = a_job(a_tenant(), gpus=[3])

    assert (job.gpus, job.pools, job.model) == ([3], [], None)
    assert story(job, "submit") == [""]


@pytest.mark.parametrize("carry_out", [one_by_one, all_at_once])
def test_an_award_stores_the_plan_for_its_gpus(north, carry_out):
    job = a_planned_job()
    plain = a_job(a_tenant(), value="50000")
    round = a_cleared_round(10)

    with transaction.atomic():
        carry_out(round, later(10))

    lease, assignment = live_lease(job), Assignment.objects.get(job=job)
    assert lease.gpus in job.gpus
    assert str(lease.pool) in job.pools
    line = OfferPool.objects.select_related("pool__site").get(
        pool=lease.pool, offer__state="active"
    )
    assert lease.plan == plan_at(
        model=SMALL, pool=line, gpus=lease.gpus, samples_per_s=assignment.samples_per_s
    )
    assert lease.plan["samples_per_s"] == pytest.approx(lease.predicted_samples_per_s)
    assert live_lease(plain).plan is None


def test_a_round_without_models_asks_nothing_more(north):
    for _ in range(3):
        a_job(a_tenant(), gpus=[1], value="50000")
    round = a_cleared_round(10)

    with transaction.atomic(), CaptureQueriesContext(connection) as seen:
        all_at_once(round, later(10))

    assert Lease.objects.count() == 3
    assert not [query["sql"] for query in seen if '"device"' in query["sql"]]


def test_a_job_that_moves_gets_a_new_plan(north):
    job = a_planned_job()
    agent = SimAgent(north)
    a_round(later(10))
    agent.sync(later(11))
    first = live_lease(job)
    other = "old" if first.pool.name == "big" else "big"
    with transaction.atomic():
        round = a_cleared_round(20)
    moved = Assignment.objects.get(round=round, job=job)
    moved.pool = Pool.objects.get(site=north, name=other)
    moved.gpus = max(job.gpus)
    moved.save()
    round.state = "published"
    round.save()

    with transaction.atomic():
        assignment_carry_out(assignment=moved, now=later(20))
    agent.sync(later(21))
    agent.report(first, later(22), samples=10, ending=Ending("revoked"))

    second = live_lease(job)
    assert (second.attempt, second.pool.name, second.gpus) == (2, other, max(job.gpus))
    assert second.plan["gpus"] == second.gpus
    assert second.plan != first.plan
    first.refresh_from_db()
    assert first.plan["gpus"] == first.gpus


@pytest.mark.parametrize("carry_out", [one_by_one, all_at_once])
def test_a_pool_that_holds_it_no_more_is_left_and_the_story_says_so(north, carry_out):
    job = a_planned_job()
    round = a_cleared_round(10)
    awarded = Assignment.objects.get(job=job)
    name, pool = str(awarded.pool), awarded.pool.name
    kinds = {"big": "A100-80", "old": "T4"}
    small = {**WIDE, "memory_gb": 0.5}
    put_on_offer(
        north,
        *(
            a_line(own, kind, 16, device=small if own == pool else {})
            for own, kind in kinds.items()
        ),
        speeds={"big": 6.0, "old": 0.6},
    )

    with transaction.atomic():
        carry_out(round, later(10))

    before = job.group
    job.refresh_from_db()
    awarded.refresh_from_db()
    assert not Lease.objects.filter(job=job).exists()
    assert (job.state, awarded.status) == (JobState.PENDING, "dropped")
    assert name not in job.pools
    assert job.pools
    assert job.group != before
    [why] = story(job, "plan")
    assert why.startswith(
        f"It does not fit {name} any more: no plan on {name} fits in 92% of 0.5 GB"
    )
    assert job.outcome_code == "no_plan"
    a_round(later(20))
    a_round(later(30))
    assert str(live_lease(job).pool) in job.pools


def test_without_any_other_pool_it_is_rejected_and_told_why(north):
    job = a_planned_job(pools=("north.big",))
    round = a_cleared_round(10)
    put_on_offer(
        north, a_line("big", "A100-80", 16, device={"memory_gb": 0.5}), speeds={"big": 6.0}
    )

    with transaction.atomic():
        all_at_once(round, later(10))

    job.refresh_from_db()
    assert (job.state, job.reason_code) == (JobState.REJECTED, "no_plan")
    assert "the tightest part is optimizer states" in job.reason
    assert job.held_micro == 0


def test_a_pool_that_is_not_on_offer_at_the_moment_is_kept_for_the_next_round(north):
    job = a_planned_job(pools=("north.big",))
    round = a_cleared_round(10)
    gpus = Assignment.objects.get(job=job).gpus
    put_on_offer(north, a_line("big", "A100-80", gpus - 1), speeds={"big": 6.0})

    with transaction.atomic():
        all_at_once(round, later(10))

    job.refresh_from_db()
    assert (job.state, job.pools) == (JobState.PENDING, ["north.big"])
    assert job.outcome_code == "not_on_offer"
    assert not Lease.objects.filter(job=job).exists()


def test_a_probe_of_a_described_job_is_told_its_plan_too():
    site = a_site("north", speeds={})
    put_on_offer(site, a_line("big", "A100-80", 8), speeds={})
    job = a_planned_job()

    a_round(later(10))

    probe = Job.objects.get(parent=job)
    lease = live_lease(probe)
    assert probe.model == SMALL
    assert lease.plan["gpus"] == lease.gpus == min(job.gpus)


def test_a_deadline_in_the_past_comes_before_any_plan(north):
    with pytest.raises(BadInput) as caught:
        a_planned_job(deadline=NOW - timedelta(seconds=1))
    assert [problem.path for problem in caught.value.problems] == ["deadline"]


def spoiled(site, carry_out, round) -> None:
    """The site names GPUs that nobody knows, after the gate; then the round is carried out."""
    put_on_offer(site, a_line("big", "mystery-gpu", 16), speeds={"big": 6.0})
    with transaction.atomic():
        carry_out(round, later(10))


@pytest.mark.parametrize("carry_out", [one_by_one, all_at_once])
def test_a_job_is_planned_again_for_pools_that_came_after_it(north, carry_out):
    job = a_planned_job(gpu_kinds=("A100-80", "mystery-gpu", "H100"))
    assert job.pools == ["north.big"]
    assert job.wished == {"gpus": [], "pools": []}
    south = a_site("south", speeds={})
    put_on_offer(south, a_line("new", "H100", 16, reserve="2"), speeds={"new": 9.0})
    round = a_cleared_round(10)

    spoiled(north, carry_out, round)

    before = job.group
    job.refresh_from_db()
    assert (job.state, job.pools) == (JobState.PENDING, ["south.new"])
    assert job.group != before
    [why] = story(job, "plan")
    assert "Planned again for " in why
    a_round(later(20))  # it was open already when the job was planned again
    a_round(later(30))
    lease = live_lease(job)
    assert str(lease.pool) == "south.new"
    assert lease.gpus in job.gpus
    assert lease.plan["gpus"] == lease.gpus


def test_sizes_and_pools_that_the_tenant_named_stay_its_own_when_it_is_planned_again(north):
    south = a_site("south", speeds={})
    put_on_offer(south, a_line("new", "H100", 16, reserve="9"), speeds={"new": 6.0})
    job = a_planned_job(gpus=(8,), pools=("north.big", "north.old"))
    assert job.wished == {"gpus": [8], "pools": ["north.big", "north.old"]}
    round = a_cleared_round(10)

    spoiled(north, all_at_once, round)

    job.refresh_from_db()
    assert (job.state, job.reason_code) == (JobState.REJECTED, "no_plan")
    assert "Nor anywhere else: " in job.reason


def test_a_job_from_before_wishes_were_kept_has_what_was_chosen(north):
    south = a_site("south", speeds={})
    put_on_offer(south, a_line("new", "H100", 16, reserve="2"), speeds={"new": 9.0})
    job = a_planned_job(pools=("north.big",))
    Job.objects.filter(pk=job.pk).update(wished=None)
    round = a_cleared_round(10)

    spoiled(north, all_at_once, round)

    job.refresh_from_db()
    assert job.state == JobState.REJECTED


def test_of_many_jobs_no_more_are_planned_again_than_a_publication_has_time_for(north, monkeypatch):
    monkeypatch.setattr("federation.services.placement.MOST_AGAIN", 1)
    jobs = [a_planned_job(gpus=(8,), pools=("north.big",)) for _ in range(2)]
    round = a_cleared_round(10)
    assert Assignment.objects.filter(round=round).count() == 2

    spoiled(north, all_at_once, round)

    states = []
    for job in jobs:
        job.refresh_from_db()
        states.append(job.state)
    assert sorted(states) == [JobState.PENDING, JobState.REJECTED]
