"""The second counter of a contract, and what happens when a party objects."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.base import Identified
from federation.models.leases import Contract


class Count(Identified):
    """What the tenant's trainer counted under a contract. (contract, seq) is its identity."""

    contract = models.ForeignKey(Contract, on_delete=models.CASCADE, related_name="counts")
    seq = models.PositiveIntegerField()
    samples = models.BigIntegerField(help_text="under this contract, so far")
    last = models.BooleanField(default=False, help_text="the trainer counts no more")
    actor = models.CharField(max_length=100)

    class Meta:
        ordering = ("contract", "seq")
        constraints = [
            models.UniqueConstraint(fields=["contract", "seq"], name="count_number_is_unique"),
            models.CheckConstraint(condition=Q(samples__gte=0), name="a_count_is_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.samples} samples of contract {self.contract_id}"


class Dispute(Identified):
    """An objection to a contract's figures. It freezes that contract's money alone."""

    class State(models.TextChoices):
        OPEN = "open", "waits for a decision"
        DECIDED = "decided", "decided"

    class By(models.TextChoices):
        BROKER = "broker", "the broker: the two counters differ"
        TENANT = "tenant", "the tenant"
        SITE = "site", "the site's member"

    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, related_name="disputes")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    by = models.CharField(max_length=8, choices=By.choices)
    actor = models.CharField(max_length=100)
    code = models.CharField(max_length=64)
    why = models.CharField(max_length=1000)
    #: samples that the objecting party says were delivered
    claimed = models.BigIntegerField(null=True, blank=True)
    #: the decision: samples accepted, whose doing the shortfall was, and the reason
    accepted = models.BigIntegerField(null=True, blank=True)
    cause = models.CharField(max_length=8, blank=True)
    decision_why = models.CharField(max_length=1000, blank=True)
    decided_by = models.CharField(max_length=100, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["contract"],
                condition=Q(state="open"),
                name="one_open_dispute_for_each_contract",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "decided"]), name="dispute_state_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"dispute of contract {self.contract_id}"


class Evidence(Identified):
    """What a party brings to a dispute. Kept as it was brought."""

    dispute = models.ForeignKey(Dispute, on_delete=models.PROTECT, related_name="evidence")
    actor = models.CharField(max_length=100)
    text = models.CharField(max_length=4000)
    body = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("created_at", "id")
        verbose_name_plural = "evidence"

    def __str__(self) -> str:
        return self.text[:60]
