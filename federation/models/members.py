"""Who takes part: organisations, their people, and those who submit jobs."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models

from federation.models.base import Identified, name_field


class Member(Identified):
    """An organisation: owns sites, tenants, or both. The player of the market's mathematics."""

    name = name_field(unique=True)
    title = models.CharField(max_length=200, blank=True)
    owner = models.CharField(
        max_length=63,
        blank=True,
        db_index=True,
        help_text="who stands behind it, when several members have one owner; empty = itself",
    )
    credit_micro = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="how far its earnings may go below zero; null = as the venue's rules say",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def behind(self) -> str:
        """The name of who stands behind it: the same for all members of one owner."""
        return self.owner or self.name


class Tenant(Identified):
    """Who submits jobs and pays for them; at home with one member."""

    member = models.ForeignKey(Member, on_delete=models.PROTECT, related_name="tenants")
    name = name_field(unique=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person or a programme that signs in. Operators are staff; a tenant's user acts for it."""

    member = models.ForeignKey(
        Member, on_delete=models.PROTECT, null=True, blank=True, related_name="users"
    )
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, null=True, blank=True, related_name="users"
    )
