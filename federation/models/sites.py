"""Datacenters, their GPUs, and how their agents prove who they are."""

from __future__ import annotations

from django.db import models

from federation.machines.site import MACHINE, SiteState
from federation.models.base import Identified, name_field, state_constraint, state_field
from federation.models.members import Member
from federation.models.venues import Venue


class Site(Identified):
    """One datacenter with an agent."""

    member = models.ForeignKey(Member, on_delete=models.PROTECT, related_name="sites")
    venue = models.ForeignKey(Venue, on_delete=models.PROTECT, related_name="sites")
    name = name_field(unique=True)
    state = state_field(MACHINE, SiteState.ENROLLED)
    last_sync_at = models.DateTimeField(null=True, blank=True)
    agent_version = models.CharField(max_length=64, blank=True)
    #: journal and start of the agent that speaks for the site; see services.syncs
    boot = models.CharField(max_length=64, blank=True)
    past_journals = models.JSONField(default=list)
    clock_skew_s = models.FloatField(null=True, blank=True)
    #: raised whenever the site's orders change; the gateway's long polls watch it
    orders_version = models.BigIntegerField(default=0)

    class Meta:
        ordering = ("name",)
        constraints = [state_constraint(MACHINE)]

    def __str__(self) -> str:
        return self.name


class Pool(Identified):
    """GPUs of one kind at a site: the identity that offers, leases and prices refer to."""

    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="pools")
    name = name_field()
    gpu = name_field()

    class Meta:
        ordering = ("site__name", "name")
        constraints = [
            models.UniqueConstraint(fields=["site", "name"], name="pool_name_is_unique_at_a_site")
        ]

    def __str__(self) -> str:
        return f"{self.site.name}.{self.name}"


class JoinToken(Identified):
    """A one-time right to become a site's agent. Only its hash is kept."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="join_tokens")
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"join token of {self.site_id}"


class AgentCredential(Identified):
    """What an agent signs its calls with. Only its hash is kept; `hint` is its first letters."""

    site = models.ForeignKey(Site, on_delete=models.CASCADE, related_name="credentials")
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=16)
    valid_until = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.hint}… of {self.site_id}"
