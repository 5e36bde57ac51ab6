"""Measurements that count no more: a pool has other hardware, or is lastingly slower or faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from federation.affinity.alarms import shifted_from
from federation.models import (
    ForecastAffinity,
    Forgotten,
    JobClass,
    Lease,
    MeasuredAffinity,
    Pool,
    PriorAffinity,
    StoredModel,
)
from federation.services.fits import model_forget
from federation.services.story import BROKER, tell


def drift_forget(
    *, pool: Pool, job_class: JobClass, leases: Sequence[Lease], now: datetime
) -> Sequence[Lease]:
    """Those of a cell's measured leases, oldest first, that ran at the speed of today.

    Where that is not all of them the others are forgotten for good, with the measured steps of
    class and pool from before: they are a pool's that is no more.
    """
    logs = [math.log(lease.measured_samples_per_s or 1.0) for lease in leases]
    at = shifted_from(logs)
    if at is None:
        return leases
    first = leases[at]
    before, since = (math.exp(_mean(part)) for part in (logs[:at], logs[at:]))
    why = (
        f"{job_class} on {first.gpus} GPU ran at {before:.6g} samples/s in {at} leases and at "
        f"{since:.6g} in the {len(leases) - at} since."
    )
    with transaction.atomic():
        Forgotten.objects.create(
            pool=pool,
            job_class=job_class,
            gpus=first.gpus,
            cause=Forgotten.Cause.DRIFT,
            since=first.created_at,
            why=why[:300],
            found_at=now,
        )
        model_forget(pool=pool.pk, job_class=job_class.pk, before=first.created_at)
        _tell(pool, why, now, BROKER)
    return leases[at:]


def hardware_forget(*, pool: Pool, was: str, actor: str, now: datetime) -> None:
    """Forget all that was measured of a pool whose GPUs are of another kind now.

    Measured speeds, models, forecasts and priors of it go at once; leases that were made before
    count no more.
    """
    why = f"its GPUs are {pool.gpu}, no longer {was}"
    with transaction.atomic():
        Forgotten.objects.create(
            pool=pool, cause=Forgotten.Cause.HARDWARE, since=now, why=why[:300], found_at=now
        )
        for model in (MeasuredAffinity, ForecastAffinity, PriorAffinity):
            model.objects.filter(pool=pool).delete()
        for job_class in StoredModel.objects.filter(pool=pool).values_list("job_class", flat=True):
            model_forget(pool=pool.pk, job_class=job_class, before=now)
        _tell(pool, why, now, actor)


def _mean(logs: Sequence[float]) -> float:
    return math.fsum(logs) / len(logs)


def _tell(pool: Pool, why: str, now: datetime, actor: str) -> None:
    tell("site", pool.site_id, "forget", now=now, actor=actor, why=f"{pool}: {why}")
