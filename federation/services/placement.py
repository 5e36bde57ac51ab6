"""From assignments to leases: what a published round starts, prolongs, moves and stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from federation.errors import Refused
from federation.grouping import Traits, group_of
from federation.machines.job import JobState
from federation.machines.lease import LIVE
from federation.machines.round import RoundState
from federation.machines.site import SiteState
from federation.models import Assignment, Job, Lease, Round, Venue
from federation.selectors.plans import NO_PLAN
from federation.selectors.plans_award import NOT_NOW
from federation.selectors.plans_pools import gpus_on_offer
from federation.services.contracts import contract_open, end_expected, reserves_of
from federation.services.leases import job_close, lease_offer, orders_changed, revoke_ask
from federation.services.planning import planned_again
from federation.services.story import tell

Status = Assignment.Status
MOST_AGAIN = 20  #: jobs planned again at one moment; the others keep what is left of their choice


@dataclass(frozen=True, slots=True)
class AwardTerms:
    """What the contract of an award says."""

    contracted: int  #: samples
    payment_micro: int
    ends_at: datetime


def assignment_carry_out(*, assignment: Assignment, now: datetime) -> str:
    """Make one assignment real; returns its new status. Runs inside the caller's transaction."""
    job = Job.objects.select_related("venue", "tenant").get(pk=assignment.job_id)
    lease = Lease.objects.filter(job=job, state__in=sorted(LIVE)).first()
    if lease is None and job.state == JobState.PENDING:
        return _place(assignment, job, now)
    if lease is None:
        return _drop(assignment, f"the job is {job.state}")
    if lease.revoke_asked_at is not None:
        if job.state == JobState.CANCELLING:
            return _drop(assignment, "the job is being cancelled")
        return _set(assignment, Status.WAITING, "for the job's earlier attempt to stop")
    if lease.pool_id == assignment.pool_id and lease.gpus == assignment.gpus:
        return _prolong(assignment, lease, now)
    revoke_ask(
        lease=lease,
        code="moved",
        why=f"Moves to {assignment.gpus} GPU at {assignment.pool}.",
        now=now,
    )
    status = _set(assignment, Status.WAITING, "for the job to stop where it runs")
    waiting_place(job_id=job.pk, now=now)
    return status


def waiting_place(*, job_id: UUID, now: datetime) -> None:
    """Place a job that just stopped elsewhere, if the newest published round awarded it."""
    waiting = (
        Assignment.objects.filter(job_id=job_id, status=Status.WAITING)
        .select_related("round", "pool__site")
        .defer("round__clearing")
        .order_by("-round__number")
        .first()
    )
    if waiting is None or waiting.round.state != RoundState.PUBLISHED:
        return
    job = Job.objects.select_related("venue", "tenant").get(pk=job_id)
    if job.state == JobState.PENDING:
        _place(waiting, job, now)
    elif job.state not in (JobState.CHECKPOINTING, JobState.RECOVERING):
        _drop(waiting, f"the job is {job.state}")


def waiting_expire(*, round: Round) -> None:
    """A newer round has decided: what still waits for an older one is void."""
    Assignment.objects.filter(
        status=Status.WAITING, round__venue=round.venue, round__number__lt=round.number
    ).update(status=Status.DROPPED, note="a newer round decided")


def _place(assignment: Assignment, job: Job, now: datetime) -> str:
    pool = assignment.pool
    if pool.site.state != SiteState.ONLINE:
        return _drop(assignment, f"site {pool.site.name} is {pool.site.state}")
    if gpus_on_offer([pool.pk]).get(pool.pk, assignment.gpus) < assignment.gpus:
        why = f"{pool} has fewer GPUs on offer since the gate."
        Job.objects.filter(pk=job.pk).update(outcome_code=NOT_NOW, outcome_why=why)
        return _drop(assignment, why)
    try:
        with transaction.atomic():
            lease = lease_offer(
                job=job,
                pool=pool,
                gpus=assignment.gpus,
                round=assignment.round,
                fence_s=min(job.venue.fence_s, job.max_runtime_s),
                predicted_samples_per_s=assignment.samples_per_s,
                now=now,
            )
            if lease is None:
                return _drop(assignment, f"the job is {job.state}")
            _open(assignment, lease, job, now)
    except Refused as refusal:
        why = refusal.why[:1000]
        Job.objects.filter(pk=job.pk).update(outcome_code=refusal.code, outcome_why=why)
        if refusal.code == NO_PLAN:
            _without(assignment, job, why, now)
        return _drop(assignment, why)
    return _set(assignment, Status.PLACED, "")


def _without(assignment: Assignment, job: Job, why: str, now: datetime) -> None:
    """Its model does not fit where it was awarded, which has changed since: it is planned again.

    Left in its list the pool would be awarded to it, in vain, round after round. Where nothing that
    its tenant permits holds it now the job is rejected: it is submitted again when somebody can.
    """
    pool = str(assignment.pool)
    said = f"It does not fit {pool} any more: {why}"
    again = Job.objects.filter(venue=job.venue, updated_at=now, outcome_code=NO_PLAN)
    if again.count() >= MOST_AGAIN:
        _choose(job, job.gpus, [name for name in job.pools if name != pool] or job.pools, said, now)
        return
    try:
        planned = planned_again(job=job, now=now)
    except Refused as refused:
        job_close(job, "reject", NO_PLAN, f"{said} Nor anywhere else: {refused.why}"[:1000], now)
        return
    pools = list(planned.pools)
    if assignment.gpus in planned.gpus:
        pools = [name for name in pools if name != pool]
    if not pools:
        job_close(job, "reject", NO_PLAN, said, now)
        return
    sizes = ", ".join(map(str, planned.gpus))
    more = f"Planned again for {sizes} GPUs at {', '.join(pools)}."
    _choose(job, planned.gpus, pools, f"{said} {more}", now)


def _choose(job: Job, gpus: Sequence[int], pools: Sequence[str], said: str, now: datetime) -> None:
    """Other sizes and pools for a job that waits; its story says why."""
    traits = Traits(
        home=job.tenant.member_id,
        job_class=job.job_class_id,
        kind=job.kind,
        gpus=gpus,
        gpu_kinds=job.gpu_kinds,
        sites_allow=job.sites_allow,
        sites_deny=job.sites_deny,
        pools=pools,
    )
    Job.objects.filter(pk=job.pk).update(
        gpus=list(gpus), pools=list(pools), group=group_of(traits), updated_at=now
    )
    tell("job", job.pk, "plan", now=now, code=NO_PLAN, why=said)


def _prolong(assignment: Assignment, lease: Lease, now: datetime) -> str:
    job = Job.objects.select_related("venue").get(pk=lease.job_id)
    try:
        with transaction.atomic():
            _open(assignment, lease, job, now)
    except Refused as refusal:
        revoke_ask(lease=lease, code=refusal.code, why=refusal.why, now=now)
        return _drop(assignment, refusal.why)
    Lease.objects.filter(pk=lease.pk).update(predicted_samples_per_s=assignment.samples_per_s)
    orders_changed(lease.site_id)
    return _set(assignment, Status.PLACED, "prolonged")


def award_terms(assignment: Assignment, job: Job, venue: Venue, now: datetime) -> AwardTerms:
    """The contract of an award: for one round, or for all the work when not preemptible."""
    contracted, payment = assignment.samples, assignment.payment_micro
    if job.preemptible:
        return AwardTerms(contracted, payment, now + timedelta(seconds=venue.round_s))
    remaining = max(job.samples - job.samples_done, contracted)
    # its share of the tenant's funds as the book divided them among the tenant's jobs
    room = min(job.max_cost_micro - job.spent_micro - job.held_micro, assignment.budget_micro)
    full = -(-payment * remaining // max(contracted, 1))
    if full > room:  # sell what the tenant can pay; the rest is decided when it runs out
        remaining = max(contracted, remaining * room // full)
        full = max(payment, payment * remaining // max(contracted, 1))
    ends_at = end_expected(remaining, assignment.samples_per_s, venue, now)
    return AwardTerms(remaining, full, ends_at)


def _open(assignment: Assignment, lease: Lease, job: Job, now: datetime) -> None:
    terms = award_terms(assignment, job, job.venue, now)
    contract_open(
        lease=lease,
        round=assignment.round,
        price_micro=assignment.price_micro,
        contracted=terms.contracted,
        payment_micro=terms.payment_micro,
        ends_at=terms.ends_at,
        to_end=not job.preemptible,
        reserve_micro=reserves_of(assignment.round).get(assignment.pool_id, 0),
        now=now,
    )


def _set(assignment: Assignment, status: str, note: str) -> str:
    Assignment.objects.filter(pk=assignment.pk).update(status=status, note=note[:300])
    return status


def _drop(assignment: Assignment, note: str) -> str:
    return _set(assignment, Status.DROPPED, note)
