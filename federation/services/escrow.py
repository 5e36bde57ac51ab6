"""Escrow of many contracts at once: the groups of `ledger.escrow_hold`, in a few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from federation.bulk import rows_insert, rows_update
from federation.models import Account, Entry, EntryGroup, Round, Tenant
from federation.services import ledger

Kind = Account.Kind


@dataclass(frozen=True, slots=True)
class Hold:
    """The price of a new contract, to be moved from its tenant's free funds into escrow."""

    contract_id: UUID
    tenant_id: UUID
    amount_micro: int


class Purses:
    """Free funds and escrow of some tenants, locked until the caller's transaction ends."""

    def __init__(self, tenants: Collection[UUID], round: Round) -> None:
        self.round = round
        self._currency = round.venue.currency
        rows = Account.objects.select_for_update().filter(
            kind__in=[Kind.TENANT_CASH, Kind.TENANT_ESCROW],
            currency=self._currency,
            tenant_id__in=tenants,
        )
        self._found = {(row.tenant_id, row.kind): row for row in rows.order_by("pk")}
        self._free = {
            tenant: row.balance_micro
            for (tenant, kind), row in self._found.items()
            if kind == Kind.TENANT_CASH
        }

    def take(self, tenant: UUID, amount_micro: int) -> bool:
        """Promise an amount of a tenant's free funds; False, and nothing promised, if too much."""
        free = self._free.get(tenant, 0)
        if free < amount_micro:
            return False
        self._free[tenant] = free - amount_micro
        return True

    def hold(self, holds: Iterable[Hold], now: datetime) -> None:
        """Post one group for each hold; all of them were taken before."""
        groups, entries = [], []
        sums: dict[Account, int] = defaultdict(int)
        for hold in holds:
            if not hold.amount_micro:
                continue
            group = uuid4()
            groups.append((group, f"hold:{hold.contract_id}", hold.contract_id))
            for kind, amount in (
                (Kind.TENANT_CASH, -hold.amount_micro),
                (Kind.TENANT_ESCROW, hold.amount_micro),
            ):
                purse = self._purse(hold.tenant_id, kind, now)
                sums[purse] += amount
                entries.append((group, purse.pk, amount))
        rows_insert(
            EntryGroup,
            ("id", "key", "contract_id", "kind", "currency", "round_id", "created_at"),
            (
                (*group, EntryGroup.Kind.HOLD, self._currency, self.round.pk, now)
                for group in groups
            ),
        )
        rows_insert(Entry, ("group_id", "account_id", "amount_micro"), entries)
        balances = [(purse.pk, purse.balance_micro + moved) for purse, moved in sums.items()]
        rows_update(Account, ("balance_micro",), balances)

    def _purse(self, tenant: UUID, kind: str, now: datetime) -> Account:
        if (tenant, kind) not in self._found:
            owner = Tenant.objects.get(pk=tenant)
            self._found[tenant, kind] = ledger.account(kind, self._currency, now=now, tenant=owner)
        return self._found[tenant, kind]
