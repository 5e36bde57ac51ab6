"""Reads of measured steps: what is known to be fast, and samples that a model has not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from django.db.models import Max
from numpy.typing import NDArray

from federation.machines.offer import OfferState
from federation.models import MeasuredAffinity, OfferAffinity, StoredModel, ThroughputSample

Kind = tuple[str, UUID]  #: kind of GPU and class
Fastest = dict[Kind, float]  #: samples/s on one GPU


def fastest_known(kinds: Collection[Kind]) -> Fastest:
    """Highest speed on one GPU that was claimed or measured of each class on each kind."""
    gpus, classes = {gpu for gpu, _ in kinds}, {job_class for _, job_class in kinds}
    measured = MeasuredAffinity.objects.filter(pool__gpu__in=gpus, job_class__in=classes)
    claimed = OfferAffinity.objects.filter(
        offer__state=OfferState.ACTIVE, pool__gpu__in=gpus, job_class__in=classes
    )
    found: Fastest = defaultdict(float)
    for rows in (measured, claimed):
        for gpu, job_class, size, speed in rows.values_list(
            "pool__gpu", "job_class_id", "gpus", "samples_per_s"
        ):
            found[gpu, job_class] = max(found[gpu, job_class], speed / size)
    return dict(found)


@dataclass(frozen=True, slots=True)
class NewSamples:
    """Samples that a model has not read, in the order of their ids."""

    columns: NDArray[np.float64]  #: (n, 6) as `federation.affinity.tally.gather_columns` takes them
    last: int  #: id of the newest

    @property
    def count(self) -> int:
        return len(self.columns)


def samples_since(stored: StoredModel, *, limit: int) -> NewSamples | None:
    """The next samples of the model's class and pool; None when there are none."""
    rows = (
        ThroughputSample.objects.filter(
            pool=stored.pool_id, job_class=stored.job_class_id, id__gt=stored.last_sample
        )
        .order_by("id")
        .values_list("id", "nodes", "replicas", "local_batch", "accumulation", "step_s", "sync_s")
    )
    found = np.array(list(rows[:limit]), dtype=float)  # None becomes nan; ids are exact to 2^53
    if not len(found):
        return None
    return NewSamples(columns=found[:, 1:], last=int(found[-1, 0]))


def samples_split(stored: StoredModel, before: datetime) -> tuple[int, int]:
    """(id of the model's newest sample that came before a moment, how many came since)."""
    rows = ThroughputSample.objects.filter(pool=stored.pool_id, job_class=stored.job_class_id)
    last = rows.filter(received_at__lt=before).aggregate(last=Max("id"))["last"] or 0
    return last, rows.filter(id__gt=last).count()
