"""Reads for the console's first page: is the market healthy now?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Q, Sum

from federation.machines.job import JobState
from federation.machines.round import RoundState
from federation.machines.site import SiteState
from federation.models import (
    Account,
    Assignment,
    Job,
    JobClass,
    Member,
    Offer,
    Pulse,
    Round,
    Site,
    Venue,
)

TREND = 30  #: rounds behind a small line
LISTED = 6  #: rounds that the first page lists
GATEWAY, TICKS = "gateway", "ticks"


@dataclass(frozen=True, slots=True)
class Trend:
    """The last rounds of a venue, oldest first. None = no such number in that round."""

    rounds: tuple[Round, ...]
    surplus: tuple[float | None, ...]  #: credits per round
    gpus: tuple[float | None, ...]  #: GPUs traded
    fill: tuple[float | None, ...]  #: of the GPUs on offer
    unplaced: tuple[float | None, ...]  #: bids left without GPUs

    @property
    def newest(self) -> tuple[Round, ...]:
        """The last few, newest first."""
        return self.rounds[: -LISTED - 1 : -1]

    @property
    def last(self) -> Round | None:
        """The newest round that cleared."""
        return next((r for r in reversed(self.rounds) if r.welfare is not None), None)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a fresh federation needs before it can trade."""

    done: bool
    what: str
    url_name: str


@dataclass(frozen=True, slots=True)
class Health:
    """Is the broker itself alive? `word` is live, paused or stalled."""

    word: str
    why: str


def light_rounds() -> list[str]:
    """Columns of a round without its clearing document, which is large."""
    return ["clearing", "token"]


def current_rounds(venue: Venue) -> list[Round]:
    """The open round and those being decided, oldest first."""
    going = [RoundState.OPEN, RoundState.CLOSED, RoundState.SOLVING, RoundState.CLEARED]
    return list(
        Round.objects.filter(venue=venue, state__in=going)
        .defer(*light_rounds())
        .select_related("venue")
        .order_by("number")
    )


def trend(venue: Venue) -> Trend:
    newest = Round.objects.filter(venue=venue, closed_at__isnull=False).defer(*light_rounds())
    rounds = list(newest.order_by("-number")[:TREND])[::-1]
    traded = gpus_traded(rounds)
    counts = [traded.get(r.pk, (0, 0)) if r.welfare is not None else None for r in rounds]
    return Trend(
        rounds=tuple(rounds),
        surplus=tuple(r.welfare for r in rounds),
        gpus=tuple(None if c is None else float(c[0]) for c in counts),
        fill=tuple(
            None if c is None or not r.offered_gpus else c[0] / r.offered_gpus
            for r, c in zip(rounds, counts, strict=True)
        ),
        unplaced=tuple(
            None if c is None else float(r.bids - c[1]) for r, c in zip(rounds, counts, strict=True)
        ),
    )


def gpus_traded(rounds: Sequence[Round]) -> dict[UUID, tuple[int, int]]:
    """GPUs and jobs awarded in each round."""
    rows = (
        Assignment.objects.filter(round__in=[r.pk for r in rounds])
        .values("round")
        .annotate(gpus=Sum("gpus"), jobs=Count("id"))
    )
    return {row["round"]: (row["gpus"], row["jobs"]) for row in rows}


def jobs_waiting(venue: Venue) -> int:
    return Job.objects.filter(venue=venue, state=JobState.PENDING).count()


def void_rounds(venue: Venue, limit: int = 5) -> list[Round]:
    rows = Round.objects.filter(venue=venue, state=RoundState.VOID).defer(*light_rounds())
    return list(rows.select_related("venue").order_by("-number")[:limit])


def sites_in_trouble(venue: Venue) -> list[Site]:
    return list(Site.objects.filter(venue=venue, state=SiteState.SILENT).order_by("name"))


def first_steps() -> list[Step]:
    """What a fresh federation needs before a first round can trade, and what of it is done."""
    funded = Account.objects.filter(Q(kind__startswith="tenant_")).aggregate(
        t=Sum("balance_micro")
    )["t"]
    return [
        Step(Member.objects.exists(), "Register a member organisation", "console-member-new"),
        Step(
            Site.objects.exists(),
            "Enrol a site and give its agent a join token",
            "console-site-new",
        ),
        Step(JobClass.objects.exists(), "Register a job class", "console-class-new"),
        Step(bool(funded), "Create a tenant and deposit funds", "console-tenant-new"),
        Step(Offer.objects.exists(), "Start the site's agent: it sends its offer", "console-sites"),
        Step(Job.objects.exists(), "Submit a first job: hanse submit job.yaml", "console-jobs"),
    ]


def health(*, now: datetime, gap_s: float) -> Health:
    """Live when gateway and ticks both beat; paused when an operator stopped every venue."""
    beats = {pulse.name: pulse for pulse in Pulse.objects.all()}
    for name, words in ((TICKS, "the ticks"), (GATEWAY, "the gateway")):
        beat = beats.get(name)
        if beat is None:
            return Health("stalled", f"No sign of life from {words} yet.")
        if now - beat.last_at > timedelta(seconds=gap_s):
            return Health("stalled", f"No sign of life from {words} since {beat.last_at:%H:%M:%S}.")
    paused = Venue.objects.filter(paused=True).values_list("name", flat=True)
    if paused:
        return Health("paused", f"Rounds are paused in {', '.join(paused)}.")
    return Health("live", "Gateway and ticks answer.")
