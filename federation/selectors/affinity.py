"""Reads of the affinity matrix: declared, measured and believed, for offers that are open now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet

from federation.affinity.believed import Believed, believe
from federation.machines.offer import OfferState
from federation.machines.site import SiteState
from federation.models import MeasuredAffinity, Offer, OfferAffinity, Venue

Cell = tuple[UUID, UUID, int]  #: pool, job class, GPUs


def current_offers(venue: Venue, now: datetime) -> QuerySet[Offer]:
    """Offers that may be used now: active, inside their window, their site online."""
    return (
        Offer.objects.filter(
            site__venue=venue,
            site__state=SiteState.ONLINE,
            state=OfferState.ACTIVE,
            valid_from__lte=now,
        )
        .filter(Q(valid_until__isnull=True) | Q(valid_until__gt=now))
        .select_related("site__member")
        .order_by("site__name")
    )


def believed_cells(offers: Iterable[Offer]) -> dict[Cell, Believed]:
    """Every cell that the offers state or that was measured at their pools."""
    ids = [offer.pk for offer in offers]
    declared: dict[Cell, tuple[float, str]] = {
        (pool, job_class, gpus): (speed, source)
        for pool, job_class, gpus, speed, source in OfferAffinity.objects.filter(
            offer_id__in=ids
        ).values_list("pool_id", "job_class_id", "gpus", "samples_per_s", "source")
    }
    measured: dict[Cell, tuple[float, int]] = {
        (pool, job_class, gpus): (speed, leases)
        for pool, job_class, gpus, speed, leases in MeasuredAffinity.objects.filter(
            pool__site__offers__in=ids
        ).values_list("pool_id", "job_class_id", "gpus", "samples_per_s", "leases")
    }
    cells: dict[Cell, Believed] = {}
    for cell in declared.keys() | measured.keys():
        speed, source = declared.get(cell) or _scaled(declared, cell)
        seen, leases = measured.get(cell, (None, 0))
        believed = believe(declared=speed, measured=seen, leases=leases, source=source)
        if believed is not None:
            cells[cell] = believed
    return cells


def _scaled(declared: dict[Cell, tuple[float, str]], cell: Cell) -> tuple[float | None, str]:
    """What the one-GPU statement says of a larger gang."""
    pool, job_class, gpus = cell
    one = declared.get((pool, job_class, 1))
    return (None, "declared") if one is None else (one[0] * gpus, one[1])


def speed_at(
    cells: dict[Cell, Believed], pool: UUID, job_class: UUID, gpus: int
) -> Believed | None:
    """Speed of a gang: its own row, else its size times the one-GPU row."""
    own = cells.get((pool, job_class, gpus))
    if own is not None:
        return own
    one = cells.get((pool, job_class, 1))
    if one is None:
        return None

    def times(value: float | None) -> float | None:
        return None if value is None else value * gpus

    return Believed(
        one.samples_per_s * gpus, times(one.declared), times(one.measured), one.leases, one.source
    )
