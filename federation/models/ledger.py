"""Double-entry ledger in integer micro-credits. Append-only: the database refuses anything else."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from federation.models.base import Identified
from federation.models.leases import Contract
from federation.models.members import Member, Tenant
from federation.models.rounds import Round


class Account(Identified):
    """One purse. `balance_micro` is the sum of its entries, kept beside them for the checks."""

    class Kind(models.TextChoices):
        TENANT_CASH = "tenant_cash", "tenant's free funds"
        TENANT_ESCROW = "tenant_escrow", "tenant's funds in escrow"
        MEMBER_EARNINGS = "member_earnings", "member's earnings"
        MEMBER_BOND = "member_bond", "member's bonds for its sites' contracts"
        ROUNDING = "rounding", "rounding: always zero"
        ISSUANCE = "issuance", "issuance: the only source and sink"

    kind = models.CharField(max_length=16, choices=Kind.choices)
    currency = models.CharField(max_length=8)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, null=True, blank=True, related_name="accounts"
    )
    member = models.ForeignKey(
        Member, on_delete=models.PROTECT, null=True, blank=True, related_name="accounts"
    )
    balance_micro = models.BigIntegerField(default=0)

    class Meta:
        ordering = ("kind", "id")
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "currency", "tenant"],
                condition=Q(tenant__isnull=False),
                name="one_account_of_a_kind_for_each_tenant",
            ),
            models.UniqueConstraint(
                fields=["kind", "currency", "member"],
                condition=Q(member__isnull=False),
                name="one_account_of_a_kind_for_each_member",
            ),
            models.UniqueConstraint(
                fields=["kind", "currency"],
                condition=Q(member__isnull=True, tenant__isnull=True),
                name="one_account_of_a_kind_for_nobody",
            ),
            models.CheckConstraint(
                condition=~Q(kind__in=["tenant_cash", "tenant_escrow", "member_bond"])
                | Q(balance_micro__gte=0),
                name="nobody_spends_what_is_not_there",
            ),
            models.CheckConstraint(
                condition=~Q(kind="rounding") | Q(balance_micro=0),
                name="nothing_is_lost_to_rounding",
            ),
        ]

    def __str__(self) -> str:
        owner = self.tenant or self.member or "federation"
        return f"{self.get_kind_display()} of {owner} ({self.currency})"


class EntryGroup(Identified):
    """Entries that belong together and sum to zero. `key` makes a repeat harmless."""

    class Kind(models.TextChoices):
        DEPOSIT = "deposit", "deposit"
        ISSUE = "issue", "issue of credits"
        WITHDRAWAL = "withdrawal", "withdrawal"
        HOLD = "hold", "escrow held"
        SETTLE = "settle", "contract settled"
        STABILITY = "stability", "stability transfer"
        EARNEST = "earnest", "held at submission"
        RELEASE = "release", "given back unused"
        DIVIDEND = "dividend", "dividend of an epoch"
        DECAY = "decay", "unused credits that lost value"
        REVERSAL = "reversal", "an earlier group taken back"

    key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    currency = models.CharField(max_length=8)
    memo = models.CharField(max_length=300, blank=True)
    #: what the amounts follow from: round, price, forecast, GPU time, both counts
    facts = models.JSONField(default=dict, blank=True)
    reverses = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="reversed_by"
    )
    contract = models.ForeignKey(
        Contract, on_delete=models.PROTECT, null=True, blank=True, related_name="entry_groups"
    )
    round = models.ForeignKey(
        Round, on_delete=models.PROTECT, null=True, blank=True, related_name="entry_groups"
    )

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return self.key


class Entry(models.Model):
    """One side of a group. Positive = the account receives."""

    group = models.ForeignKey(EntryGroup, on_delete=models.PROTECT, related_name="entries")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    amount_micro = models.BigIntegerField()

    class Meta:
        verbose_name_plural = "entries"
        constraints = [
            models.UniqueConstraint(fields=["group", "account"], name="a_group_moves_a_purse_once"),
            models.CheckConstraint(condition=~Q(amount_micro=0), name="an_entry_moves_something"),
        ]

    def __str__(self) -> str:
        return f"{self.amount_micro:+d}"


class Link(models.Model):
    """A group's place in the chain of its currency: `digest` covers it and all before it."""

    group = models.OneToOneField(
        EntryGroup, on_delete=models.PROTECT, primary_key=True, related_name="link"
    )
    currency = models.CharField(max_length=8)
    position = models.BigIntegerField()
    digest = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["currency", "position"], name="one_link_at_each_place_of_a_chain"
            )
        ]

    def __str__(self) -> str:
        return f"{self.currency} {self.position}"


class ChainHead(models.Model):
    """The end of a currency's chain; locked while a group is linked to it."""

    currency = models.CharField(max_length=8, primary_key=True)
    position = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)

    def __str__(self) -> str:
        return f"{self.currency} {self.position}"
