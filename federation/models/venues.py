"""Markets: pools, rules, round length and currency."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from economics.rows import POLICIES
from federation.models.base import Identified, name_field

DAY = 86400.0


def between(least: float, most: float) -> list[MinValueValidator | MaxValueValidator]:
    """Validators of a closed range: an absurd setting must not stop the market."""
    return [MinValueValidator(least), MaxValueValidator(most)]


def policy_choices() -> list[tuple[str, str]]:
    """The policies that the market knows, for forms; the database takes any name."""
    return [(name, name) for name in POLICIES]


class Venue(Identified):
    """One market. Its settings are read when a round closes and frozen in the snapshot."""

    class Currency(models.TextChoices):
        CASH = "cash", "cash"
        CREDITS = "credits", "credits"

    name = name_field(unique=True)
    currency = models.CharField(max_length=8, choices=Currency.choices, default=Currency.CASH)
    round_s = models.FloatField(default=300.0, validators=between(1, DAY))
    renew_s = models.FloatField(default=60.0, validators=between(1, DAY))
    fence_s = models.FloatField(default=1800.0, validators=between(1, 30 * DAY))
    fence_margin_s = models.FloatField(default=30.0, validators=between(0.5, DAY))
    grace_s = models.FloatField(default=30.0, validators=between(0, DAY))
    restart_s = models.FloatField(
        default=60.0,
        validators=between(0, DAY),
        help_text="Seconds of work that moving a running job costs.",
    )
    probe_s = models.FloatField(default=30.0, validators=between(1, DAY))
    probe_pools = models.PositiveSmallIntegerField(default=3)
    settle_after_s = models.FloatField(
        default=86400.0,
        validators=between(1, 366 * DAY),
        help_text="A contract whose last reports never come is settled on what is known by then.",
    )
    solve_patience_s = models.FloatField(default=120.0, validators=between(1, DAY))
    retention_days = models.PositiveIntegerField(
        default=400,
        validators=between(1, 36600),
        help_text="Snapshots keep their body this long; their hash is kept for good.",
    )
    policy = models.CharField(
        max_length=32,
        choices=policy_choices,
        default="surplus",
        help_text="What a round aims at.",
    )
    policy_parameters = models.JSONField(
        default=dict, blank=True, help_text="The policy's own numbers, by name."
    )
    seller_share = models.FloatField(default=0.5, validators=between(0, 1))
    epsilon = models.FloatField(default=0.005, validators=between(0, 0.5))
    core_repair = models.BooleanField(default=True)
    paused = models.BooleanField(default=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """A form sends empty parameters as null. What they may hold is `federation.policies`'."""
        self.policy_parameters = self.policy_parameters or {}
