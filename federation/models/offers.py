"""The sell side: job classes, offers with speeds, and what was measured of them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.machines.offer import MACHINE, OfferState
from federation.models.base import Identified, name_field, state_constraint, state_field
from federation.models.members import Member
from federation.models.sites import Pool, Site


class JobClass(Identified):
    """What runs: model family, batch size, precision. One row of the affinity matrix."""

    name = name_field(unique=True)
    title = models.CharField(max_length=200, blank=True)
    #: what is known of the work before anybody runs it: operations, parameters, operators
    profile = models.JSONField(default=dict, blank=True)
    owner = models.ForeignKey(
        Member, on_delete=models.PROTECT, null=True, blank=True, related_name="job_classes"
    )

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "job classes"

    def __str__(self) -> str:
        return self.name


class Offer(Identified):
    """A site's stated capacity, reserve prices and speeds. A change is a new version."""

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="offers")
    version = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    state = state_field(MACHINE, OfferState.ACTIVE)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=1000, blank=True)
    #: what the site says of jobs that it does not take: federation.admission.Published
    rules = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            state_constraint(MACHINE),
            models.UniqueConstraint(fields=["site", "version"], name="offer_version_is_unique"),
            models.UniqueConstraint(
                fields=["site"],
                condition=Q(state__in=[OfferState.ACTIVE, OfferState.PAUSED]),
                name="one_current_offer_for_each_site",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.site.name} v{self.version}"


class OfferPool(models.Model):
    """How many GPUs of a pool are on offer, and the least the site accepts."""

    offer = models.ForeignKey(Offer, on_delete=models.CASCADE, related_name="pools")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+")
    gpus = models.PositiveIntegerField()
    reserve_micro = models.BigIntegerField(help_text="micro-credits per GPU-hour")
    #: memory, peak and links of a GPU as the site says; what is left out is read from data sheets
    device = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["offer", "pool"], name="offer_names_a_pool_once"),
            models.CheckConstraint(
                condition=Q(reserve_micro__gte=0), name="reserve_is_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.gpus} GPU of pool {self.pool_id}"


class OfferAffinity(models.Model):
    """How fast a class runs on a pool, as the site says."""

    class Source(models.TextChoices):
        DECLARED = "declared", "declared"
        PROBED = "probed", "probed"

    offer = models.ForeignKey(Offer, on_delete=models.CASCADE, related_name="affinities")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+")
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, related_name="+")
    gpus = models.PositiveIntegerField(default=1)
    samples_per_s = models.FloatField(help_text="on `gpus` GPUs together")
    source = models.CharField(max_length=8, choices=Source.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["offer", "pool", "job_class", "gpus"], name="offer_states_a_speed_once"
            ),
            models.CheckConstraint(
                condition=Q(samples_per_s__gt=0), name="stated_speed_is_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"class {self.job_class_id} on pool {self.pool_id}: {self.samples_per_s:g}/s"


class MeasuredAffinity(models.Model):
    """How fast a class really ran on a pool, over its recent leases."""

    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="measured")
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, related_name="measured")
    gpus = models.PositiveIntegerField()
    samples_per_s = models.FloatField(help_text="geometric mean over leases")
    log_sd = models.FloatField(default=0.0)
    leases = models.PositiveIntegerField(help_text="leases behind the mean")
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["pool", "job_class", "gpus"], name="one_measured_speed_for_each_cell"
            )
        ]

    def __str__(self) -> str:
        return f"class {self.job_class_id} on pool {self.pool_id}: {self.samples_per_s:g}/s"
