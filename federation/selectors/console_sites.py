"""Reads for the console's pages of sites: are they alive, are they honest?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, QuerySet, Sum

from federation.affinity.believed import Believed
from federation.machines.lease import LIVE
from federation.machines.offer import OfferState
from federation.models import JobClass, Lease, Offer, OfferPool, Pool, PoolPrice, Site
from federation.selectors.affinity import believed_cells

SHOWN = 50
CURRENT = (OfferState.ACTIVE, OfferState.PAUSED)


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site with what it offers, runs and keeps of its word."""

    site: Site
    offer: Offer | None
    capacity: int  #: GPUs of its current offer
    used: int  #: GPUs under live leases
    leases: int
    honesty: float | None  #: measured / declared speed, geometric mean; None = nothing measured


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One cell of the affinity matrix with all that is known of its speed, samples/s."""

    pool: str
    job_class: str
    gpus: int
    cell: Believed

    @property
    def ratio(self) -> float | None:
        if not self.cell.declared or self.cell.measured is None:
            return None
        return self.cell.measured / self.cell.declared


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool of the current offer with its last price."""

    line: OfferPool
    last: PoolPrice | None
    used: int


def site_rows(sites: Iterable[Site]) -> list[SiteRow]:
    """All the columns of the table in a fixed number of queries."""
    sites = list(sites)
    offers = {o.site_id: o for o in Offer.objects.filter(site__in=sites, state__in=CURRENT)}
    capacity = dict(
        OfferPool.objects.filter(offer__in=offers.values())
        .values_list("offer__site")
        .annotate(gpus=Sum("gpus"))
    )
    used = {
        row["site"]: (row["gpus"], row["n"])
        for row in Lease.objects.filter(site__in=sites, state__in=sorted(LIVE))
        .values("site")
        .annotate(gpus=Sum("gpus"), n=Count("id"))
        .order_by()
    }
    honesty = _honesty(offers.values())
    return [
        SiteRow(
            site=site,
            offer=offers.get(site.pk),
            capacity=capacity.get(site.pk, 0),
            used=used.get(site.pk, (0, 0))[0],
            leases=used.get(site.pk, (0, 0))[1],
            honesty=honesty.get(site.pk),
        )
        for site in sites
    ]


def _honesty(offers: Iterable[Offer]) -> dict[UUID, float]:
    offers = list(offers)
    owner = dict(
        Pool.objects.filter(site__in=[o.site_id for o in offers]).values_list("pk", "site")
    )
    logs: dict[UUID, list[float]] = defaultdict(list)
    for (pool, _, _), cell in believed_cells(offers).items():
        if cell.declared and cell.measured and pool in owner:
            logs[owner[pool]].append(math.log(cell.measured / cell.declared))
    return {site: math.exp(sum(values) / len(values)) for site, values in logs.items()}


def sites_found() -> QuerySet[Site]:
    return Site.objects.select_related("member", "venue").order_by("name")


def pools_of(offer: Offer | None) -> list[PoolRow]:
    """The pools of an offer with the price that each last cleared at."""
    if offer is None:
        return []
    lines = list(OfferPool.objects.filter(offer=offer).select_related("pool__site"))
    pools = [line.pool_id for line in lines]
    newest: dict[UUID, PoolPrice] = {}
    prices = PoolPrice.objects.filter(pool__in=pools, round__published_at__isnull=False)
    for price in (
        prices.select_related("round__venue")
        .defer("round__clearing")
        .order_by("-round__number")[: 3 * len(lines)]
    ):
        newest.setdefault(price.pool_id, price)
    used = dict(
        Lease.objects.filter(pool__in=pools, state__in=sorted(LIVE))
        .order_by()
        .values_list("pool")
        .annotate(gpus=Sum("gpus"))
    )
    rows = [PoolRow(line, newest.get(line.pool_id), used.get(line.pool_id, 0)) for line in lines]
    return sorted(rows, key=lambda row: row.line.pool.name)


def speeds_of(offer: Offer | None) -> list[SpeedRow]:
    """Declared against measured, one row for each pool, class and gang size."""
    if offer is None:
        return []
    pools = dict(Pool.objects.filter(site=offer.site_id).values_list("pk", "name"))
    classes = dict(JobClass.objects.values_list("pk", "name"))
    rows = [
        SpeedRow(pools[pool], classes[job_class], gpus, cell)
        for (pool, job_class, gpus), cell in believed_cells([offer]).items()
        if pool in pools
    ]
    return sorted(rows, key=lambda row: (row.pool, row.job_class, row.gpus))


def offers_of(site: Site) -> list[Offer]:
    return list(site.offers.annotate(gpus=Sum("pools__gpus")).order_by("-version")[:SHOWN])


def leases_at(site: Site) -> list[Lease]:
    """The newest leases of a site, live ones first of all."""
    rows = site.leases.select_related("job__tenant", "pool__site")
    live = list(rows.filter(state__in=sorted(LIVE)).order_by("-created_at")[:SHOWN])
    ended = list(rows.exclude(state__in=sorted(LIVE)).order_by("-created_at")[:SHOWN])
    return (live + ended)[:SHOWN]
