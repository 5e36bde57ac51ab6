"""Escrow of many contracts at once: the groups of `ledger.escrow_hold`, in a few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db.models import Q

from federation.models import Account, EntryGroup, Member, Round, Tenant
from federation.services.entries import account, groups_write

Kind = Account.Kind
_TENANT = (Kind.TENANT_CASH, Kind.TENANT_ESCROW)
_MEMBER = (Kind.MEMBER_EARNINGS, Kind.MEMBER_BOND)


@dataclass(frozen=True, slots=True)
class Hold:
    """The price of a new contract and the seller's bond for it, micro-credits.

    `earnest_micro` of the price is in escrow already, since the job was submitted.
    """

    contract_id: UUID
    tenant_id: UUID
    amount_micro: int
    member_id: UUID | None = None
    bond_micro: int = 0
    earnest_micro: int = 0

    def moves(self) -> Iterator[tuple[UUID, str, int]]:
        """Owner, kind of purse, amount: those that are not zero."""
        more = self.amount_micro - self.earnest_micro
        if more:
            yield self.tenant_id, Kind.TENANT_CASH, -more
            yield self.tenant_id, Kind.TENANT_ESCROW, more
        if self.bond_micro and self.member_id is not None:
            yield self.member_id, Kind.MEMBER_EARNINGS, -self.bond_micro
            yield self.member_id, Kind.MEMBER_BOND, self.bond_micro


class Purses:
    """Purses of some tenants and members, locked until the caller's transaction ends."""

    def __init__(
        self, tenants: Collection[UUID], round: Round, members: Collection[UUID] = ()
    ) -> None:
        self.round = round
        self._currency = round.venue.currency
        rows = Account.objects.select_for_update(no_key=True).filter(
            Q(kind__in=_TENANT, tenant_id__in=tenants) | Q(kind__in=_MEMBER, member_id__in=members),
            currency=self._currency,
        )
        self._found = {
            (row.tenant_id or row.member_id, row.kind): row for row in rows.order_by("pk")
        }
        self._free = {
            place: row.balance_micro
            for place, row in self._found.items()
            if place[1] in (Kind.TENANT_CASH, Kind.MEMBER_EARNINGS)
        }

    def take(self, tenant: UUID, amount_micro: int) -> bool:
        """Promise an amount of a tenant's free funds; False, and nothing promised, if too much.

        Of a job with earnest money the amount is the price less that; it may be negative.
        """
        return self._take((tenant, Kind.TENANT_CASH), amount_micro, 0)

    def bond(self, member: UUID, amount_micro: int, credit_micro: int) -> bool:
        """Promise an amount of a member's earnings, which may fall to minus its credit.

        False, and nothing promised, if it would fall further. A bond of nothing is always covered.
        """
        return not amount_micro or self._take(
            (member, Kind.MEMBER_EARNINGS), amount_micro, -credit_micro
        )

    def _take(self, place: tuple[UUID, str], amount_micro: int, floor_micro: int) -> bool:
        left = self._free.get(place, 0) - amount_micro
        if left < floor_micro:
            return False
        self._free[place] = left
        return True

    def hold(self, holds: Iterable[Hold], now: datetime) -> None:
        """Post one group for each hold; all of them were taken, and their bonds, before."""
        groups: list[tuple[Any, ...]] = []
        entries: list[tuple[UUID, UUID, int]] = []
        sums: dict[Account, int] = defaultdict(int)
        for hold in holds:
            moves = [
                (self._purse(owner, kind, now), amount) for owner, kind, amount in hold.moves()
            ]
            if not moves:
                continue
            group, key = uuid4(), f"hold:{hold.contract_id}"
            groups.append(
                (
                    *(group, key, EntryGroup.Kind.HOLD.value, self._currency, "", {}),
                    *(hold.contract_id, self.round.pk, None, now),
                )
            )
            for purse, amount in moves:
                sums[purse] += amount
                entries.append((group, purse.pk, amount))
        balances = [(purse.pk, purse.balance_micro + moved) for purse, moved in sums.items()]
        groups_write(groups, entries, balances)

    def _purse(self, owner: UUID, kind: str, now: datetime) -> Account:
        if (owner, kind) not in self._found:
            self._found[owner, kind] = account(
                kind,
                self._currency,
                now=now,
                tenant=Tenant.objects.get(pk=owner) if kind in _TENANT else None,
                member=Member.objects.get(pk=owner) if kind in _MEMBER else None,
            )
        return self._found[owner, kind]
