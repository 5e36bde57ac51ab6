"""Reads of what is on offer."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

from federation.models import JobClass, OfferPool, PoolPrice, Round, Venue
from federation.money import as_text
from federation.selectors.affinity import believed_cells, current_offers


def offers_open(venue: Venue, *, now: datetime) -> list[dict[str, Any]]:
    """One row for each pool on offer, with its last price and its speed of each class."""
    offers = list(current_offers(venue, now))
    cells = believed_cells(offers)
    classes = dict(JobClass.objects.values_list("pk", "name"))
    speeds: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for (pool, job_class, gpus), cell in cells.items():
        speeds[pool].append(
            {
                "job_class": classes[job_class],
                "gpus": gpus,
                "declared": cell.declared,
                "measured": cell.measured,
                "believed": cell.samples_per_s,
                "with_prior": cell.with_prior,
                "low": cell.low,
                "high": cell.high,
                "source": cell.source,
                "priced": cell.priced,
                "reports": cell.leases,
                "known_at": cell.known_at,
            }
        )
    prices = _last_prices(venue)
    lines = OfferPool.objects.filter(offer__in=offers).select_related("pool__site__member", "offer")
    return [
        {
            "site": line.pool.site.name,
            "member": line.pool.site.member.name,
            "pool": str(line.pool),
            "gpu": line.pool.gpu,
            "gpus": line.gpus,
            "reserve": as_text(line.reserve_micro),
            "price": prices.get(line.pool_id),
            "offer_version": line.offer.version,
            "valid_until": line.offer.valid_until,
            "note": line.offer.note,
            "affinities": sorted(speeds[line.pool_id], key=lambda a: (a["job_class"], a["gpus"])),
        }
        for line in sorted(lines, key=lambda x: str(x.pool))
    ]


def _last_prices(venue: Venue) -> dict[Any, str]:
    published = Round.objects.filter(venue=venue, published_at__isnull=False)
    last = published.order_by("-number").values_list("pk", flat=True).first()
    rows = PoolPrice.objects.filter(round=last).values_list("pool_id", "price_micro")
    return {pool: as_text(price) for pool, price in rows}
