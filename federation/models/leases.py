"""From a clearing to running work: assignments, leases, contracts."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.machines import contract as contract_machine
from federation.machines import lease as lease_machine
from federation.machines.contract import ContractState
from federation.machines.lease import LeaseState
from federation.models.base import Identified, state_constraint, state_field
from federation.models.jobs import Job
from federation.models.rounds import Round
from federation.models.rules import Rules
from federation.models.sites import Pool, Site


class Assignment(models.Model):
    """A job given to a pool by a clearing."""

    class Status(models.TextChoices):
        RECORDED = "recorded", "recorded"
        WAITING = "waiting", "waiting for the job to stop elsewhere"
        PLACED = "placed", "placed"
        DROPPED = "dropped", "dropped"

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="assignments")
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="assignments")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="+")
    gpus = models.PositiveIntegerField()
    samples = models.BigIntegerField(help_text="samples sold in the round")
    samples_per_s = models.FloatField(help_text="forecast of the award")
    price_micro = models.BigIntegerField(help_text="micro-credits per GPU-hour")
    payment_micro = models.BigIntegerField()
    budget_micro = models.BigIntegerField(help_text="what the book let the job spend")
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.RECORDED)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["round", "job"], name="a_round_awards_a_job_once")
        ]

    def __str__(self) -> str:
        return f"job {self.job_id} on pool {self.pool_id}"


class Lease(Identified):
    """One attempt to run one job at one site."""

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="leases")
    attempt = models.PositiveIntegerField()
    round = models.ForeignKey(
        Round, on_delete=models.PROTECT, null=True, blank=True, related_name="leases"
    )
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="leases")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="leases")
    gpus = models.PositiveIntegerField()
    state = state_field(lease_machine.MACHINE, LeaseState.OFFERED)
    fence_s = models.FloatField()
    predicted_samples_per_s = models.FloatField(null=True, blank=True)
    #: when a reply that holds it was first made; null = no agent can have it
    delivered_at = models.DateTimeField(null=True, blank=True)
    #: the agent's journal that got it: no other may start it
    delivered_to = models.CharField(max_length=64, blank=True)
    #: arrival of the last sync that listed it
    renewed_at = models.DateTimeField()
    revoke_asked_at = models.DateTimeField(null=True, blank=True)
    revoke_code = models.CharField(max_length=64, blank=True)
    revoke_why = models.CharField(max_length=300, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=32, blank=True)
    end_message = models.CharField(max_length=1000, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    samples = models.BigIntegerField(default=0)
    gpu_seconds = models.FloatField(default=0.0)
    measured_samples_per_s = models.FloatField(null=True, blank=True)
    progress_lines = models.PositiveIntegerField(default=0)
    loss = models.FloatField(null=True, blank=True)
    #: the contract its agent books work under, all reports before it being on record
    booked_sequence = models.PositiveIntegerField(default=0)
    fitted_lines = models.PositiveIntegerField(default=0)
    log_bytes = models.BigIntegerField(default=0)
    log_truncated = models.BooleanField(default=False)
    #: how the planner split the job over these GPUs; null = it was not asked
    plan = models.JSONField(null=True, blank=True)
    reports_highest = models.PositiveIntegerField(default=0)
    reports_stored = models.PositiveIntegerField(default=0)
    end_seq = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        indexes = [models.Index(fields=["site", "state"], name="lease_site_state")]
        constraints = [
            state_constraint(lease_machine.MACHINE),
            models.UniqueConstraint(fields=["job", "attempt"], name="attempt_number_is_unique"),
            models.UniqueConstraint(
                fields=["job"],
                condition=Q(state__in=sorted(lease_machine.LIVE)),
                name="one_live_lease_for_each_job",
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.attempt} of job {self.job_id}"


class Contract(Identified):
    """Work promised at a rate. `contracted` and `delivered` count samples, or GPU-milliseconds
    for a probe, whose rate nobody knows yet."""

    class Basis(models.TextChoices):
        SAMPLES = "samples", "samples"
        GPU_MS = "gpu_ms", "GPU-milliseconds"

    lease = models.ForeignKey(Lease, on_delete=models.PROTECT, related_name="contracts")
    sequence = models.PositiveIntegerField()
    round = models.ForeignKey(
        Round, on_delete=models.PROTECT, null=True, blank=True, related_name="contracts"
    )
    state = state_field(contract_machine.MACHINE, ContractState.HELD)
    basis = models.CharField(max_length=8, choices=Basis.choices, default=Basis.SAMPLES)
    gpus = models.PositiveIntegerField()
    price_micro = models.BigIntegerField(help_text="micro-credits per GPU-hour")
    contracted = models.BigIntegerField()
    payment_micro = models.BigIntegerField(help_text="in escrow; the most it can cost")
    reserve_micro = models.BigIntegerField(default=0, help_text="micro-credits per GPU-hour")
    bond_micro = models.BigIntegerField(default=0, help_text="the seller's, held with the escrow")
    #: the version of the venue's rules that it is settled by; null = a probe, paid by time
    rules = models.ForeignKey(
        Rules, on_delete=models.PROTECT, null=True, blank=True, related_name="contracts"
    )
    #: planned end of the round that sold it; of a contract `to_end`, when patience ends
    ends_at = models.DateTimeField(null=True, blank=True)
    #: covers all the job's work: not preemptible, or on its last lap; the book leaves it alone
    to_end = models.BooleanField(default=False)
    extensions = models.PositiveIntegerField(default=0)
    superseded_at = models.DateTimeField(null=True, blank=True)
    delivered = models.BigIntegerField(default=0)
    gpu_seconds = models.FloatField(default=0.0)
    #: highest total of its lease that was told under it
    gpu_seconds_told = models.FloatField(default=0.0)
    #: the trainer's own count, when it has said its last
    counted = models.BigIntegerField(null=True, blank=True)
    #: samples due until it ended, and whose doing a shortfall is
    due = models.BigIntegerField(null=True, blank=True)
    cause = models.CharField(max_length=8, blank=True)
    accepted = models.BigIntegerField(null=True, blank=True, help_text="samples paid for")
    penalty_micro = models.BigIntegerField(null=True, blank=True, help_text="of the bond")
    #: how often its settlement was posted; each later one reverses the one before
    postings = models.PositiveSmallIntegerField(default=0)
    paid_micro = models.BigIntegerField(null=True, blank=True)
    refunded_micro = models.BigIntegerField(null=True, blank=True)
    settled_at = models.DateTimeField(null=True, blank=True)
    #: how it stands to the quote that its job cites, and why in a sentence; empty = cites none
    quote_code = models.CharField(max_length=32, blank=True)
    quote_why = models.CharField(max_length=500, blank=True)
    #: when objections are no longer heard
    final_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        indexes = [models.Index(fields=["settled_at"], name="contract_by_settlement")]
        constraints = [
            state_constraint(contract_machine.MACHINE),
            models.UniqueConstraint(
                fields=["lease", "sequence"], name="contract_sequence_is_unique"
            ),
            models.CheckConstraint(
                condition=Q(payment_micro__gte=0)
                & Q(contracted__gte=0)
                & Q(delivered__gte=0)
                & Q(bond_micro__gte=0),
                name="a_contract_counts_upwards",
            ),
        ]

    def __str__(self) -> str:
        return f"contract {self.sequence} of lease {self.lease_id}"
