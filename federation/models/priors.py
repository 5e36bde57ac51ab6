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


class PriorStudy(models.Model):
    """How far the priors of all classes have followed what they are learnt from. One row."""

    digest = models.CharField(max_length=64, blank=True, help_text="of what was learnt from")
    #: class up to which they were made; they are made in the order of the classes' ids, in turns
    reached = models.UUIDField(null=True, blank=True)
    left = models.PositiveIntegerField(default=0, help_text="classes that are behind the digest")
    version = models.PositiveIntegerField(default=0)
    made_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"priors, run {self.version}: {self.left} classes behind"
