"""What kin, catalogue and operators say of a speed that nobody has measured."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.offers import JobClass
from federation.models.sites import Pool


class PriorAffinity(models.Model):
    """A log-normal speed of a class on so many GPUs of a pool where it never ran."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="+")
    job_class = models.ForeignKey(JobClass, on_delete=models.CASCADE, related_name="+")
    gpus = models.PositiveIntegerField()
    log_mean = models.FloatField(help_text="of samples/s on `gpus` GPUs together")
    log_sd = models.FloatField()
    source = models.CharField(max_length=16, help_text="whose word weighs most")
    n = models.PositiveIntegerField(help_text="observations behind it")
    made_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["pool", "job_class", "gpus"], name="one_prior_for_each_cell"
            ),
            models.CheckConstraint(condition=Q(log_sd__gt=0), name="a_prior_has_a_spread"),
        ]

    def __str__(self) -> str:
        return f"class {self.job_class_id} on pool {self.pool_id}: {self.source}"
