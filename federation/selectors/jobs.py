"""Reads of one job: why it is where it is, and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from federation.machines.lease import LIVE
from federation.models import Assignment, Event, Job, Lease, LogChunk
from federation.money import as_text
from federation.selectors.admission import refusals_of_job

ROUNDS_SHOWN = 20
STORY_SHOWN = 200


@dataclass(frozen=True, slots=True)
class LogPage:
    """Bytes of an attempt's log from an offset on."""

    data: bytes
    attempt: int | None
    attempts: int
    next_offset: int
    complete: bool  #: nothing will follow
    truncated: bool  #: the cap was reached


def job_log(job: Job, *, attempt: int | None, offset: int, limit: int) -> LogPage:
    """The log of an attempt (the newest when None), contiguous bytes only."""
    leases = Lease.objects.filter(job=job).order_by("-attempt")
    count = leases.count()
    lease = leases.filter(attempt=attempt).first() if attempt is not None else leases.first()
    if lease is None:
        return LogPage(b"", None, count, offset, complete=bool(job.ended_at), truncated=False)
    data = bytearray()
    chunks = LogChunk.objects.filter(lease=lease, offset__lt=offset + limit).order_by("offset")
    for chunk in chunks.filter(offset__gt=offset - 2**20):
        at = offset + len(data)
        if chunk.offset + chunk.size <= at:
            continue
        if chunk.offset > at:
            break  # a piece is still under way: stop before the gap
        data += bytes(chunk.data)[at - chunk.offset :]
    data = data[:limit]
    following = offset + len(data)
    told = lease.end_seq is None or lease.reports_stored >= lease.end_seq
    over = lease.state not in LIVE and told and following >= lease.log_bytes
    return LogPage(
        bytes(data), lease.attempt, count, following, complete=over, truncated=lease.log_truncated
    )


def job_why(job: Job, now: datetime) -> dict[str, Any]:
    """What the last rounds said of the job, which sites do not take it now by rules of their own,
    and its story, newest last."""
    awards = (
        Assignment.objects.filter(job=job)
        .select_related("round", "pool__site")
        .defer("round__clearing")
        .order_by("-round__number")[:ROUNDS_SHOWN]
    )
    rounds: list[dict[str, Any]] = [
        {
            "round": a.round.number,
            "at": a.round.cleared_at,
            "outcome": a.status,
            "code": "awarded",
            "why": a.note or f"Awarded {a.gpus} GPU.",
            "pool": str(a.pool),
            "price": as_text(a.price_micro),
        }
        for a in awards
    ]
    if job.outcome_code and job.outcome_code != "awarded":
        rounds.insert(
            0,
            {
                "round": job.outcome_round,
                "at": None,
                "outcome": "unplaced",
                "code": job.outcome_code,
                "why": job.outcome_why,
                "pool": None,
                "price": None,
            },
        )
    return {
        "job": str(job.pk),
        "state": job.state.upper(),
        "summary": summary(job),
        "rounds": rounds,
        "refusals": refusals_of_job(job, now),
        "story": job_story(job),
    }


def summary(job: Job) -> str:
    """The one sentence a tenant wants."""
    if job.state == "pending" and job.outcome_why:
        return job.outcome_why
    return job.reason or job.outcome_why


def job_story(job: Job) -> list[dict[str, Any]]:
    """Every change of state, oldest first."""
    events = Event.objects.filter(subject="job", subject_id=str(job.pk)).order_by("-id")
    return [
        {
            "at": e.at,
            "event": e.event,
            "from": e.from_state,
            "to": e.to_state,
            "who": e.actor,
            "code": e.code,
            "why": e.why,
        }
        for e in reversed(events[:STORY_SHOWN])
    ]
