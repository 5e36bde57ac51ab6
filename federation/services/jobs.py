"""Write side of jobs: submit, cancel, expire.

A bid is binding from the gate of a round to its publication: a job that waits cannot be cancelled
while a closed round holds its bid. The wish is written down and carried out with the round.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from economics.settlement import PPM
from federation.errors import BadInput, FieldProblem, Refused
from federation.machines.job import JobState
from federation.machines.lease import LIVE
from federation.machines.round import RoundState
from federation.models import (
    Contract,
    IdempotencyKey,
    Job,
    JobClass,
    Lease,
    Round,
    Rules,
    Tenant,
    Venue,
)
from federation.models.base import name_validator
from federation.money import MAX_MICRO, as_text, to_micro
from federation.selectors.accounts import funds_micro
from federation.selectors.rules import rules_newest
from federation.services.citing import plan_cited, quote_cited
from federation.services.leases import job_close, revoke_ask
from federation.services.ledger import earnest_hold, earnest_release
from federation.services.planning import Fitted, draft_fitted, wished_of
from federation.services.story import BROKER, move, tell
from federation.snapshot import holds_job

MAX_SAMPLES = 10**15
MAX_GANG = 100_000
MAX_SECONDS = 366 * 86400.0
DEFAULT_RUNTIME_S = 7 * 24 * 3600.0
DEFAULT_GRACE_S = 30.0
BINDING = (RoundState.CLOSED, RoundState.SOLVING, RoundState.CLEARED)
AFTER_GATE = "cancel_after_gate"


@dataclass(frozen=True, slots=True)
class JobDraft:
    """What a tenant asks for. Fields as in the API; checked by `job_submit`."""

    name: str
    job_class: str
    command: str
    samples: int
    value: Decimal  #: credits per million samples
    max_cost: Decimal
    gpus: Sequence[int] = ()  #: empty = the planner chooses, by `model`
    setup: str = ""
    gpu_kinds: Sequence[str] = ()
    deadline: datetime | None = None
    env: Mapping[str, str] | None = None
    preemptible: bool = True
    max_runtime_s: float | None = None
    grace_s: float | None = None
    sites_allow: Sequence[str] = ()
    sites_deny: Sequence[str] = ()
    pools: Sequence[str] = ()
    model: Mapping[str, Any] | None = None  #: what is trained, for the planner
    quote: UUID | None = None  #: that it cites

    def digest(self) -> str:
        """One request, one text: what an idempotency key is held against."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Submitted:
    job: Job
    created: bool  #: False: the same key and body came before, this is that job


def job_submit(
    *, tenant: Tenant, venue: Venue, draft: JobDraft, key: str | None, actor: str, now: datetime
) -> Submitted:
    """Put a job in the queue. A repeat with the same key and body returns the first one's job.

    Raises BadInput (nothing stored), Refused("idempotency_conflict") when the key was used with
    another body, Refused("no_funds") when the tenant has no funds at all, and
    Refused("insufficient_funds") when they do not cover the earnest money that the venue's rules
    ask for, a share of `max_cost` in escrow until the first contract. A draft that cites a quote is
    refused as `quote_cited` says, one with a model as `draft_fitted` says.
    """
    if key is not None and (earlier := _earlier(tenant, key, draft)):
        return Submitted(earlier, created=False)
    job_class = JobClass.objects.filter(name=draft.job_class).first()
    problems = _problems(draft, job_class, now)
    if problems or job_class is None:
        raise BadInput(*problems)
    if funds_micro(tenant, venue) <= 0:
        raise Refused(
            f"Tenant {tenant.name} has no free funds in {venue.currency}; ask an operator for a "
            "deposit.",
            code="no_funds",
        )
    chosen = plan_cited(tenant=tenant, draft=draft)
    fitted = draft_fitted(draft=draft, job_class=job_class, venue=venue, now=now, chosen=chosen)
    try:
        with transaction.atomic():
            job = _create(tenant, venue, job_class, draft, fitted, actor, now)
            _earnest(job, now)
            if key is not None:
                IdempotencyKey.objects.create(
                    tenant=tenant, key=key, body_sha256=draft.digest(), job=job, created_at=now
                )
    except IntegrityError:
        if key is not None and (earlier := _earlier(tenant, key, draft)):
            return Submitted(earlier, created=False)  # the same request won on another thread
        raise
    return Submitted(job, created=True)


def _earlier(tenant: Tenant, key: str, draft: JobDraft) -> Job | None:
    known = (
        IdempotencyKey.objects.select_related("job__job_class", "job__tenant")
        .filter(tenant=tenant, key=key)
        .first()
    )
    if known is None:
        return None
    if known.body_sha256 != draft.digest():
        raise Refused(
            "This Idempotency-Key was used with another body; use a new key for a new job.",
            code="idempotency_conflict",
        )
    return known.job


def _create(
    tenant: Tenant,
    venue: Venue,
    job_class: JobClass,
    draft: JobDraft,
    fitted: Fitted,
    actor: str,
    now: datetime,
) -> Job:
    job = Job.objects.create(
        tenant=tenant,
        venue=venue,
        name=draft.name,
        job_class=job_class,
        command=draft.command,
        setup=draft.setup,
        env=dict(draft.env or {}),
        gpus=sorted(set(fitted.draft.gpus)),
        gpu_kinds=list(draft.gpu_kinds),
        sites_allow=list(draft.sites_allow),
        sites_deny=list(draft.sites_deny),
        pools=list(fitted.draft.pools),
        model=None if draft.model is None else dict(draft.model),
        wished=None if draft.model is None else wished_of(draft),
        quote=draft.quote,
        quoted=quote_cited(tenant=tenant, draft=draft, now=now),
        samples=draft.samples,
        value_micro=to_micro(draft.value),
        max_cost_micro=to_micro(draft.max_cost),
        deadline=draft.deadline,
        preemptible=draft.preemptible,
        max_runtime_s=draft.max_runtime_s or DEFAULT_RUNTIME_S,
        grace_s=DEFAULT_GRACE_S if draft.grace_s is None else draft.grace_s,
        group=fitted.group(tenant, job_class),
        reason_code="queued",
        reason="Waits for the next round.",
        created_at=now,
        updated_at=now,
    )
    tell("job", job.pk, "submit", now=now, actor=actor, to_state=job.state, why=fitted.said)
    return job


def _earnest(job: Job, now: datetime) -> None:
    rules = rules_newest(job.venue)
    amount = job.max_cost_micro * rules.earnest_ppm // PPM if rules is not None else 0
    if amount:
        earnest_hold(job=job, amount_micro=amount, now=now)


def earnests_release(*, now: datetime, limit: int = 500) -> list[UUID]:
    """Give earnest money back to jobs that ended without a contract."""
    if not Rules.objects.filter(earnest_ppm__gt=0).exists():
        return []  # nobody ever held any
    ended = Job.objects.filter(earnest_micro__gt=0, ended_at__isnull=False)
    rows = ended.select_related("venue", "tenant").order_by("ended_at", "pk")[:limit]
    return [job.pk for job in rows if earnest_release(job=job, now=now)]


def _problems(draft: JobDraft, job_class: JobClass | None, now: datetime) -> list[FieldProblem]:
    problems = _name_problems(draft, job_class)
    if not draft.command.strip():
        problems.append(FieldProblem("command", "says what to run; it is empty"))
    sized = draft.gpus or draft.model is not None
    if not sized or not all(1 <= size <= MAX_GANG for size in draft.gpus):
        problems.append(FieldProblem("gpus", f"one or more sizes from 1 to {MAX_GANG}"))
    if not 1 <= draft.samples <= MAX_SAMPLES:
        problems.append(FieldProblem("samples", f"1 to {MAX_SAMPLES}"))
    if draft.deadline is not None and draft.deadline <= now:
        problems.append(FieldProblem("deadline", "lies in the past"))
    return problems + _amount_problems(draft) + _duration_problems(draft)


def _name_problems(draft: JobDraft, job_class: JobClass | None) -> list[FieldProblem]:
    problems = []
    try:
        name_validator(draft.name)
    except ValidationError as error:
        problems.append(FieldProblem("name", str(error.messages[0])))
    if job_class is None:
        why = f"{draft.job_class} is not a registered job class"
        problems.append(FieldProblem("job_class", why, "unknown_class"))
    return problems


def _amount_problems(draft: JobDraft) -> list[FieldProblem]:
    return [
        FieldProblem(path, f"more than 0 and at most {as_text(MAX_MICRO)} credits")
        for path, amount in (("value", draft.value), ("max_cost", draft.max_cost))
        if not amount.is_finite() or not 0 < to_micro(amount) <= MAX_MICRO
    ]


def _duration_problems(draft: JobDraft) -> list[FieldProblem]:
    return [
        FieldProblem(path, "seconds, at most a year")
        for path, seconds in (("max_runtime_s", draft.max_runtime_s), ("grace_s", draft.grace_s))
        if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS)
    ]


def job_cancel(*, job: Job, actor: str, now: datetime) -> Job:
    """Stop a job: at once when it waits, with grace when it runs. A repeat changes nothing.

    One that waits while a closed round holds its bid stays as it is, with the reason
    "cancel_after_gate", until that round is published (`binding_cancels`) or void. One that is
    awarded and has not started yet stops at once and pays the reserve price of its round, so that
    nothing is gained by waiting for the publication. Raises InvalidTransition when the job has
    ended by itself.
    """
    with transaction.atomic():
        if job.state == JobState.PENDING and _wait_for_round(job, actor, now):
            return job
        # leases before their job: the order in which a report locks them
        leases = list(
            Lease.objects.select_for_update().filter(job=job, state__in=sorted(LIVE)).order_by("id")
        )
        job.refresh_from_db()
        while job.state not in (JobState.CANCELLING, JobState.CANCELLED):
            if _cancel(job, actor, now):
                break
            job.refresh_from_db()  # another worker moved it on between the look and the write
        if job.state == JobState.CANCELLING:
            for lease in leases or Lease.objects.filter(job=job, state__in=sorted(LIVE)):
                revoke_ask(lease=lease, code="cancelled", why="The tenant asked.", now=now)
    for probe in Job.objects.filter(parent=job, ended_at__isnull=True):
        job_cancel(job=probe, actor=actor, now=now)  # what it would measure is not wanted any more
    job.refresh_from_db()
    return job


def _wait_for_round(job: Job, actor: str, now: datetime) -> bool:
    """Write the wish down if a closed round holds the job's bid; False = nothing holds it.

    The venue's lock keeps a gate from closing, and a round from being published, meanwhile.
    """
    Venue.objects.select_for_update().get(pk=job.venue_id)
    job.refresh_from_db()
    round = _binding_round(job)
    if job.state != JobState.PENDING or round is None:
        return False
    why = (
        f"Round {round.number} holds its bid and its gate is closed. It is cancelled when that "
        "round is published; what it is awarded by then costs the reserve price."
    )
    first = Job.objects.filter(pk=job.pk, cancel_asked_at__isnull=True).update(
        cancel_asked_at=now, reason_code=AFTER_GATE, reason=why, updated_at=now
    )
    if first:
        tell("job", job.pk, "cancel_ask", now=now, actor=actor, code=AFTER_GATE, why=why)
    job.refresh_from_db()
    return True


def _binding_round(job: Job) -> Round | None:
    """The closed, not yet published round whose book holds the job's bid."""
    rounds = Round.objects.filter(venue=job.venue_id, state__in=BINDING).defer("clearing")
    for round in rounds.select_related("snapshot"):
        if round.snapshot.body is not None and holds_job(round.snapshot.body, job.pk):
            return round
    return None


def binding_cancels(*, round: Round, now: datetime) -> list[UUID]:
    """Cancel the jobs whose tenants asked after the gate of a round that is published now.

    A job that it awarded gives the GPUs back before they start. Its contract is measured as if
    they had been held for the whole round, so the site gets its reserve price for them. Runs in
    the transaction that carried the awards out.
    """
    asked = Job.objects.filter(
        venue=round.venue_id,
        cancel_asked_at__isnull=False,
        state__in=[JobState.PENDING, JobState.RESERVED],
    ).select_related("venue")
    done = []
    for job in asked.order_by("pk"):
        if job.state == JobState.PENDING:
            _cancel(job, BROKER, now)
        else:
            _withdraw(job, round, now)
        done.append(job.pk)
    return done


def _withdraw(job: Job, round: Round, now: datetime) -> None:
    """Take an award back that no agent has seen; its contract costs the reserve price."""
    lease = Lease.objects.select_related("pool__site").get(job=job, state__in=sorted(LIVE))
    contract = Contract.objects.filter(lease=lease).latest("sequence")
    _cancel(job, BROKER, now)
    move(
        contract,
        "measure",
        now=now,
        code=AFTER_GATE,
        why="cancelled after the gate: the GPUs were kept for it",
        gpu_seconds=lease.gpus * job.venue.round_s,
    )
    why = (
        f"Cancelled after the gate of round {round.number}, which had awarded it {lease.gpus} GPU "
        f"at {lease.pool}: their reserve price for the round is paid."
    )
    revoke_ask(lease=lease, code="cancelled", why=why, now=now)
    Job.objects.filter(pk=job.pk).update(reason_code=AFTER_GATE, reason=why)


def cancels_carry_out(*, now: datetime) -> list[UUID]:
    """Cancel jobs whose tenants asked after a gate, once no round holds their bids: it was void."""
    asked = Job.objects.filter(state=JobState.PENDING, cancel_asked_at__isnull=False)
    done = []
    for job in asked.select_related("venue").order_by("pk"):
        with transaction.atomic():
            Venue.objects.select_for_update().get(pk=job.venue_id)
            job.refresh_from_db()
            if job.state == JobState.PENDING and _binding_round(job) is None:
                _cancel(job, BROKER, now)
                done.append(job.pk)
    return done


def _cancel(job: Job, actor: str, now: datetime) -> bool:
    pending = job.state == JobState.PENDING
    final: dict[str, Any] = {"ended_at": now} if pending else {}
    return move(
        job,
        "cancel",
        now=now,
        actor=actor,
        code="cancelled",
        why="The tenant asked.",
        reason_code="cancelled",
        reason="Stopped as the tenant asked." if pending else "The tenant asked to stop it.",
        updated_at=now,
        **final,
    )


def jobs_expire(*, now: datetime, limit: int = 500) -> list[UUID]:
    """End jobs whose deadline passed while they waited."""
    late = Job.objects.filter(state=JobState.PENDING, deadline__lte=now).order_by("deadline")
    why = "The deadline passed before a site was found."
    return [job.pk for job in late[:limit] if job_close(job, "expire", "deadline", why, now)]
