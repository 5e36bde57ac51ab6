"""Measured beats declared: fold the speeds that leases showed into each cell's measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F

from federation.affinity.alarms import reined_in
from federation.affinity.believed import geometric_mean
from federation.models import JobClass, Lease, MeasuredAffinity, Pool
from federation.services.fits import model_forget
from federation.services.forgetting import drift_forget
from federation.services.guard import MIN_LINES, claims_confirm, measured_leases, measured_since

WINDOW = 20  #: newest leases behind a cell's mean
LOOKED_AT = 40  #: newest leases that are asked whether their speed has shifted


def affinity_refit(*, now: datetime, limit: int = 1000) -> list[tuple[str, str, float]]:
    """Refit every cell that has new reports. Returns (pool, class, samples/s) of each.

    Claims that were reached are confirmed first; leases and measured steps from before such a claim
    count no more, nor do those from before a lasting shift of the speed, or before other hardware.
    Throughput models are refitted apart, see `fits.models_due`.
    """
    for alarm in claims_confirm(now=now):
        if alarm.pool_id is not None and alarm.job_class_id is not None:
            model_forget(pool=alarm.pool_id, job_class=alarm.job_class_id, before=alarm.created_at)
    fresh = Lease.objects.filter(
        measured_samples_per_s__gt=0,
        progress_lines__gte=MIN_LINES,
        progress_lines__gt=F("fitted_lines"),
    ).select_related("pool__site", "job__job_class")[:limit]
    leases = list(fresh)
    cells = {(x.pool, x.job.job_class, x.gpus) for x in leases}
    fits = []
    for pool, job_class, gpus in sorted(cells, key=lambda c: (str(c[0]), c[1].name, c[2])):
        mean = _refit(pool, job_class, gpus, now)
        if mean is not None:
            fits.append((str(pool), job_class.name, mean))
    for lease in leases:
        Lease.objects.filter(pk=lease.pk, fitted_lines__lt=lease.progress_lines).update(
            fitted_lines=lease.progress_lines
        )
    return fits


@transaction.atomic
def _refit(pool: Pool, job_class: JobClass, gpus: int, now: datetime) -> float | None:
    """The new mean of a cell in samples/s; None when no lease counts that was measured."""
    # an offer with other hardware writes this row: it is read here, or what is written here goes
    Pool.objects.select_for_update(of=("self",), no_key=True).get(pk=pool.pk)
    cell = (pool.pk, job_class.pk, gpus)
    rows, since = measured_leases(cell), measured_since(cell)
    if since is not None:
        rows = rows.filter(created_at__gte=since)
    told = rows.select_related("job__tenant__member")
    known = list(told.order_by("-created_at", "-pk")[:LOOKED_AT])[::-1]
    if not known:
        return None  # what is new belongs to a lease from before
    kept = drift_forget(pool=pool, job_class=job_class, leases=known, now=now)[-WINDOW:]
    mean, log_sd = geometric_mean(_speeds(kept))
    MeasuredAffinity.objects.update_or_create(
        pool=pool,
        job_class=job_class,
        gpus=gpus,
        defaults={
            "samples_per_s": mean,
            "log_sd": log_sd,
            "leases": len(kept),
            "updated_at": now,
        },
    )
    return mean


def _speeds(leases: Sequence[Lease]) -> list[float]:
    """What each counts as. Where several tenants ran, none is heard for its outliers."""
    speeds = [lease.measured_samples_per_s or 1.0 for lease in leases]
    if len({lease.job.tenant_id for lease in leases}) == 1:
        return speeds
    return [math.exp(value) for value in reined_in([math.log(speed) for speed in speeds])]
