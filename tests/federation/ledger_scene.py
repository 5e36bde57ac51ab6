"""Contracts to post about, and a ledger without its guards, as its owner can have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

from federation import ledger_guard
from federation.models import Account, Contract, EntryGroup, Member, Site, Tenant
from federation.services import ledger
from federation.services.leases import lease_offer
from tests.support.world import NOW, a_job, a_member, a_site, a_tenant, a_venue, later

MICRO = 1_000_000


def a_contract(tenant: Tenant, site: Site, **fields: Any) -> Contract:
    """A contract of a new job on a lease of its own; nothing is held for it yet."""
    job = a_job(tenant)
    lease = lease_offer(
        job=job,
        pool=site.pools.get(),
        gpus=1,
        round=None,
        fence_s=60.0,
        predicted_samples_per_s=1000.0,
        now=NOW,
    )
    assert lease is not None
    terms = {"price_micro": MICRO, "contracted": 1000, "payment_micro": 100, "sequence": 1}
    contract = Contract.objects.create(lease=lease, gpus=1, created_at=NOW, **{**terms, **fields})
    return Contract.objects.select_related(
        "lease__job__venue", "lease__job__tenant", "lease__site__member", "round", "rules"
    ).get(pk=contract.pk)


def a_seller(name: str = "alder", *, credit_micro: int | None = None) -> Site:
    """A site whose member may owe so much for its bonds."""
    member = a_member(name)
    Member.objects.filter(pk=member.pk).update(credit_micro=credit_micro)
    return a_site(member=Member.objects.get(pk=member.pk))


def balances(currency: str = "cash") -> dict[str, int]:
    """Purses that hold something, by kind and owner."""
    rows = Account.objects.filter(currency=currency).select_related("tenant", "member")
    return {
        f"{row.kind} {(row.tenant or row.member or '')}".strip(): row.balance_micro
        for row in rows
        if row.balance_micro
    }


def committed() -> None:
    """What a commit would do: on PostgreSQL the groups of an open transaction are linked."""
    ledger_guard.link_now(connection)


@contextmanager
def unguarded() -> Iterator[None]:
    """The triggers are away."""
    connection.check_constraints()
    ledger_guard.remove(connection)
    try:
        yield
    finally:
        connection.check_constraints()
        ledger_guard.install(connection)


def some_history() -> Tenant:
    """A deposit, a hold with a bond and facts, a settlement, its correction, a reversal."""
    tenant, site = a_tenant("ann", credits=1), a_seller(credit_micro=MICRO)
    contract = a_contract(tenant, site)
    ledger.escrow_hold(contract=contract, amount_micro=100, bond_micro=20, key="hold:1", now=NOW)
    facts = {"price": "1.5", "naïve": [1, None, True], "π": {"b": 2, "aa": "x\ty"}}
    for posting, pay in ((1, 70), (2, 90)):
        ledger.escrow_settle(
            contract=contract,
            pay_micro=pay,
            refund_micro=100 - pay,
            penalty_micro=5,
            bond_back_micro=15,
            posting=posting,
            facts=facts,
            now=later(posting),
        )
    ledger.withdraw(
        tenant=tenant, venue=a_venue(), amount_micro=7, key="w", actor="user:op", now=later(3)
    )
    group = EntryGroup.objects.get(kind="withdrawal")
    ledger.reverse(group=group, key="back", memo="typing error", actor="user:op", now=later(4))
    committed()
    return tenant
