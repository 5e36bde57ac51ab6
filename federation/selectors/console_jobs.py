"""Reads for the console's pages of jobs, leases and stories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from federation.machines.job import FINAL, MACHINE
from federation.machines.lease import LIVE
from federation.models import Assignment, Contract, Event, Job, Lease, Report, Round

STORY = 200  #: newest lines of a story that a page shows
REPORTS = 100
AWARDS = 50
_ID = re.compile(r"[0-9a-f][0-9a-f-]{3,35}\Z")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What the query string of the list asks for. `state` may also be live or ended."""

    state: str = ""
    tenant: str = ""
    job_class: str = ""
    site: str = ""
    q: str = ""


def jobs_found(asked: JobFilter) -> QuerySet[Job]:
    """Jobs newest first, each with its live lease in `live` (a list of none or one)."""
    rows = Job.objects.filter(_state(asked.state) & _search(asked.q))
    if asked.tenant:
        rows = rows.filter(tenant__name=asked.tenant)
    if asked.job_class:
        rows = rows.filter(job_class__name=asked.job_class)
    if asked.site:
        at = Lease.objects.filter(job=OuterRef("pk"), site__name=asked.site)
        rows = rows.filter(Exists(at))
    live = Lease.objects.filter(state__in=sorted(LIVE)).select_related("site", "pool__site")
    return (
        rows.select_related("tenant", "job_class")
        .defer("command", "setup", "env")
        .prefetch_related(Prefetch("leases", queryset=live, to_attr="live"))
        .order_by("-created_at", "-id")
    )


def _state(state: str) -> Q:
    if state == "live":
        return ~Q(state__in=sorted(FINAL))
    if state == "ended":
        return Q(state__in=sorted(FINAL))
    return Q(state=state) if state in set(MACHINE.states) else Q()


def _search(text: str) -> Q:
    if not text:
        return Q()
    found = Q(name__icontains=text)
    if _ID.match(text.lower()):
        found |= Q(id__startswith=text.lower())
    return found


def attempts_of(job: Job) -> list[Lease]:
    return list(
        Lease.objects.filter(job=job)
        .select_related("site", "pool__site", "round")
        .defer("round__clearing")
        .order_by("-attempt")
    )


def contracts_of(leases: Sequence[Lease]) -> list[Contract]:
    return list(
        Contract.objects.filter(lease__in=[lease.pk for lease in leases])
        .select_related("lease", "round")
        .defer("round__clearing")
        .order_by("-created_at")
    )


def awards_of_job(job: Job) -> list[Assignment]:
    return list(
        Assignment.objects.filter(job=job)
        .select_related("round", "pool__site")
        .defer("round__clearing")
        .order_by("-round__number")[:AWARDS]
    )


def outcome_round_of(job: Job) -> Round | None:
    """The last round that looked at a job."""
    if job.outcome_round is None:
        return None
    rows = Round.objects.filter(venue=job.venue_id, number=job.outcome_round)
    return rows.defer("clearing").first()


def reports_of(lease: Lease) -> list[Report]:
    """The newest reports, logs apart: their bytes are the log's."""
    return list(Report.objects.filter(lease=lease).exclude(kind="log").order_by("-seq")[:REPORTS])


def story_of(subject: str, subject_id: object) -> list[Event]:
    """The newest lines of an object's story, newest first."""
    return list(Event.objects.filter(subject=subject, subject_id=str(subject_id))[:STORY])


def job_story(job: Job, leases: Sequence[Lease]) -> list[Event]:
    """A job's story together with that of its attempts, newest first."""
    ids: list[UUID] = [lease.pk for lease in leases]
    of_leases = Q(subject="lease", subject_id__in=[str(pk) for pk in ids])
    return list(Event.objects.filter(Q(subject="job", subject_id=str(job.pk)) | of_leases)[:STORY])
