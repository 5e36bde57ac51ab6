"""Reads of the affinity matrix: declared, measured and believed, for offers that are open now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet

from federation.affinity.belief import Belief, observed, planned
from federation.affinity.believed import Believed
from federation.machines.offer import OfferState
from federation.machines.site import SiteState
from federation.models import Alarm, MeasuredAffinity, Offer, OfferAffinity, Pool, Venue

Cell = tuple[UUID, UUID, int]  #: pool, job class, GPUs


@dataclass(frozen=True, slots=True)
class Claim:
    """What a site says of one cell, and what was measured of it."""

    cell: Cell
    offer_id: UUID
    declared: float
    belief: Belief


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
    measured = _measured(ids)
    contracts = dict(
        Pool.objects.filter(site__offers__in=ids).values_list("pk", "site__record__contracts")
    )
    waiting = _waiting_claims(ids)
    cells: dict[Cell, Believed] = {}
    for cell in declared.keys() | measured.keys():
        stated = cell if cell in declared else (cell[0], cell[1], 1)
        speed, source = declared.get(cell) or _scaled(declared, cell)
        belief, measured_at = measured.get(cell, (None, None))
        believed = planned(
            declared=speed,
            belief=belief,
            contracts=contracts.get(cell[0]) or 0,
            source=source,
            unconfirmed=stated in waiting,
            measured_at=measured_at,
        )
        if believed is not None:
            cells[cell] = believed
    return cells


def _measured(ids: list[UUID]) -> dict[Cell, tuple[Belief | None, datetime]]:
    rows = MeasuredAffinity.objects.filter(pool__site__offers__in=ids).values_list(
        "pool_id", "job_class_id", "gpus", "samples_per_s", "log_sd", "leases", "updated_at"
    )
    return {
        (pool, job_class, gpus): (observed(measured=speed, log_sd=log_sd, leases=leases), at)
        for pool, job_class, gpus, speed, log_sd, leases, at in rows
    }


def _waiting_claims(ids: list[UUID]) -> set[Cell]:
    """Cells whose claim was raised above what was measured and waits for a probe."""
    rows = Alarm.objects.filter(
        kind=Alarm.Kind.CLAIM, closed_at__isnull=True, pool__site__offers__in=ids
    ).values_list("pool_id", "job_class_id", "figures")
    return {
        (pool, job_class, int(figures["gpus"]))
        for pool, job_class, figures in rows
        if pool is not None and job_class is not None
    }


def _scaled(declared: Mapping[Cell, tuple[float, str]], cell: Cell) -> tuple[float | None, str]:
    """What the one-GPU statement says of a larger gang."""
    pool, job_class, gpus = cell
    one = declared.get((pool, job_class, 1))
    return (None, "declared") if one is None else (one[0] * gpus, one[1])


def claims(offers: Iterable[Offer]) -> Iterator[Claim]:
    """The cells that the offers state themselves and that were measured, in a fixed order."""
    ids = [offer.pk for offer in offers]
    measured = _measured(ids)
    rows = OfferAffinity.objects.filter(offer_id__in=ids, pool__in={cell[0] for cell in measured})
    stated = rows.order_by("pool_id", "job_class_id", "gpus").values_list(
        "pool_id", "job_class_id", "gpus", "offer_id", "samples_per_s"
    )
    for pool, job_class, gpus, offer, speed in stated:
        belief, _ = measured.get((pool, job_class, gpus), (None, None))
        if belief is not None:
            yield Claim((pool, job_class, gpus), offer, speed, belief)


def speed_at(
    cells: dict[Cell, Believed], pool: UUID, job_class: UUID, gpus: int
) -> Believed | None:
    """Speed of a gang: its own row, else its size times the one-GPU row."""
    own = cells.get((pool, job_class, gpus))
    if own is not None:
        return own
    one = cells.get((pool, job_class, 1))
    return None if one is None else one.times(gpus)
