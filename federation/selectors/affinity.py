"""Reads of the affinity matrix: declared, measured and believed, for offers that are open now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import numpy as np
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet

from federation.affinity.belief import Belief
from federation.affinity.believed import Believed
from federation.machines.offer import OfferState
from federation.machines.site import SiteState
from federation.models import (
    Alarm,
    ForecastAffinity,
    JobClass,
    MeasuredAffinity,
    Offer,
    OfferAffinity,
    OfferPool,
    Pool,
    Venue,
)
from federation.selectors.cell_codes import Axes, CodeIndex, ranked
from federation.selectors.cell_codes import Cell as Cell
from federation.selectors.columns import columns_read
from federation.selectors.guesses import StoredGuesses
from federation.selectors.matrix import Matrix as Matrix
from federation.selectors.matrix_columns import Foreseen, Shown, Stated
from federation.selectors.unproven import HARDWARE_CHANGED, proven

CELL = ("pool_id", "job_class_id", "gpus")
#: of samples/s, and of the spread of its logarithm: a row beyond, whoever stored it, is left out,
#: for no number in a table may stop a round
SPEEDS = (1e-18, 1e18)
SPREADS = (0.0, 50.0)


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


def believed_cells(offers: Iterable[Offer]) -> Matrix:
    """Every cell that the offers state, that was measured at their pools, or that a model or a
    prior says.

    A handful of statements, whatever the number of cells or of samples behind them.
    """
    made = {offer.pk: offer.created_at for offer in offers}
    ids = list(made)
    pools = Pool.objects.filter(site__offers__in=ids).order_by("pk")
    known = list(
        pools.annotate(changed=HARDWARE_CHANGED).values_list(
            "pk", "site__record__contracts", "site__offers", "changed"
        )
    )
    contracts = {pool: many for pool, many, *_ in known}
    changed = {pool: other for pool, *_, other in known}
    classes = JobClass.objects.order_by("pk").values_list("pk", flat=True)
    axes = Axes(tuple(contracts), tuple(classes))
    index, own = CodeIndex(axes), list(contracts)
    shown = _shown(own, index)
    is_other = np.array([changed[pool] for pool in axes.pools], dtype=bool)
    return Matrix(
        axes=axes,
        stated=proven(_stated(ids, index), shown, is_other, axes),
        shown=shown,
        foreseen=_foreseen(own, index),
        guesses=StoredGuesses(own, index),
        contracts={pool: many or 0 for pool, many in contracts.items()},
        offered={pool: made[offer] for pool, _, offer, _ in known},
        waiting=_waiting_claims(ids),
    )


def _stated(ids: list[UUID], index: CodeIndex) -> Stated:
    rows = OfferAffinity.objects.filter(offer_id__in=ids, samples_per_s__range=SPEEDS).order_by()
    is_probe = Q(source=OfferAffinity.Source.PROBED)
    named = rows.annotate(is_probe=ExpressionWrapper(is_probe, BooleanField()))
    pool, job_class, gpus, speed, probed = columns_read(
        named.values_list(*CELL, "samples_per_s", "is_probe"),
        ("id", "id", "int", "float", "bool"),
    )
    return Stated(*ranked(index.codes(pool, job_class, gpus), speed, probed))


def _shown(pools: list[UUID], index: CodeIndex) -> Shown:
    rows = MeasuredAffinity.objects.filter(
        pool__in=pools, samples_per_s__range=SPEEDS, log_sd__range=SPREADS
    ).order_by()
    pool, job_class, gpus, *values = columns_read(
        rows.values_list(*CELL, "samples_per_s", "log_sd", "leases", "updated_at"),
        ("id", "id", "int", "float", "float", "int", "time"),
    )
    return Shown(*ranked(index.codes(pool, job_class, gpus), *values))


def _foreseen(pools: list[UUID], index: CodeIndex) -> Foreseen:
    rows = ForecastAffinity.objects.filter(
        pool__in=pools, samples_per_s__range=SPEEDS, low__range=SPEEDS, high__range=SPEEDS
    ).order_by()
    pool, job_class, gpus, *values = columns_read(
        rows.values_list(
            *CELL, "samples_per_s", "low", "high", "extrapolated", "samples", "fitted_at"
        ),
        ("id", "id", "int", "float", "float", "float", "bool", "long", "time"),
    )
    return Foreseen(*ranked(index.codes(pool, job_class, gpus), *values))


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


def claims(offers: Iterable[Offer], cells: Matrix | None = None) -> Iterator[Claim]:
    """The cells that the offers state themselves and that were measured, in a fixed order.

    `cells`: their matrix, where it was read already.
    """
    known = list(offers)
    matrix = believed_cells(known) if cells is None else cells
    lines = OfferPool.objects.filter(offer__in=known).values_list("pool_id", "offer_id")
    offer_of = dict(lines)
    for cell, declared, belief in sorted(matrix.held_against(), key=lambda held: held[0]):
        if cell[0] in offer_of:
            yield Claim(cell, offer_of[cell[0]], declared, belief)


def claims_read_again(offers: Iterable[Offer], cells: Matrix) -> Matrix:
    """The matrix as it is after claims were looked at: some may wait for a probe now."""
    return replace(cells, waiting=_waiting_claims([offer.pk for offer in offers]))


def speed_at(
    cells: Mapping[Cell, Believed], pool: UUID, job_class: UUID, gpus: int
) -> Believed | None:
    """Speed of a gang: its own row or forecast, else its size times the one-GPU row.

    None where nothing is known, and where only a prior says something, or a model beyond what was
    measured: the market does not price on that before a probe.
    """
    own = cells.get((pool, job_class, gpus))
    if own is not None:
        return own if own.priced else None
    one = cells.get((pool, job_class, 1))
    return None if one is None or not one.priced else one.times(gpus)


def book_rows(
    cells: Matrix, pools: Iterable[UUID], asked: Mapping[UUID, Iterable[int]]
) -> Iterator[tuple[UUID, UUID, int, float]]:
    """(pool, class, GPUs, samples/s) of a book's affinity rows; `asked`: class -> its gang sizes.

    A size that is not priced on stands at 0: a book takes a size without a row for so many times
    one GPU.
    """
    offered = set(pools)
    for job_class, sizes in sorted(asked.items()):
        rows = {**cells.row_speeds(job_class), **cells.asked(job_class, sizes)}
        for (pool, gpus), speed in sorted(rows.items()):
            if pool in offered:
                yield pool, job_class, gpus, speed
