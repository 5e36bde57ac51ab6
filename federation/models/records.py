"""How a site has kept its word: its record, and what should be looked at."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.base import Identified
from federation.models.offers import JobClass
from federation.models.sites import Pool, Site


class SiteRecord(models.Model):
    """What a site's settled contracts say of it. It moves the rate of its bonds, nothing else."""

    site = models.OneToOneField(
        Site, on_delete=models.CASCADE, primary_key=True, related_name="record"
    )
    contracts = models.PositiveIntegerField(default=0, help_text="with tenants of other owners")
    non_starts = models.PositiveIntegerField(default=0)
    #: mean logarithm of measured over claimed speed; 0 = as claimed
    log_ratio = models.FloatField(default=0.0)
    score = models.FloatField(default=0.5, help_text="0 to 1; a newcomer has one half")
    bond_ppm = models.PositiveIntegerField(
        null=True, blank=True, help_text="rate of its bonds; null = as the venue's rules say"
    )
    updated_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"record of {self.site_id}"


class Alarm(Identified):
    """Something that an operator should look at: seen by a rule, from stored figures."""

    class Kind(models.TextChoices):
        DRIFT = "drift", "measured speed has drifted from what was claimed"
        RATIO = "ratio", "ten contracts in a row below nine tenths of the claim"
        CLAIM = "claim", "a claim above what was measured waits for a probe"
        NON_START = "non_start", "leases that never started"
        FORGED = "forged", "a report above what the hardware can do"
        WITHHOLDING = "withholding", "busy while it offers less"
        RING = "ring", "payments that go round in a circle"
        PIVOTAL = "pivotal", "a supplier that the market cannot do without"

    kind = models.CharField(max_length=12, choices=Kind.choices)
    site = models.ForeignKey(
        Site, on_delete=models.CASCADE, null=True, blank=True, related_name="alarms"
    )
    pool = models.ForeignKey(
        Pool, on_delete=models.CASCADE, null=True, blank=True, related_name="alarms"
    )
    job_class = models.ForeignKey(
        JobClass, on_delete=models.CASCADE, null=True, blank=True, related_name="alarms"
    )
    #: what it is about, in one text: the same thing raises one alarm at a time
    about = models.CharField(max_length=200)
    why = models.CharField(max_length=1000)
    figures = models.JSONField(default=dict)
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "about"],
                condition=Q(closed_at__isnull=True),
                name="one_open_alarm_for_each_thing",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}"
