"""Reads of what settled contracts and ended leases say of the sites that served them.

Trades between members of one owner are left out throughout: nobody earns a name by itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import CharField, Count, Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, NullIf

from federation.machines.contract import ContractState
from federation.machines.lease import LIVE
from federation.machines.offer import OfferState
from federation.models import (
    Alarm,
    Contract,
    Lease,
    MeasuredAffinity,
    OfferAffinity,
    Report,
    RoundOffer,
    Site,
)
from federation.selectors.affinity import Cell

NEWEST = 200  #: contracts of a site that its record looks at
SETTLED = (ContractState.SETTLED, ContractState.FINAL)
BROKEN = ("declined", "driver_failed", "lost", "fenced")  #: ends of a lease that are its site's
Kind = tuple[str, UUID]  #: GPU kind, job class


@dataclass(frozen=True, slots=True)
class Served:
    """One settled contract with a tenant of another owner, held against the site's claim."""

    contract_id: UUID
    cell: Cell
    settled_at: datetime
    delivered: int
    gpu_seconds: float  #: as reported, but never more than the clock leaves room for
    speed: float  #: samples/s of the gang
    claimed: float  #: samples/s of the gang, as the offer of its round said

    @property
    def log_ratio(self) -> float:
        return math.log(self.speed / self.claimed)


@dataclass(frozen=True, slots=True)
class Starts:
    """Recent leases of a pool, and those of them that never started by the site's doing."""

    leases: int
    non_starts: int


def behind(path: str) -> Combinable:
    """Who stands behind the member at `path`, as the database sees it: `Member.behind`."""
    return Coalesce(
        NullIf(F(f"{path}owner"), Value("", output_field=CharField())), F(f"{path}name")
    )


def with_others(rows: QuerySet[Any], lease: str = "") -> QuerySet[Any]:
    """Those rows whose buyer and seller have different owners; `lease`: the way to the lease."""
    buyer, seller = f"{lease}job__tenant__member__", f"{lease}site__member__"
    owned = rows.alias(buyer=behind(buyer), seller=behind(seller))
    others: QuerySet[Any] = owned.exclude(buyer=F("seller"))
    return others


def served_to_others(site: Site) -> QuerySet[Contract]:
    """Every settled contract of a site with tenants of other owners under which it delivered.

    Probes are left out.
    """
    rows = Contract.objects.filter(
        lease__site=site, state__in=SETTLED, basis=Contract.Basis.SAMPLES, delivered__gt=0
    )
    return with_others(rows, "lease__")


def served(site: Site) -> list[Served]:
    """The newest contracts of a site, oldest first, those left out that say nothing of a speed."""
    rows = served_to_others(site).filter(round__isnull=False)
    newest = list(
        rows.select_related("lease__job").order_by("-settled_at", "-created_at", "-pk")[:NEWEST]
    )
    claimed = _claimed(site, {row.round_id for row in newest if row.round_id})
    found = []
    for row in reversed(newest):
        claim, speed = claimed.get((row.round_id, *_cell(row))), contract_speed(row)
        claim = claim or row.gpus * claimed.get((row.round_id, *_cell(row)[:2], 1), 0.0)
        if claim and speed and row.settled_at:
            seconds = _seconds(row)
            found.append(
                Served(row.pk, _cell(row), row.settled_at, row.delivered, seconds, speed, claim)
            )
    return found


def _cell(row: Contract) -> Cell:
    return (row.lease.pool_id, row.lease.job.job_class_id, row.gpus)


def _claimed(site: Site, rounds: set[UUID]) -> Mapping[tuple[UUID | None, UUID, UUID, int], float]:
    """What the site's offer said in each of these rounds."""
    used = dict(
        RoundOffer.objects.filter(round__in=rounds, offer__site=site).values_list(
            "round_id", "offer_id"
        )
    )
    said: dict[UUID, dict[Cell, float]] = defaultdict(dict)
    rows = OfferAffinity.objects.filter(offer__in=set(used.values())).values_list(
        "offer_id", "pool_id", "job_class_id", "gpus", "samples_per_s"
    )
    for offer, pool, job_class, gpus, speed in rows:
        said[offer][pool, job_class, gpus] = speed
    return {
        (round, *cell): speed
        for round, offer in used.items()
        for cell, speed in said[offer].items()
    }


def contract_speed(row: Contract) -> float | None:
    """Samples/s of the gang under a contract; None when it cannot be told.

    The first contract of a lease holds its start, so there the agent's fit to the progress lines
    counts; later ones are taken by what was delivered in the GPU time they used.
    """
    if row.sequence == 1 or not row.gpu_seconds:
        return row.lease.measured_samples_per_s
    return row.delivered * row.gpus / row.gpu_seconds


def _seconds(row: Contract) -> float:
    """GPU-seconds as reported, but never more than the clock leaves room for."""
    over = row.superseded_at or row.lease.ended_at or row.settled_at or row.created_at
    return min(row.gpu_seconds, row.gpus * max(0.0, (over - row.created_at).total_seconds()))


def sites_settled_since(since: datetime | None) -> set[UUID]:
    """Sites that had a contract settled, or settled anew, after `since`."""
    rows = Contract.objects.filter(state__in=SETTLED, settled_at__isnull=False)
    if since is not None:
        rows = rows.filter(settled_at__gt=since)
    return set(rows.order_by().values_list("lease__site_id", flat=True).distinct())


def _never_started() -> Q:
    ran = Report.objects.filter(
        lease=OuterRef("pk"), kind__in=("started", "progress"), applied=True
    )
    broken = Q(end_reason__in=BROKEN, revoke_asked_at__isnull=True, samples=0, gpu_seconds=0)
    return broken & ~Q(Exists(ran))


def non_starts(site: Site) -> int:
    """Leases of a site that never started by its own doing, of all time."""
    return with_others(Lease.objects.filter(_never_started(), site=site)).count()


def recent_starts(site: Site, since: datetime) -> dict[UUID, Starts]:
    """How the leases of each pool of a site that ended after `since` began."""
    ended = Lease.objects.filter(site=site, ended_at__gt=since).exclude(state__in=sorted(LIVE))
    rows = (
        ended.order_by()
        .values_list("pool_id")
        .annotate(all=Count("pk"), broken=Count("pk", filter=_never_started()))
    )
    return {pool: Starts(every, broken) for pool, every, broken in rows}


def fastest_elsewhere(site: Site, classes: Collection[UUID]) -> dict[Kind, float]:
    """Highest measured speed on one GPU, by GPU kind and class, at the pools of other owners."""
    found: dict[Kind, float] = defaultdict(float)
    rows = _elsewhere(site, classes).values_list(
        "pool__gpu", "job_class_id", "gpus", "samples_per_s"
    )
    for gpu, job_class, gpus, speed in rows:
        found[gpu, job_class] = max(found[gpu, job_class], speed / gpus)
    return found


def seasons(site: Site, classes: Collection[UUID]) -> dict[UUID, list[float]]:
    """Log of measured over claimed speed of each class at the pools of other owners, today."""
    measured = _elsewhere(site, classes).values_list(
        "pool_id", "job_class_id", "gpus", "samples_per_s"
    )
    rows = OfferAffinity.objects.filter(
        offer__state=OfferState.ACTIVE, job_class__in=classes
    ).values_list("pool_id", "job_class_id", "gpus", "samples_per_s")
    said = {(pool, job_class, gpus): speed for pool, job_class, gpus, speed in rows}
    found: dict[UUID, list[float]] = defaultdict(list)
    for pool, job_class, gpus, speed in measured:
        claim = said.get((pool, job_class, gpus))
        if claim:
            found[job_class].append(math.log(speed / claim))
    return found


def _elsewhere(site: Site, classes: Collection[UUID]) -> QuerySet[MeasuredAffinity]:
    """What was measured of some classes at the pools of other owners."""
    rows = MeasuredAffinity.objects.filter(job_class__in=classes)
    others: QuerySet[MeasuredAffinity] = rows.alias(owner=behind("pool__site__member__")).exclude(
        owner=site.member.behind
    )
    return others


def haircuts(pools: Iterable[UUID]) -> dict[UUID, float]:
    """The part of each pool's GPUs that is not planned on, by its open alarm."""
    rows = Alarm.objects.filter(
        kind=Alarm.Kind.NON_START, closed_at__isnull=True, pool__in=list(pools)
    )
    return {
        pool: float(figures["share"])
        for pool, figures in rows.values_list("pool_id", "figures")
        if pool is not None
    }
