"""What jobs measured of their own steps, what of it is held back, and the models fitted to it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.leases import Lease
from federation.models.offers import JobClass
from federation.models.sites import Pool


class ThroughputSample(models.Model):
    """One measured step, or the mean of some. (lease, line) is its identity.

    Ids grow in the order of commits within one (pool, class): see `services.samples`. The index of
    the lease is that of its lines.
    """

    lease = models.ForeignKey(Lease, on_delete=models.CASCADE, related_name="+", db_index=False)
    # copied from the lease, which holds both rows: two checks less of each of very many rows
    pool = models.ForeignKey(
        Pool, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    job_class = models.ForeignKey(
        JobClass, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    seq = models.PositiveIntegerField(help_text="of the report that brought it")
    line = models.PositiveIntegerField(help_text="of the job's progress lines, from 1")
    received_at = models.DateTimeField()
    nodes = models.PositiveIntegerField()
    replicas = models.PositiveIntegerField()
    local_batch = models.FloatField(help_text="samples on one GPU in one pass")
    accumulation = models.PositiveIntegerField(default=0)
    step_s = models.FloatField()
    sync_s = models.FloatField(null=True, blank=True)
    grad_sqr = models.FloatField(null=True, blank=True)
    grad_var = models.FloatField(null=True, blank=True)
    memory_peak = models.BigIntegerField(null=True, blank=True, help_text="bytes on one GPU")

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=["pool", "job_class", "id"], name="sample_by_pair")]
        constraints = [
            models.UniqueConstraint(fields=["lease", "line"], name="sample_line_is_unique"),
            models.UniqueConstraint(fields=["lease", "seq"], name="sample_number_is_unique"),
            models.CheckConstraint(condition=Q(step_s__gt=0), name="step_takes_time"),
        ]

    def __str__(self) -> str:
        return f"line {self.line} of lease {self.lease_id}: {self.step_s:g} s"


class QuarantinedSample(models.Model):
    """A measurement that nothing is learned from, as it came, and why."""

    lease = models.ForeignKey(Lease, on_delete=models.CASCADE, related_name="+", db_index=False)
    seq = models.PositiveIntegerField(help_text="of the report that brought it")
    received_at = models.DateTimeField(db_index=True)
    body = models.JSONField()
    code = models.CharField(max_length=32)
    why = models.CharField(max_length=300)

    class Meta:
        ordering = ("lease", "seq")
        constraints = [
            models.UniqueConstraint(fields=["lease", "seq"], name="quarantine_number_is_unique")
        ]

    def __str__(self) -> str:
        return f"report {self.seq} of lease {self.lease_id}: {self.code}"


class StoredModel(models.Model):
    """The throughput model of a class on a pool, and how far it has read the samples."""

    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+")
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, related_name="+")
    #: a tally before there are two configurations, a model after; see `services.fits`
    body = models.JSONField(default=dict)
    version = models.PositiveIntegerField(default=0)
    waiting = models.BigIntegerField(default=0, help_text="samples that it has not read")
    samples = models.BigIntegerField(default=0, help_text="samples that it has read")
    last_sample = models.BigIntegerField(default=0, help_text="id of the newest of them")
    fitted_at = models.DateTimeField(null=True, blank=True)
    #: handed to a worker, and handed out again when it has not read its samples by then
    due_at = models.DateTimeField(null=True, blank=True)
    #: why there is no model yet; empty when there is one
    why = models.CharField(max_length=500, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=Q(waiting__gt=0), name="model_behind_samples")
        ]
        constraints = [
            models.UniqueConstraint(fields=["pool", "job_class"], name="one_model_for_each_pair")
        ]

    def __str__(self) -> str:
        return f"class {self.job_class_id} on pool {self.pool_id}: version {self.version}"


class ForecastAffinity(models.Model):
    """What a stored model says of one gang size; `low` and `high` hold nine of ten steps."""

    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+")
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, related_name="+")
    gpus = models.PositiveIntegerField()
    samples_per_s = models.FloatField(help_text="on `gpus` GPUs together")
    low = models.FloatField()
    high = models.FloatField()
    #: outside what was measured: shown, and not priced on before a probe at that size
    extrapolated = models.BooleanField()
    samples = models.BigIntegerField(help_text="samples behind the model")
    fitted_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["pool", "job_class", "gpus"], name="one_forecast_for_each_cell"
            )
        ]

    def __str__(self) -> str:
        return f"class {self.job_class_id} on pool {self.pool_id}: {self.samples_per_s:g}/s"
