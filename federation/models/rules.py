"""What a venue's members agreed on: versions of its rules, each succeeded, none changed."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from federation.models.base import Identified
from federation.models.members import Member
from federation.models.venues import DAY, Venue, between

MILLION = 1_000_000


def share(default_ppm: int, words: str) -> models.PositiveIntegerField[int, int]:
    """A share of one, in parts per million: money is never multiplied by a float."""
    return models.PositiveIntegerField(
        default=default_ppm, validators=between(0, MILLION), help_text=words
    )


class Rules(Identified):
    """One version of a venue's rules. A contract keeps the version that it was made under."""

    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="rules")
    version = models.PositiveIntegerField()
    actor = models.CharField(max_length=100)
    why = models.CharField(max_length=300)
    #: digest of the preview that was shown before it was set; empty for a venue's first version
    preview_sha256 = models.CharField(max_length=64, blank=True)

    alpha_ppm = share(0, "dividend: how far payoffs move from the market's to the nucleolus")
    dividend_cap_ppm = share(
        100_000, "largest dividend of a member, of all that was paid in the epoch"
    )
    kappa_ppm = share(500_000, "penalty for a missing sample, of its price")
    dead_band_ppm = share(50_000, "shortfall without a penalty, of what was due")
    bond_ppm = share(200_000, "seller's bond, of the contract's price, at a clean record")
    non_start_ppm = share(MILLION, "penalty for a lease that never starts, of the bond")
    tolerance_ppm = share(20_000, "how far the two counters of a contract may differ")
    earnest_ppm = share(0, "held when a job is submitted, of its max_cost")
    decay_ppm = share(20_000, "credits only: what unused credits lose in a week")
    window_s = models.FloatField(
        default=3 * DAY,
        validators=between(0, 366 * DAY),
        help_text="Seconds after its settlement in which a contract may be disputed.",
    )
    start_allowance_s = models.FloatField(
        default=60.0,
        validators=between(0, DAY),
        help_text="Seconds of a lease in which no samples are due: transfer and start.",
    )
    member_credit_micro = models.BigIntegerField(
        default=1000 * MILLION,
        validators=[MinValueValidator(0), MaxValueValidator(10**15)],
        help_text="How far a member's earnings may go below zero for its bonds.",
    )
    issue_per_gpu_hour_micro = models.BigIntegerField(
        default=0,
        validators=[MinValueValidator(0), MaxValueValidator(10**15)],
        help_text="Credits only: issued to a member for each GPU-hour it delivered to others.",
    )
    price_caps = models.JSONField(
        default=dict, blank=True, help_text="GPU kind: most a GPU-hour may cost, micro-credits."
    )
    time_zone = models.CharField(
        max_length=63, default="UTC", help_text="Whose midnight ends a statement's month."
    )

    class Meta:
        ordering = ("venue__name", "-version")
        verbose_name_plural = "rules"
        constraints = [
            models.UniqueConstraint(
                fields=["venue", "version"], name="rules_version_is_unique_in_a_venue"
            )
        ]

    def __str__(self) -> str:
        return f"rules {self.version} of {self.venue.name}"


class Consent(Identified):
    """A member's word that it accepts a version of the rules, dividend included."""

    rules = models.ForeignKey(Rules, on_delete=models.PROTECT, related_name="consents")
    member = models.ForeignKey(Member, on_delete=models.PROTECT, related_name="consents")
    actor = models.CharField(max_length=100)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rules", "member"], name="a_member_consents_once")
        ]

    def __str__(self) -> str:
        return f"{self.member} to {self.rules}"


class Epoch(Identified):
    """A period whose gain is shared: what the market paid, and the dividend that follows."""

    class State(models.TextChoices):
        PROPOSED = "proposed", "computed and shown"
        POSTED = "posted", "posted to the ledger"
        REFUSED = "refused", "not every member had agreed"

    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="epochs")
    rules = models.ForeignKey(Rules, on_delete=models.PROTECT, related_name="epochs")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.PROPOSED)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    rounds = models.PositiveIntegerField()
    #: payoffs under every rule, transfers in micro-credits, blocking coalitions
    document = models.JSONField()
    sha256 = models.CharField(max_length=64)
    why = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ("-ends_at",)
        constraints = [
            models.UniqueConstraint(fields=["venue", "number"], name="epoch_number_is_unique"),
            models.CheckConstraint(
                condition=Q(state__in=["proposed", "posted", "refused"]),
                name="epoch_state_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"epoch {self.number} of {self.venue.name}"
