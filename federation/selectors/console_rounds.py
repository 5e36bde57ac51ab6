"""Reads for the console's pages of rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Max, Min, QuerySet

from federation.models import Assignment, Job, Lease, PoolPrice, Round
from federation.selectors.console_overview import light_rounds


@dataclass(frozen=True, slots=True)
class RoundFilter:
    state: str = ""
    venue: str = ""
    since: datetime | None = None
    until: datetime | None = None  #: exclusive


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A job that a round left without GPUs, and why."""

    job_id: str
    name: str
    reason: str
    why: str
    would_run_at: dict[str, Any] | None


def rounds_found(asked: RoundFilter) -> QuerySet[Round]:
    rows = Round.objects.defer(*light_rounds()).select_related("venue")
    if asked.state:
        rows = rows.filter(state=asked.state)
    if asked.venue:
        rows = rows.filter(venue__name=asked.venue)
    if asked.since is not None:
        rows = rows.filter(closes_at__gte=asked.since)
    if asked.until is not None:
        rows = rows.filter(closes_at__lt=asked.until)
    return rows.order_by("-created_at", "-number")


def price_ranges(rounds: Sequence[Round]) -> dict[UUID, tuple[int, int]]:
    """Lowest and highest price of each round, micro-credits per GPU-hour."""
    rows = (
        PoolPrice.objects.filter(round__in=[r.pk for r in rounds])
        .values("round")
        .annotate(low=Min("price_micro"), high=Max("price_micro"))
    )
    return {row["round"]: (row["low"], row["high"]) for row in rows}


def awards_of(round: Round) -> QuerySet[Assignment]:
    """The allocation with its jobs and pools, dearest first."""
    return (
        Assignment.objects.filter(round=round)
        .select_related("job__tenant", "job__job_class", "pool__site")
        .order_by("-payment_micro", "job__name")
    )


def leases_of(round: Round, jobs: Sequence[UUID]) -> dict[UUID, Lease]:
    """The lease that a round began or prolonged, by job."""
    rows = Lease.objects.filter(contracts__round=round, job__in=jobs).distinct()
    return {lease.job_id: lease for lease in rows}


def unplaced_of(rows: Sequence[dict[str, Any]]) -> list[Unplaced]:
    """The clearing's own words about jobs it left out, with the jobs' names."""
    names = job_names([row["job"] for row in rows])
    return [
        Unplaced(
            row["job"],
            names.get(row["job"], row["job"]),
            row["reason"],
            row["why"],
            row.get("would_run_at"),
        )
        for row in rows
    ]


def job_names(ids: Sequence[str]) -> dict[str, str]:
    rows = Job.objects.filter(pk__in=ids).values_list("pk", "name")
    return {str(pk): name for pk, name in rows}
