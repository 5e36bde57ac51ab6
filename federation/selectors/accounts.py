"""Reads of the ledger: balances, trial balance, statements."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from federation.bulk import rows_among
from federation.machines.contract import ContractState
from federation.models import Account, Contract, Entry, EntryGroup, Member, Tenant, Venue

Kind = EntryGroup.Kind
SETTLED = (Kind.SETTLE, Kind.REVERSAL)


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


def at_stake_micro(purse: Account, now: datetime) -> int:
    """What decisions about contracts that are not final may still take from a purse.

    Of a tenant's free funds: refunds and penalties that it got, less what disputes hold of them in
    escrow. Of a member's earnings: what its sites were paid, and bonds that were given back.
    """
    open_to_objection = Q(state=ContractState.DISPUTED) | Q(
        state=ContractState.SETTLED, final_at__gt=now
    )
    rows = Contract.objects.filter(
        open_to_objection, paid_micro__isnull=False, lease__job__venue__currency=purse.currency
    )
    penalty = Coalesce(F("penalty_micro"), 0)
    if purse.tenant_id is not None:
        rows = rows.filter(lease__job__tenant=purse.tenant_id)
        given = F("refunded_micro") + penalty
        frozen = Entry.objects.filter(
            group__contract__in=rows,
            group__kind__in=[Kind.EARNEST, Kind.RELEASE],
            account__kind=Account.Kind.TENANT_ESCROW,
        ).aggregate(total=Coalesce(Sum("amount_micro"), 0))["total"]
    else:
        rows = rows.filter(lease__site__member=purse.member_id)
        given = F("paid_micro") + F("bond_micro") - penalty
        frozen = 0
    return int(rows.aggregate(total=Coalesce(Sum(given), 0))["total"]) - int(frozen)


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
    """A member's statement for `[since, until)`; open ends mean from the first, to now.

    A line is what one group moved: on the member's earnings and bonds together (a bond that is
    held or given back is its own money still), or in a settlement on one of its tenants' purses.
    """
    rows = Entry.objects.filter(group__currency=currency)
    if since is not None:
        rows = rows.filter(group__created_at__gte=since)
    if until is not None:
        rows = rows.filter(group__created_at__lt=until)
    own = _lines(rows.filter(account__member=member))
    settled = rows.filter(
        group__kind__in=[Kind.SETTLE, Kind.REVERSAL], group__contract__isnull=False
    )
    spent = _lines(settled.filter(account__tenant__member=member))
    return Statement(
        member=member,
        currency=currency,
        earned_micro=sum(
            line.amount_micro for line in own if line.contract and line.kind in SETTLED
        ),
        paid_micro=-sum(line.amount_micro for line in spent),
        transfers_micro=sum(
            line.amount_micro for line in own if line.kind in (Kind.STABILITY, Kind.DIVIDEND)
        ),
        tenant_funds_micro=sum(
            Account.objects.filter(
                tenant__member=member, currency=currency, kind__startswith="tenant_"
            ).values_list("balance_micro", flat=True)
        ),
        lines=tuple(sorted([*own, *spent], key=lambda line: line.at)),
    )


def _lines(entries: QuerySet[Entry]) -> list[StatementLine]:
    """One line for each group that moved something."""
    sums = entries.order_by().values_list("group").annotate(total=Sum("amount_micro"))
    moved = {group: total for group, total in sums if total}
    groups = EntryGroup.objects.select_related(
        "contract__lease__job", "contract__lease__site", "round"
    )
    found = rows_among(groups.defer("round__clearing").order_by("pk"), "pk", sorted(moved))
    return [_line(group, moved[group.pk]) for group in found]


def _line(group: EntryGroup, amount_micro: int) -> StatementLine:
    contract = group.contract
    if contract is not None:
        lease = contract.lease
        what = f"{lease.job.name} at {lease.site.name}, contract {contract.sequence}"
    elif group.round is not None:
        what = f"round {group.round.number}"
    else:
        what = group.memo
    return StatementLine(
        at=group.created_at,
        kind=group.kind,
        what=what,
        amount_micro=amount_micro,
        contract=contract,
    )
