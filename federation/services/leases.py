"""Write side of leases: offer, ask back, end. Reads live in federation.selectors.leases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F

from federation.admission import LEAVING
from federation.errors import InvalidTransition, Refused
from federation.machines.job import JobState
from federation.machines.lease import LIVE, LeaseState
from federation.models import Job, Lease, Pool, Round, Site
from federation.selectors.plans_award import plan_of
from federation.services.endings import ENDINGS as ENDINGS
from federation.services.endings import Ending as Ending
from federation.services.refusals import refusal_judge
from federation.services.story import allows, move, tell

LEAST_LOG_BYTES = 64 * 1024
MAX_SITE_FAILURES = 5  #: attempts a job may lose to sites before it is given up

PROBE_LOST = "probe_lost"  #: a probe that its site or the network cut short: not the job's doing
#: of a probe that went well and told nothing
UNMEASURED = (
    "Ended without a measurement: its command never said how many samples it had trained. Call "
    "hanse.report in the training loop, as docs/howto/instrument-a-training-loop.md shows."
)
WORK_DONE = "work_done"  #: why a lease is asked back whose job has delivered and does not end


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """A fact for the caller: the lease is over, and where its job is now."""

    lease_id: UUID
    job_id: UUID
    job_state: str


def orders_changed(site_id: UUID) -> None:
    """Ring the bell of a site's long polls; takes effect with the caller's transaction."""
    Site.objects.filter(pk=site_id).update(orders_version=F("orders_version") + 1)


def lease_offer(
    *,
    job: Job,
    pool: Pool,
    gpus: int,
    round: Round | None,
    fence_s: float,
    predicted_samples_per_s: float | None,
    now: datetime,
) -> Lease | None:
    """Offer a lease on a pool to a pending job; None when the job is no longer pending.

    A job with a model gets its plan for these GPUs. Raises Refused("no_plan") when none fits.
    """
    plan = _plan(job, pool, gpus, predicted_samples_per_s)
    if job.state != JobState.PENDING or not move(
        job,
        "award",
        now=now,
        attempts=job.attempts + 1,
        updated_at=now,
        reason_code="awarded",
        reason=f"Awarded {gpus} GPU at {pool}.",
    ):
        return None
    lease = Lease.objects.create(
        job=job,
        attempt=job.attempts,
        round=round,
        site_id=pool.site_id,
        pool=pool,
        gpus=gpus,
        fence_s=fence_s,
        predicted_samples_per_s=predicted_samples_per_s,
        plan=plan,
        renewed_at=now,
        created_at=now,
    )
    tell("lease", lease.pk, "offer", now=now, to_state=lease.state, why=str(pool))
    orders_changed(pool.site_id)
    return lease


def _plan(job: Job, pool: Pool, gpus: int, samples_per_s: float | None) -> dict[str, Any] | None:
    """A probe measures on the size it is given, plan or none."""
    try:
        return plan_of(job=job, pool=pool.pk, gpus=gpus, samples_per_s=samples_per_s)
    except Refused:
        if job.kind == Job.Kind.PROBE:
            return None
        raise


def revoke_ask(*, lease: Lease, code: str, why: str, now: datetime) -> None:
    """Ask a lease back. It stays live until its agent confirms the stop, or until its fence.

    A lease that no reply has ever held is withdrawn on the spot.
    """
    withdrawn = Lease.objects.filter(
        pk=lease.pk, state=LeaseState.OFFERED, delivered_at__isnull=True
    ).update(revoke_asked_at=now, revoke_code=code, revoke_why=why[:300])
    if withdrawn:
        lease.refresh_from_db()
        lease_end(lease=lease, ending=Ending("never_started", message=why), now=now)
        return
    asked = Lease.objects.filter(
        pk=lease.pk, state__in=sorted(LIVE), revoke_asked_at__isnull=True
    ).update(revoke_asked_at=now, revoke_code=code, revoke_why=why[:300])
    if not asked:
        return
    tell("lease", lease.pk, "revoke_ask", now=now, code=code, why=why)
    job = Job.objects.get(pk=lease.job_id)
    if allows(job, "preempt"):
        move(job, "preempt", now=now, code=code, why=why, updated_at=now)
    orders_changed(lease.site_id)


def lease_end(
    *, lease: Lease, ending: Ending, now: datetime, actor: str = "broker"
) -> LeaseEnded | None:
    """End a live lease and move its job on. None when another worker ended it first.

    Runs inside the caller's transaction.
    """
    if lease.state not in LIVE:
        return None
    ending = refusal_judge(lease=lease, ending=ending, now=now)
    event, cause = ENDINGS[ending.reason]
    won = move(
        lease,
        event,
        now=now,
        actor=actor,
        code=ending.code or ending.reason,
        why=ending.message,
        ended_at=now,
        end_reason=ending.reason,
        end_message=ending.message[:1000],
        exit_code=ending.exit_code,
    )
    if not won:
        return None
    job = Job.objects.get(pk=lease.job_id)
    try:
        _job_after(job, lease, ending, cause, now)
    except InvalidTransition as error:  # the job went on without this lease: say so, move nothing
        tell("job", job.pk, "late_end", now=now, code=ending.reason, why=str(error))
    orders_changed(lease.site_id)
    return LeaseEnded(lease_id=lease.pk, job_id=job.pk, job_state=job.state)


def _job_after(job: Job, lease: Lease, ending: Ending, cause: str, now: datetime) -> None:
    """What a lease's end means for its job."""
    if job.kind == Job.Kind.PROBE:
        _probe_after(job, lease, ending, now)
    elif cause == "job" and ending.reason == "exited" and ending.exit_code == 0:
        job_close(job, "succeed", "exit_0", "The command ended with exit code 0.", now)
    elif job.state == JobState.CANCELLING:
        job_close(job, "release", "cancelled", "Stopped as the tenant asked.", now)
    elif lease.revoke_code == WORK_DONE:
        why = "It trained all its samples; it did not end by itself and was stopped."
        job_close(job, "succeed", WORK_DONE, why, now)
    elif cause == "job":
        job_close(job, "fail", *_failure(ending), now)
    else:
        _requeue(job, lease, ending, cause, now)


def _failure(ending: Ending) -> tuple[str, str]:
    if ending.reason == "runtime_limit":
        return "runtime_limit", "Stopped at its own runtime limit (max_runtime_s)."
    code = ending.exit_code if ending.exit_code is not None else "unknown"
    return f"exit_{code}", f"The command ended with exit code {code}. {ending.message}".strip()


def _probe_after(job: Job, lease: Lease, ending: Ending, now: datetime) -> None:
    """A probe has done its duty when a speed was measured, however it ended."""
    measured = lease.measured_samples_per_s is not None
    if measured or (ending.reason == "exited" and ending.exit_code == 0):
        speed = lease.measured_samples_per_s
        words = f"Measured {speed:.6g} samples/s." if speed else UNMEASURED
        job_close(job, "succeed", "probed", words, now)
    elif job.state == JobState.CANCELLING:
        job_close(job, "release", "cancelled", "Stopped as the tenant asked.", now)
    elif ENDINGS[ending.reason][1] == "job":
        job_close(job, "fail", *_failure(ending), now)
    else:
        why = ending.message or f"The attempt at {lease.site.name} is over."
        job_close(job, "fail", PROBE_LOST, why, now)


def job_close(job: Job, event: str, code: str, why: str, now: datetime) -> bool:
    """End a job, with a code for a machine and a sentence for its tenant."""
    return move(
        job,
        event,
        now=now,
        code=code,
        why=why,
        reason_code=code,
        reason=why[:1000],
        ended_at=now,
        updated_at=now,
    )


def _requeue(job: Job, lease: Lease, ending: Ending, cause: str, now: datetime) -> None:
    # who leaves, or declines by its rules, has not failed: that never brings a job to its end
    failures = job.site_failures + (cause == "site" and ending.code != LEAVING)
    if failures >= MAX_SITE_FAILURES:
        Job.objects.filter(pk=job.pk).update(site_failures=failures)
        why = f"Given up after {failures} attempts that sites could not keep. {ending.message}"
        job_close(job, "fail", "site_failures", why.strip(), now)
        return
    code = lease.revoke_code or ending.code or ending.reason
    why = lease.revoke_why or ending.message or f"The attempt at {lease.site.name} is over."
    move(
        job,
        "requeue",
        now=now,
        code=code,
        why=why,
        reason_code=code,
        reason=why[:1000],
        site_failures=failures,
        updated_at=now,
    )


def log_cap_bytes(lease: Lease) -> int:
    """What is left of the job's log cap for this attempt; a little always, for its last words."""
    return log_caps_bytes([lease])[lease.pk]


def log_caps_bytes(leases: Sequence[Lease]) -> dict[UUID, int]:
    """`log_cap_bytes` of each of some attempts, by its id."""
    rows = Lease.objects.filter(job__in={lease.job_id for lease in leases}).order_by()
    used: dict[UUID, dict[UUID, int]] = defaultdict(dict)
    for job_id, pk, size in rows.values_list("job_id", "pk", "log_bytes"):
        used[job_id][pk] = size
    cap = int(settings.LOG_CAP_BYTES)
    left = {
        lease.pk: cap - sum(size for pk, size in used[lease.job_id].items() if pk != lease.pk)
        for lease in leases
    }
    return {pk: max(min(LEAST_LOG_BYTES, cap), room) for pk, room in left.items()}
