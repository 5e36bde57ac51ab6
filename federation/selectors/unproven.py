"""Claims of pools that have other hardware than they had, and that nothing was measured of since.

They are not planned on: whoever says that a pool has other GPUs now would be rid of what it showed.
It follows from the rows alone, whatever becomes of an alarm, an offer or a claim in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from uuid import UUID

import numpy as np
from django.db.models import Exists, OuterRef
from numpy.typing import NDArray

from federation.machines.job import JobState
from federation.models import Forgotten, Job, MeasuredAffinity, Offer, OfferAffinity, Venue
from federation.selectors.cell_codes import Axes, Cell
from federation.selectors.matrix_columns import Shown, Stated, among

#: of a pool: it got GPUs of another kind
HARDWARE_CHANGED = Exists(
    Forgotten.objects.filter(pool=OuterRef("pk"), cause=Forgotten.Cause.HARDWARE)
)


def proven(stated: Stated, shown: Shown, changed: NDArray[np.bool_], axes: Axes) -> Stated:
    """What is stated, without the unproven claims; `changed`: (pools,), in the axes' order."""
    if not changed.any():
        return stated
    seen = among(shown.codes[shown.leases > 0], stated.codes)
    kept = seen | ~changed[axes.pools_of(stated.codes)]
    return Stated(stated.codes[kept], stated.speed[kept], stated.probed[kept])


def unproven_claims(
    venue: Venue, offers: Collection[Offer], known: Collection[Cell]
) -> Iterator[tuple[Cell, float]]:
    """The unproven claims of some offers, samples/s, in a fixed order: those of classes that a job
    waits to run, so that a probe is to be had, and those that are `known` already."""
    changed = Forgotten.objects.filter(
        pool__site__offers__in=[offer.pk for offer in offers], cause=Forgotten.Cause.HARDWARE
    )
    pools = set(changed.order_by().values_list("pool_id", flat=True))
    if not pools:
        return
    measured = MeasuredAffinity.objects.filter(
        pool=OuterRef("pool"), job_class=OuterRef("job_class"), gpus=OuterRef("gpus"), leases__gt=0
    )
    rows = OfferAffinity.objects.filter(~Exists(measured), offer__in=offers, pool__in=pools)
    wanted = _wanted(venue)
    ordered = rows.order_by("pool_id", "job_class_id", "gpus")
    values = ordered.values_list("pool_id", "job_class_id", "gpus", "samples_per_s")
    for pool, job_class, gpus, speed in values:
        cell = (pool, job_class, gpus)
        if job_class in wanted or cell in known:
            yield cell, speed


def _wanted(venue: Venue) -> set[UUID]:
    """Classes that jobs wait to run."""
    waiting = Job.objects.filter(venue=venue, kind=Job.Kind.TRAINING, state=JobState.PENDING)
    return set(waiting.order_by().values_list("job_class_id", flat=True).distinct())
