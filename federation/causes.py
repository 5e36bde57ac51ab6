"""Whose doing it is that a contract got less than it was sold, and how much was due by then.

Pure: what is known of a contract's end goes in, a verdict comes out. Docs: "Who pays whom".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from economics.settlement import Cause

VETOED = "vetoed"  #: declined by a rule of the site that was known before the award
VETOED_UNANNOUNCED = "vetoed_unannounced"  #: by one that nobody could know
#: an agent's, or the fence's, reason for a lease's end -> whose doing it was
ENDED_BY = {
    "exited": Cause.TENANT,
    "runtime_limit": Cause.TENANT,
    "declined": Cause.SITE,
    VETOED: Cause.MARKET,  # it awarded what it had been told not to
    VETOED_UNANNOUNCED: Cause.SITE,  # else a site could choose among its awards
    "driver_failed": Cause.SITE,
    "lost": Cause.SITE,
    "fenced": Cause.SITE,  # the site was out of reach until its own clock stopped the job
    "revoked": Cause.MARKET,
    "never_started": Cause.MARKET,
}
#: why a lease was asked back -> whose doing it was; every other reason is the market's
ASKED_BACK_BY = {
    "cancelled": Cause.TENANT,
    "work_done": Cause.TENANT,  # its program had trained all its samples and did not end
}


@dataclass(frozen=True, slots=True)
class End:
    """What is on record of a contract's time and of how it came to its end."""

    opened_at: datetime
    ends_at: datetime | None  #: planned
    contracted: int  #: samples
    first: bool  #: of its lease: transfer and start fall into it
    to_end: bool  #: sold for all the job's work, not for a round
    started: bool  #: the lease's program ever ran
    superseded_at: datetime | None = None  #: the next contract took its place
    asked_back_at: datetime | None = None
    asked_back_code: str = ""
    ended_at: datetime | None = None
    end_reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Samples due until the end, whose doing a shortfall is, and whether the site kept its word
    at least to the start."""

    due: int
    cause: Cause
    started: bool


def ended_by(end: End) -> Cause:
    """Who brought a contract to its end. Whoever acted first did: what a lease that was asked
    back says afterwards no longer matters. Never NONE."""
    if end.superseded_at is not None:
        return Cause.MARKET
    if end.asked_back_at is not None:
        return ASKED_BACK_BY.get(end.asked_back_code, Cause.MARKET)
    return ENDED_BY.get(end.end_reason, Cause.MARKET)


def kept_for_nothing(end: End) -> bool:
    """True when its tenant cancelled before anything ran: the GPUs were kept for it."""
    asked = end.asked_back_at is not None and end.superseded_at is None
    return asked and not end.started and ended_by(end) is Cause.TENANT


def verdict(end: End, accepted: int, allowance: timedelta) -> Verdict:
    """Judge a contract of which `accepted` samples count; `allowance` is that for a start.

    A contract that the market ended owes its samples in proportion to its time: what was due by
    then and is missing is the site's doing, what was not yet due is the market's. One that the
    site ended owes all of them. What the tenant ended early costs the site no penalty.
    """
    by = ended_by(end)
    due = _due(end, accepted, by, allowance)
    cause = by
    if by is Cause.MARKET and accepted < due:
        cause = Cause.SITE  # time passed while it ran: too slow
    if accepted >= end.contracted:
        cause = Cause.NONE
    return Verdict(due, cause, started=end.started or by is not Cause.SITE)


def due_if(end: End, accepted: int, cause: Cause, allowance: timedelta) -> int:
    """What was due, when a decision says whose doing the end was."""
    by = ended_by(end)
    if cause is Cause.SITE and by is Cause.TENANT:
        by = Cause.SITE  # the program ended, and the site made it end
    return _due(end, accepted, by, allowance)


def _due(end: End, accepted: int, by: Cause, allowance: timedelta) -> int:
    if by is Cause.SITE:
        return end.contracted
    if _vetoed(end):
        return 0  # however long the word of it was under way
    if end.to_end:
        return min(accepted, end.contracted)  # it was sold no pace, only its work
    return _in_proportion(end, allowance)


def _vetoed(end: End) -> bool:
    """Its site never took it, and had said so before."""
    first = end.superseded_at is None and end.asked_back_at is None
    return first and not end.started and end.end_reason == VETOED


def _in_proportion(end: End, allowance: timedelta) -> int:
    over = end.superseded_at or end.asked_back_at or end.ended_at
    if over is None or end.ends_at is None or end.ends_at <= end.opened_at:
        return end.contracted  # its time is over
    planned = end.ends_at - end.opened_at
    ran = over - end.opened_at
    if end.first:
        ran -= allowance
    ran = min(max(ran, timedelta(0)), planned)
    tick = timedelta(microseconds=1)
    return end.contracted * (ran // tick) // (planned // tick)
