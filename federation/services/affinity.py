"""Measured beats declared: fold the speeds that leases showed into each cell's measurement."""

from __future__ import annotations

from datetime import datetime

from django.db.models import F

from federation.affinity.believed import geometric_mean
from federation.models import Lease, MeasuredAffinity
from federation.services.fits import model_forget, models_refit
from federation.services.guard import MIN_LINES, claims_confirm, measured_leases, measured_since

WINDOW = 20  #: newest leases behind a cell's mean


def affinity_refit(*, now: datetime, limit: int = 1000) -> list[tuple[str, str, float]]:
    """Refit every cell that has new reports. Returns (pool, class, samples/s) of each.

    Claims that were reached are confirmed first; leases and measured steps from before such a claim
    count no more.
    Throughput models read the steps that jobs measured since.
    """
    for alarm in claims_confirm(now=now):
        if alarm.pool_id is not None and alarm.job_class_id is not None:
            model_forget(pool=alarm.pool_id, job_class=alarm.job_class_id, before=alarm.created_at)
    models_refit(now=now)
    fresh = Lease.objects.filter(
        measured_samples_per_s__gt=0,
        progress_lines__gte=MIN_LINES,
        progress_lines__gt=F("fitted_lines"),
    ).select_related("pool__site", "job__job_class")[:limit]
    leases = list(fresh)
    cells = {(x.pool, x.job.job_class, x.gpus) for x in leases}
    fits = []
    for pool, job_class, gpus in sorted(cells, key=lambda c: (str(c[0]), c[1].name, c[2])):
        cell = (pool.pk, job_class.pk, gpus)
        rows, since = measured_leases(cell), measured_since(cell)
        if since is not None:
            rows = rows.filter(created_at__gte=since)
        speeds = list(
            rows.order_by("-created_at").values_list("measured_samples_per_s", flat=True)[:WINDOW]
        )
        if not speeds:
            continue  # it belongs to a lease from before a claim that was confirmed
        mean, log_sd = geometric_mean([s for s in speeds if s is not None])
        MeasuredAffinity.objects.update_or_create(
            pool=pool,
            job_class=job_class,
            gpus=gpus,
            defaults={
                "samples_per_s": mean,
                "log_sd": log_sd,
                "leases": len(speeds),
                "updated_at": now,
            },
        )
        fits.append((str(pool), job_class.name, mean))
    for lease in leases:
        Lease.objects.filter(pk=lease.pk, fitted_lines__lt=lease.progress_lines).update(
            fitted_lines=lease.progress_lines
        )
    return fits
