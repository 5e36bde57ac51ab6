"""From when on a pool's measurements count: it has other hardware, or is lastingly slower."""

from __future__ import annotations

from django.db import models

from federation.models.offers import JobClass
from federation.models.sites import Pool


class Forgotten(models.Model):
    """What was measured of a pool before a moment counts no more."""

    class Cause(models.TextChoices):
        HARDWARE = "hardware", "the pool has GPUs of another kind"
        DRIFT = "drift", "its leases run at another speed, and lastingly"

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="forgotten")
    #: null = every class
    job_class = models.ForeignKey(
        JobClass, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    gpus = models.PositiveIntegerField(null=True, blank=True, help_text="null = every gang size")
    cause = models.CharField(max_length=8, choices=Cause.choices)
    since = models.DateTimeField(help_text="leases made from then on count")
    why = models.CharField(max_length=300)
    found_at = models.DateTimeField()

    class Meta:
        ordering = ("-since",)
        indexes = [models.Index(fields=["pool", "since"], name="forgotten_by_pool")]

    def __str__(self) -> str:
        return f"pool {self.pool_id} before {self.since}: {self.cause}"
