"""Reads of the ledger: balances, trial balance, statements."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Sum
from django.db.models.functions import Coalesce

from federation.models import Account, Contract, Entry, EntryGroup, Member, Tenant, Venue


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """Sums that must all be zero, in micro-credits."""

    entries_micro: int  #: all entries ever
    balances_micro: int  #: all purses
    unbalanced_groups: int  #: groups whose entries do not sum to zero
    wrong_purses: int  #: purses whose balance is not the sum of their entries

    @property
    def holds(self) -> bool:
        return not any(
            (self.entries_micro, self.balances_micro, self.unbalanced_groups, self.wrong_purses)
        )


@dataclass(frozen=True, slots=True)
class StatementLine:
    at: datetime
    kind: str
    what: str
    amount_micro: int  #: + received, - paid
    contract: Contract | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One member's period: what its sites earned, what its tenants paid."""

    member: Member
    currency: str
    earned_micro: int
    paid_micro: int
    transfers_micro: int
    tenant_funds_micro: int
    lines: tuple[StatementLine, ...]

    @property
    def net_micro(self) -> int:
        return self.earned_micro + self.transfers_micro - self.paid_micro


def funds_micro(tenant: Tenant, venue: Venue) -> int:
    """What a tenant can still promise, micro-credits."""
    return balance_micro(Account.Kind.TENANT_CASH, tenant, venue)


def escrow_micro(tenant: Tenant, venue: Venue) -> int:
    return balance_micro(Account.Kind.TENANT_ESCROW, tenant, venue)


def balance_micro(kind: str, tenant: Tenant, venue: Venue) -> int:
    return (
        Account.objects.filter(kind=kind, tenant=tenant, currency=venue.currency)
        .values_list("balance_micro", flat=True)
        .first()
        or 0
    )


def trial_balance() -> TrialBalance:
    """Add the whole ledger up in the database."""
    total = Coalesce(Sum("amount_micro"), 0)
    groups = Entry.objects.values("group").annotate(total=Sum("amount_micro")).exclude(total=0)
    purses = Account.objects.annotate(total=Coalesce(Sum("entries__amount_micro"), 0))
    return TrialBalance(
        entries_micro=Entry.objects.aggregate(t=total)["t"],
        balances_micro=Account.objects.aggregate(t=Coalesce(Sum("balance_micro"), 0))["t"],
        unbalanced_groups=groups.count(),
        wrong_purses=sum(1 for p in purses if p.total != p.balance_micro),
    )


def statement(
    member: Member, *, currency: str, since: datetime | None = None, until: datetime | None = None
) -> Statement:
    """A member's statement for `[since, until)`; open ends mean from the first, to now."""
    rows = Entry.objects.filter(group__currency=currency).select_related(
        "group__contract__lease__job", "group__contract__lease__site", "group__round", "account"
    )
    if since is not None:
        rows = rows.filter(group__created_at__gte=since)
    if until is not None:
        rows = rows.filter(group__created_at__lt=until)
    earned = rows.filter(account__kind=Account.Kind.MEMBER_EARNINGS, account__member=member)
    spent = rows.filter(
        account__kind=Account.Kind.TENANT_ESCROW,
        account__tenant__member=member,
        group__kind=EntryGroup.Kind.SETTLE,
    )
    lines = [_line(e, e.amount_micro) for e in earned]
    lines += [_line(e, -(e.group.contract.paid_micro or 0)) for e in spent if e.group.contract]
    lines.sort(key=lambda line: line.at)
    sales = sum(x.amount_micro for x in lines if x.kind == "settle" and x.amount_micro > 0)
    paid = -sum(x.amount_micro for x in lines if x.kind == "settle" and x.amount_micro < 0)
    return Statement(
        member=member,
        currency=currency,
        earned_micro=sales,
        paid_micro=paid,
        transfers_micro=sum(x.amount_micro for x in lines if x.kind == "stability"),
        tenant_funds_micro=sum(
            Account.objects.filter(
                tenant__member=member, currency=currency, kind__startswith="tenant_"
            ).values_list("balance_micro", flat=True)
        ),
        lines=tuple(line for line in lines if line.amount_micro),
    )


def _line(entry: Entry, amount_micro: int) -> StatementLine:
    contract = entry.group.contract
    if contract is not None:
        lease = contract.lease
        what = f"{lease.job.name} at {lease.site.name}, contract {contract.sequence}"
    elif entry.group.round is not None:
        what = f"round {entry.group.round.number}"
    else:
        what = entry.group.memo
    return StatementLine(
        at=entry.group.created_at,
        kind=entry.group.kind,
        what=what,
        amount_micro=amount_micro,
        contract=contract,
    )
