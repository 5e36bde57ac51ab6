"""Write side of alarms: raised once for each thing, kept up to date, closed with a reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from federation.errors import Refused
from federation.models import Alarm, JobClass, Pool, Site
from federation.services.story import BROKER, tell


@dataclass(frozen=True, slots=True)
class Concern:
    """What a rule found. `about` names the thing in one text."""

    kind: str
    about: str
    why: str
    figures: Mapping[str, Any]
    site: Site | None = None
    pool: Pool | None = None
    job_class: JobClass | None = None


def alarm_raise(*, concern: Concern, now: datetime) -> tuple[Alarm, bool]:
    """The open alarm of a concern, and whether it is new. One that is open gets the new figures."""
    figures, why = dict(concern.figures), concern.why[:1000]
    alarm, new = Alarm.objects.get_or_create(
        kind=concern.kind,
        about=concern.about[:200],
        closed_at=None,
        defaults={
            "why": why,
            "figures": figures,
            "site": concern.site,
            "pool": concern.pool,
            "job_class": concern.job_class,
            "created_at": now,
        },
    )
    if new:
        _tell(alarm, "alarm", why=why, actor=BROKER, now=now)
    elif (alarm.why, alarm.figures) != (why, figures):
        alarm.why, alarm.figures = why, figures
        alarm.save(update_fields=["why", "figures"])
    return alarm, new


def alarm_close(*, alarm: Alarm, actor: str, why: str, now: datetime) -> bool:
    """Close an alarm with a reason; False when it is closed already.

    What a rule still finds it will raise again with the next figures. Raises Refused without a
    reason.
    """
    if not why.strip():
        raise Refused("Say why the alarm is closed.", code="no_reason")
    rows = Alarm.objects.filter(pk=alarm.pk, closed_at__isnull=True)
    if not rows.update(closed_at=now, closed_by=actor[:100]):
        return False
    alarm.closed_at, alarm.closed_by = now, actor[:100]
    _tell(alarm, "alarm_close", why=why, actor=actor, now=now)
    return True


def alarms_settle(
    *, open_alarms: QuerySet[Alarm], found: Collection[Concern], now: datetime
) -> list[Alarm]:
    """Raise what was found and close those of `open_alarms` that were not; returns the new ones."""
    raised = [alarm_raise(concern=concern, now=now) for concern in found]
    kept = {(concern.kind, concern.about[:200]) for concern in found}
    for alarm in open_alarms.filter(closed_at__isnull=True):
        if (alarm.kind, alarm.about) not in kept:
            alarm_close(alarm=alarm, actor=BROKER, why="The figures no longer show it.", now=now)
    return [alarm for alarm, new in raised if new]


def _tell(alarm: Alarm, event: str, *, why: str, actor: str, now: datetime) -> None:
    subject, of = ("site", alarm.site_id) if alarm.site_id else ("alarm", alarm.pk)
    tell(subject, of, event, now=now, actor=actor, code=alarm.kind, why=f"{alarm.about}: {why}")
