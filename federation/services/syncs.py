"""What a sync means, and what its absence means: renewals, silence, fences, the broker's pulse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F

from federation.errors import Refused
from federation.machines.job import JobState
from federation.machines.lease import LIVE, LeaseState
from federation.machines.site import SiteState
from federation.models import Contract, Lease, Pulse, Site
from federation.services.leases import Ending, lease_end, revoke_ask
from federation.services.placement import waiting_place
from federation.services.story import allows, move, tell

GATEWAY = "gateway"
TICKS = "ticks"
#: what the agent says of an attempt -> the event a recovering job gets
_BACK = {"waiting": "dispatch", "starting": "start", "running": "run", "stopping": "preempt"}


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """One attempt as the agent lists it in its sync."""

    lease_id: UUID
    state: str
    contract_id: UUID | None
    last_seq: int


@dataclass(frozen=True, slots=True)
class Hello:
    """What a sync says of the agent itself."""

    agent_version: str
    boot: str
    clock_skew_s: float | None


def site_synced(
    *, site: Site, hello: Hello, attempts: Sequence[AttemptSeen], now: datetime
) -> None:
    """A sync got through: the site is online, and every live lease it lists is renewed."""
    with transaction.atomic():
        site = Site.objects.select_for_update(of=("self",)).get(pk=site.pk)
        _site_seen(site, hello, now)
        # what has ended needs no renewal: should its last report never come, the fence decides
        listed = {a.lease_id: a for a in attempts if a.state != "ended"}
        leases = Lease.objects.filter(site=site, state__in=sorted(LIVE), pk__in=listed)
        # in the order in which a round locks them: an UPDATE alone takes them as it finds them
        held = list(leases.select_for_update().order_by("pk").values_list("pk", flat=True))
        Lease.objects.filter(pk__in=held).update(renewed_at=now)
        changed = leases.exclude(state=LeaseState.ACTIVE) | leases.filter(
            job__state__in=[JobState.RESERVED, JobState.RECOVERING]
        )
        for lease in changed.select_related("job"):
            _renew(lease, listed[lease.pk].state, site, now)
        _note_contracts(site, attempts)


def _note_contracts(site: Site, attempts: Sequence[AttemptSeen]) -> None:
    """Note which contract each agent books under, once all its earlier reports are on record.

    An earlier contract can then get no more work, though nothing was reported under the new one.
    """
    by_contract = {a.contract_id: a for a in attempts if a.contract_id is not None}
    rows = Contract.objects.filter(
        pk__in=by_contract, lease__site=site, lease__booked_sequence__lt=F("sequence")
    ).select_related("lease")
    for contract in rows:
        seen = by_contract[contract.pk]
        if seen.lease_id == contract.lease_id and contract.lease.reports_stored >= seen.last_seq:
            Lease.objects.filter(pk=contract.lease_id).update(booked_sequence=contract.sequence)


def journal_of(boot: str) -> str:
    """The journal in an agent's `boot`, which is "<journal>.<number of its start>"."""
    return boot.rpartition(".")[0]


def _start_of(boot: str) -> int:
    number = boot.rpartition(".")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _site_seen(site: Site, hello: Hello, now: datetime) -> None:
    """Note the agent; refuse one that another start, or another journal, has taken over from.

    A new start of the same journal is a restart. Another journal is another agent (a new machine,
    or a copied credential): the newest one speaks for the site, the earlier one never again, so
    that two can not run the same lease.
    """
    actor = f"agent:{site.name}"
    fields: dict[str, Any] = {
        "last_sync_at": now,
        "agent_version": hello.agent_version[:64],
        "clock_skew_s": hello.clock_skew_s,
        "boot": hello.boot[:64],
    }
    journal, current = journal_of(hello.boot), journal_of(site.boot)
    if journal in site.past_journals or (
        journal == current and _start_of(hello.boot) < _start_of(site.boot)
    ):
        raise Refused(
            "Another agent speaks for this site now. Stop this one, or enrol it anew.",
            code="superseded_agent",
        )
    if site.boot and journal != current:
        fields["past_journals"] = [*site.past_journals, current][-100:]
        tell("site", site.pk, "agent_replaced", now=now, actor=actor, why="another journal")
    elif site.boot and hello.boot != site.boot:
        tell("site", site.pk, "restart", now=now, actor=actor)
    move(site, "sync", now=now, actor=actor, **fields)


def _renew(lease: Lease, said: str, site: Site, now: datetime) -> None:
    actor = f"agent:{site.name}"
    if lease.state != LeaseState.ACTIVE and not move(lease, "renew", now=now, actor=actor):
        return
    event = _BACK.get(said)
    if lease.job.state == JobState.RESERVED:
        event = "dispatch"
    if lease.revoke_asked_at is not None and lease.job.state == JobState.RECOVERING:
        event = "preempt"
    if event and allows(lease.job, event):
        told = {}
        if lease.job.reason_code == "site_silent":
            told = {"reason_code": "site_back", "reason": f"{site.name} is in touch again."}
        move(lease.job, event, now=now, actor=actor, updated_at=now, **told)


def pulse(*, name: str, now: datetime, gap_s: float) -> None:
    """Note that a part of the broker is alive; after a gap it counts as newly up."""
    beat, created = Pulse.objects.get_or_create(
        name=name, defaults={"up_since": now, "last_at": now}
    )
    if created:
        return
    if now - beat.last_at > timedelta(seconds=gap_s):
        Pulse.objects.filter(pk=name).update(up_since=now, last_at=now)
    else:
        Pulse.objects.filter(pk=name, last_at__lt=now).update(last_at=now)


def up_since(*, now: datetime, gap_s: float) -> datetime | None:
    """Since when agents could have reached the broker; None = they cannot now.

    No lease clock runs while nobody could have renewed: after its own outage the broker starts
    them all again.
    """
    beats = list(Pulse.objects.filter(name__in=[GATEWAY, TICKS]))
    gateway = next((b for b in beats if b.name == GATEWAY), None)
    if gateway is None or now - gateway.last_at > timedelta(seconds=gap_s):
        return None
    return max(beat.up_since for beat in beats)


def sites_silence(*, now: datetime, gap_s: float, limit: int = 500) -> list[UUID]:
    """Mark sites that missed their renewal: leases SILENT, jobs RECOVERING; nothing is killed."""
    since = up_since(now=now, gap_s=gap_s)
    if since is None:
        return []
    rows = Site.objects.filter(
        state__in=[SiteState.ONLINE, SiteState.DRAINING], last_sync_at__isnull=False
    ).select_related("venue")
    silent = []
    for site in rows[:limit]:
        renew = timedelta(seconds=site.venue.renew_s)
        heard = site.last_sync_at or site.created_at
        if max(heard, since) + renew > now:
            continue
        with transaction.atomic():
            if site.state == SiteState.ONLINE and not move(
                site,
                "silence",
                now=now,
                code="no_sync",
                why=f"no sync for {site.venue.renew_s:g} s",
            ):
                continue
            _leases_silence(site, now)
        silent.append(site.pk)
    return silent


def _leases_silence(site: Site, now: datetime) -> None:
    live = Lease.objects.filter(site=site, state__in=[LeaseState.OFFERED, LeaseState.ACTIVE])
    for lease in live.select_related("job"):
        if lease.delivered_at is None:
            revoke_ask(lease=lease, code="site_silent", why=f"{site.name} is silent.", now=now)
            continue
        if not move(lease, "silence", now=now, code="no_sync"):
            continue
        if allows(lease.job, "silence"):
            move(
                lease.job,
                "silence",
                now=now,
                code="site_silent",
                why=f"{site.name} is silent; the job may well be running there.",
                reason_code="site_silent",
                reason=f"{site.name} is silent; the job may well be running there.",
                updated_at=now,
            )


def leases_fence(*, now: datetime, gap_s: float, limit: int = 500) -> list[UUID]:
    """Give up leases whose site must have stopped them by its own clock; place the jobs anew.

    The agent counts from when it *sent* its last answered sync, this counts from when that sync
    arrived and adds a margin: so the site is always first.
    """
    since = up_since(now=now, gap_s=gap_s)
    if since is None:
        return []
    rows = Lease.objects.filter(state__in=sorted(LIVE), renewed_at__lt=now).select_related(
        "job__venue", "site"
    )
    fenced = []
    for lease in rows.order_by("renewed_at")[:limit]:
        wait = timedelta(seconds=lease.fence_s + lease.job.venue.fence_margin_s)
        if max(lease.renewed_at, since) + wait > now:
            continue
        with transaction.atomic():
            why = f"{lease.site.name} was out of reach past the fence of {lease.fence_s:g} s."
            fact = lease_end(lease=lease, ending=Ending("fenced", message=why), now=now)
            if fact is not None:
                waiting_place(job_id=lease.job_id, now=now)
        if fact is not None:
            fenced.append(lease.pk)
    return fenced


def site_drain(*, site: Site, actor: str, why: str, now: datetime, drain: bool = True) -> bool:
    """Stop placing new work at a site, or open it again."""
    if not why.strip():
        raise Refused("A reason is needed: it stands in the site's story.", code="no_reason")
    event = "drain" if drain else "open" if site.last_sync_at else "await"
    return move(site, event, now=now, actor=actor, code="operator", why=why)
