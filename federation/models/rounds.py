"""Rounds, their frozen books and their prices."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.machines.round import MACHINE, RoundState
from federation.models.base import Identified, state_constraint, state_field
from federation.models.offers import Offer
from federation.models.sites import Pool
from federation.models.venues import Venue


class Round(Identified):
    """One batch auction."""

    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    state = state_field(MACHINE, RoundState.OPEN)
    closes_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    token = models.UUIDField(null=True, blank=True)
    claims = models.PositiveSmallIntegerField(default=0)
    claim_deadline = models.DateTimeField(null=True, blank=True)
    cleared_at = models.DateTimeField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    bids = models.PositiveIntegerField(default=0)
    offered_gpus = models.PositiveIntegerField(default=0)
    traded_gpu_hours = models.FloatField(default=0.0)
    #: the whole `hanse.clearing/1` document, gzip; null until cleared
    clearing = models.BinaryField(null=True, blank=True)
    clearing_sha256 = models.CharField(max_length=64, blank=True)
    welfare = models.FloatField(null=True, blank=True)
    bound = models.FloatField(null=True, blank=True)
    gap = models.FloatField(null=True, blank=True)
    regret = models.FloatField(null=True, blank=True)
    certified = models.BooleanField(default=False)
    solve_s = models.FloatField(null=True, blank=True)
    #: the jobs that it left out have not all been told why
    explanations_due = models.BooleanField(default=False)
    void_code = models.CharField(max_length=64, blank=True)
    void_why = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ("-created_at",)
        indexes = [
            models.Index(
                fields=["cleared_at"],
                condition=Q(explanations_due=True),
                name="round_owes_explanations",
            )
        ]
        constraints = [
            state_constraint(MACHINE),
            models.UniqueConstraint(fields=["venue", "number"], name="round_number_is_unique"),
            models.UniqueConstraint(
                fields=["venue"],
                condition=Q(state=RoundState.OPEN),
                name="one_open_round_for_each_venue",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.venue.name} #{self.number}"


class Snapshot(models.Model):
    """The frozen book of a round: canonical JSON, gzip, with the hash of the canonical text."""

    round = models.OneToOneField(Round, on_delete=models.CASCADE, related_name="snapshot")
    sha256 = models.CharField(max_length=64, db_index=True)
    body = models.BinaryField(null=True, blank=True, help_text="null once its retention is over")
    created_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.sha256[:12]


class RoundOffer(models.Model):
    """Which version of a site's offer a round used."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="offers_used")
    offer = models.ForeignKey(Offer, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["round", "offer"], name="round_uses_an_offer_once")
        ]

    def __str__(self) -> str:
        return f"offer {self.offer_id} in round {self.round_id}"


class PoolPrice(models.Model):
    """What one pool cleared at in one round."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="prices")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="prices")
    price_micro = models.BigIntegerField(help_text="micro-credits per GPU-hour")
    reserve_micro = models.BigIntegerField()
    gpus = models.PositiveIntegerField(help_text="GPUs in the book")
    traded_gpu_hours = models.FloatField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["round", "pool"], name="one_price_for_each_pool")
        ]

    def __str__(self) -> str:
        return f"pool {self.pool_id} at {self.price_micro} in round {self.round_id}"
