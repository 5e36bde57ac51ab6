"""Who takes part: organisations, their people, and those who submit jobs."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models

from federation.models.base import Identified, name_field


class Member(Identified):
    """An organisation: owns sites, tenants, or both. The player of the market's mathematics."""

    name = name_field(unique=True)
    title = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


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
