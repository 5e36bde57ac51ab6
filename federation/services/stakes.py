"""Money under dispute: what a decision could take back of a tenant waits in escrow meanwhile."""

from __future__ import annotations

from datetime import datetime

from federation.models import Account, Contract, Dispute, Entry, EntryGroup
from federation.services.entries import account
from federation.services.ledger import post

Kind = Account.Kind


def stake_freeze(*, dispute: Dispute, contract: Contract, now: datetime) -> int:
    """Move the refund and penalty of a settled contract from the tenant's free funds to escrow, as
    far as they are still there; returns how much, micro-credits.

    Runs inside the caller's transaction. Of a contract that is not settled yet everything is in
    escrow anyway.
    """
    if not contract.postings:
        return 0
    job = contract.lease.job
    cash = account(Kind.TENANT_CASH, job.venue.currency, now=now, tenant=job.tenant)
    escrow = account(Kind.TENANT_ESCROW, job.venue.currency, now=now, tenant=job.tenant)
    locked = Account.objects.select_for_update(no_key=True).filter(pk__in=[cash.pk, escrow.pk])
    free = {row.pk: row.balance_micro for row in locked.order_by("pk")}[cash.pk]
    given = (contract.refunded_micro or 0) + (contract.penalty_micro or 0)
    amount = min(given, max(free, 0))
    _post(dispute, contract, EntryGroup.Kind.EARNEST, "", [(cash, -amount), (escrow, amount)], now)
    return amount


def stake_release(*, dispute: Dispute, contract: Contract, now: datetime) -> bool:
    """Give back what a dispute froze, so that the decision finds it. False when it froze nothing.

    Runs inside the caller's transaction, which has locked the contract's job.
    """
    frozen = Entry.objects.filter(group__key=_key(dispute)).select_related("account")
    back = [(entry.account, -entry.amount_micro) for entry in frozen]
    return _post(dispute, contract, EntryGroup.Kind.RELEASE, ":end", back, now)


def _key(dispute: Dispute) -> str:
    return f"dispute:{dispute.pk}"


def _post(
    dispute: Dispute,
    contract: Contract,
    kind: str,
    suffix: str,
    entries: list[tuple[Account, int]],
    now: datetime,
) -> bool:
    return post(
        key=_key(dispute) + suffix,
        kind=kind,
        currency=contract.lease.job.venue.currency,
        entries=entries,
        now=now,
        memo=f"under dispute: {dispute.code}"[:300],
        contract=contract,
        round=contract.round,
    )
