"""Measured beats declared: fold the speeds that leases showed into each cell's measurement."""

from __future__ import annotations

from datetime import datetime

from django.db.models import F

from federation.affinity.believed import geometric_mean
from federation.models import Lease, MeasuredAffinity

MIN_LINES = 2  #: progress lines before a lease's speed counts
WINDOW = 20  #: newest leases behind a cell's mean


def affinity_refit(*, now: datetime, limit: int = 1000) -> list[tuple[str, str, float]]:
    """Refit every cell that has new reports. Returns (pool, class, samples/s) of each."""
    fresh = Lease.objects.filter(
        measured_samples_per_s__gt=0,
        progress_lines__gte=MIN_LINES,
        progress_lines__gt=F("fitted_lines"),
    ).select_related("pool__site", "job__job_class")[:limit]
    leases = list(fresh)
    cells = {(x.pool, x.job.job_class, x.gpus) for x in leases}
    fits = []
    for pool, job_class, gpus in sorted(cells, key=lambda c: (str(c[0]), c[1].name, c[2])):
        speeds = list(
            Lease.objects.filter(
                pool=pool,
                gpus=gpus,
                job__job_class=job_class,
                measured_samples_per_s__gt=0,
                progress_lines__gte=MIN_LINES,
            )
            .order_by("-created_at")
            .values_list("measured_samples_per_s", flat=True)[:WINDOW]
        )
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
