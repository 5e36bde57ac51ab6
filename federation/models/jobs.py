"""The buy side: jobs and the keys that keep a repeated request from making two."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.machines.job import MACHINE, JobState
from federation.models.base import Identified, name_field, state_constraint, state_field
from federation.models.members import Tenant
from federation.models.offers import JobClass
from federation.models.venues import Venue


class Job(Identified):
    """One piece of work of a class, with its bid. What was asked never changes after submission.

    The sizes and pools of a described model are the planner's choice, and may be chosen again from
    `wished`.
    """

    class Kind(models.TextChoices):
        TRAINING = "training", "training"
        PROBE = "probe", "probe"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="jobs")
    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="jobs")
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.TRAINING)
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="probes"
    )
    name = name_field(db_index=True)
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, related_name="jobs")
    command = models.TextField()
    setup = models.TextField(blank=True)
    env = models.JSONField(default=dict)
    gpus = models.JSONField(help_text="gang sizes, ascending; one of them is awarded")
    gpu_kinds = models.JSONField(default=list, help_text="kinds it may run on; empty = any")
    sites_allow = models.JSONField(default=list)
    sites_deny = models.JSONField(default=list)
    pools = models.JSONField(default=list)
    samples = models.BigIntegerField()
    value_micro = models.BigIntegerField(help_text="micro-credits per million samples")
    max_cost_micro = models.BigIntegerField()
    deadline = models.DateTimeField(null=True, blank=True)
    preemptible = models.BooleanField(default=True)
    max_runtime_s = models.FloatField()
    grace_s = models.FloatField()
    #: what is trained, as the planner reads it; null = the tenant split it by itself
    model = models.JSONField(null=True, blank=True)
    #: with a model: the `gpus` and `pools` that the tenant itself named, before any were chosen
    wished = models.JSONField(null=True, blank=True)
    #: the quote that it cites, and what that said: kept after the quote itself is forgotten
    quote = models.UUIDField(null=True, blank=True)
    quoted = models.JSONField(null=True, blank=True)
    #: jobs of one group differ only in their bids and amounts; see federation.grouping
    group = models.CharField(max_length=32, blank=True, default="", editable=False)

    state = state_field(MACHINE, JobState.PENDING)
    reason_code = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=1000, blank=True)
    samples_done = models.BigIntegerField(default=0)
    spent_micro = models.BigIntegerField(default=0)
    held_micro = models.BigIntegerField(default=0)
    #: in escrow since its submission, until its first contract or its end
    earnest_micro = models.BigIntegerField(default=0)
    #: the tenant wants it stopped, but a closed round holds its bid
    cancel_asked_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    site_failures = models.PositiveIntegerField(default=0)
    updated_at = models.DateTimeField(db_index=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    #: the last round that looked at it, and what that round said
    outcome_round = models.PositiveIntegerField(null=True, blank=True)
    outcome_code = models.CharField(max_length=64, blank=True)
    outcome_why = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = [
            models.Index(fields=["venue", "state"], name="job_venue_state"),
            models.Index(fields=["tenant", "-created_at"], name="job_tenant_newest"),
            models.Index(
                fields=["ended_at"], condition=Q(earnest_micro__gt=0), name="job_earnest_by_end"
            ),
        ]
        constraints = [
            state_constraint(MACHINE),
            models.CheckConstraint(
                condition=Q(samples__gt=0) & Q(value_micro__gt=0) & Q(max_cost_micro__gt=0),
                name="a_bid_is_positive",
            ),
            models.CheckConstraint(
                condition=Q(spent_micro__gte=0) & Q(held_micro__gte=0) & Q(earnest_micro__gte=0),
                name="a_job_never_spends_a_negative_sum",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """The answer to a create request, kept so that a repeat gets the same one."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    body_sha256 = models.CharField(max_length=64)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="one_answer_for_each_key")
        ]

    def __str__(self) -> str:
        return self.key
