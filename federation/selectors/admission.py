"""Reads of who is not let in where: published rules, remembered refusals, shrunken pools."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from federation.admission import OPEN, Doors, Published, Wish, published
from federation.bulk import IdText
from federation.machines.lease import LIVE
from federation.models import Job, Lease, Offer, OfferPool, Pool, SiteRefusal, Tenant, Venue
from federation.selectors.affinity import current_offers

SHOWN = 50  #: refusals of a site or of a tenant that are listed


def doors_read(venue: Venue, offers: Iterable[Offer], now: datetime) -> Doors:
    """What today's offers and refusals say, in two statements where no site has rules.

    A refusal counts until its time is over or its site's rules are others.
    """
    known = list(offers)
    rules = {one.site_id: published(one.rules) for one in known if one.rules}
    refusals = standing(venue, now, known)
    if not rules and not refusals:
        return OPEN
    tenants = _by(refusals, "tenant_id")
    return Doors(
        rules=rules,
        tenants=tenants,
        classes=_by(refusals, "job_class_id"),
        jobs=_by(refusals, "job_id"),
        apart=_apart(rules, tenants),
        long=_long(venue, rules),
    )


def standing(venue: Venue, now: datetime, offers: Iterable[Offer]) -> list[SiteRefusal]:
    """Refusals that still hold at the sites with these offers."""
    marks = {one.site_id: (published(one.rules).digest, f"v{one.version}") for one in offers}
    rows = SiteRefusal.objects.filter(site__venue=venue, until__gt=now, job__ended_at__isnull=True)
    return [row for row in rows.order_by() if row.mark in marks.get(row.site_id, ())]


def _by(refusals: Iterable[SiteRefusal], name: str) -> dict[UUID, frozenset[UUID]]:
    found: dict[UUID, set[UUID]] = defaultdict(set)
    for row in refusals:
        who = getattr(row, name)
        if who is not None:
            found[who].add(row.site_id)
    return {who: frozenset(sites) for who, sites in found.items()}


def _apart(rules: Mapping[UUID, Published], tenants: Iterable[UUID]) -> frozenset[str]:
    """Tenants that some site does not take."""
    picky = [one for one in rules.values() if one.tenants_allow or one.tenants_deny]
    found = {str(tenant) for tenant in tenants}
    if picky:
        names = Tenant.objects.values_list("pk", "name")
        found |= {str(pk) for pk, name in names if any(one.refuses_tenant(name) for one in picky)}
    return frozenset(found)


def _long(venue: Venue, rules: Mapping[UUID, Published]) -> dict[str, int]:
    """Jobs that ask for more time than some site gives, with how many of the limits they pass."""
    limits = sorted({one.max_runtime_s for one in rules.values() if one.max_runtime_s is not None})
    if not limits:
        return {}
    rows = Job.objects.filter(venue=venue, ended_at=None, max_runtime_s__gt=limits[0]).order_by()
    return {
        job: bisect_left(limits, asked)
        for job, asked in rows.values_list(IdText("pk"), "max_runtime_s")
    }


def shut(doors: Doors, job: Job, pool: Pool, *, gpus: int | None = None) -> str:
    """Code of why a pool's site does not take a job, "" where it may. Tenant and class are read.

    `gpus`: of one lease; otherwise the least that the job asks for.
    """
    if doors.plain:
        return ""
    least = min((int(size) for size in job.gpus), default=1) if gpus is None else gpus
    return doors.shut(
        pool.site_id,
        tenant=job.tenant_id,
        job_class=job.job_class_id,
        job=job.parent_id or job.pk,
        wish=Wish(job.tenant.name, job.job_class.name, job.max_runtime_s, least),
    )


def staying(venue: Venue, now: datetime) -> frozenset[str]:
    """Running jobs that a round leaves where they are, by the text of their ids.

    Their site offers fewer GPUs of the pool than it runs, or has rules by now that would not let
    them in again. What runs is not stopped by that: it bids in no further book, like at a site that
    is drained, and nothing new comes in beside it.
    """
    offers = list(current_offers(venue, now))
    doors = doors_read(venue, offers, now)
    live = Lease.objects.filter(
        site__venue=venue, state__in=sorted(LIVE), revoke_asked_at__isnull=True
    ).order_by()
    full = _shrunk(offers, live)
    if not full and doors.plain:
        return frozenset()
    sites = {*doors.rules, *(s for by in _learnt(doors) for sites in by.values() for s in sites)}
    rows = live.filter(Q(pool__in=full) | Q(site__in=sites), job__kind=Job.Kind.TRAINING)
    return frozenset(
        str(lease.job_id)
        for lease in rows.select_related("job__tenant", "job__job_class", "pool")
        if lease.pool_id in full or shut(doors, lease.job, lease.pool, gpus=lease.gpus)
    )


def _learnt(doors: Doors) -> tuple[Mapping[UUID, frozenset[UUID]], ...]:
    return doors.tenants, doors.classes, doors.jobs


def _shrunk(offers: Iterable[Offer], live: QuerySet[Lease]) -> set[UUID]:
    """Pools that run more GPUs than they have on offer."""
    runs = live.filter(job__kind=Job.Kind.TRAINING)  # a probe may wait for what a round frees
    held = dict(runs.values_list("pool_id").annotate(gpus=Sum("gpus")))
    lines = OfferPool.objects.filter(offer__in=list(offers)).order_by()
    return {pool for pool, gpus in lines.values_list("pool_id", "gpus") if held.get(pool, 0) > gpus}


def refusals_of_job(job: Job, now: datetime) -> list[dict[str, Any]]:
    """Where the job, its tenant or its class was refused and is not offered now, newest first."""
    about = Q(tenant=job.tenant_id) | Q(job_class=job.job_class_id) | Q(job=job.pk)
    offers = current_offers(job.venue, now)
    held = {row.pk for row in standing(job.venue, now, offers)}
    rows = SiteRefusal.objects.filter(about, pk__in=held).select_related("site")
    return [
        {"site": row.site.name, "code": row.code, "why": row.why, "until": row.until}
        for row in rows[:SHOWN]
    ]


def refusals_at(site_id: UUID) -> QuerySet[SiteRefusal]:
    """The newest refusals of a site, for operators."""
    rows = SiteRefusal.objects.filter(site=site_id).select_related(
        "tenant", "job_class", "job", "lease"
    )
    return rows[:SHOWN]
