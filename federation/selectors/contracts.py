"""Reads that check: every figure of a contract rebuilt from the frozen round, the stored reports
and counts, and the ledger, and compared with what is stored."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, Sum

from federation.machines.contract import ContractState
from federation.models import Account, Contract, Entry, EntryGroup, Event, Job
from federation.selectors.figures import Figures, delivered_reported, figures_of, word_of
from federation.selectors.quoted import quote_rebuilt, quote_stored
from federation.snapshot import awards_read, unpack
from federation.snapshot.clearing import Award
from federation.snapshot.documents import price_micro

UNSETTLED = (
    *(ContractState.HELD, ContractState.RUNNING, ContractState.MEASURED, ContractState.DISPUTED),
)
Kind = Account.Kind


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that is stored otherwise than it follows from the record."""

    figure: str
    stored: object
    rebuilt: object


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A contract checked: what follows from the record, and where the stored figures differ."""

    contract_id: UUID
    rebuilt: dict[str, Any]
    differences: tuple[Difference, ...]
    unchecked: tuple[str, ...]  #: sentences: what could not be rebuilt, and why

    @property
    def holds(self) -> bool:
        return not self.differences


def recompute(contract: Contract) -> Recomputed:
    """Rebuild every figure of a contract and compare it with what is stored. Writes nothing."""
    contract = Contract.objects.select_related(
        *("lease__job", "lease__pool__site", "lease__site", "round__snapshot", "rules")
    ).get(pk=contract.pk)
    rebuilt: dict[str, Any] = {}
    unchecked: list[str] = []
    _from_round(contract, rebuilt, unchecked)
    _from_holds(contract, rebuilt)
    _from_reports(contract, rebuilt)
    if contract.postings:
        if contract.state == ContractState.DISPUTED:
            unchecked.append("It is disputed: what was settled before stands until the decision.")
        else:
            figures = _from_figures(contract, rebuilt)
            rebuilt |= quote_rebuilt(contract, figures)
        _from_settlements(contract, rebuilt)
    stored = {name: _stored(contract, name) for name in rebuilt}
    differences = tuple(
        Difference(name, stored[name], value)
        for name, value in rebuilt.items()
        if stored[name] != value
    )
    return Recomputed(contract.pk, rebuilt, differences, tuple(unchecked))


def job_differences(job: Job) -> tuple[Difference, ...]:
    """What a job has spent and holds, by its contracts and those of its probes."""
    job = Job.objects.get(pk=job.pk)
    rows = Contract.objects.filter(Q(lease__job=job) | Q(lease__job__parent=job))
    held = rows.filter(Q(state__in=UNSETTLED, postings=0))
    rebuilt = {
        "spent_micro": rows.aggregate(sum=Sum("paid_micro"))["sum"] or 0,
        "held_micro": held.aggregate(sum=Sum("payment_micro"))["sum"] or 0,
    }
    return tuple(
        Difference(name, getattr(job, name), value)
        for name, value in rebuilt.items()
        if getattr(job, name) != value
    )


def _stored(contract: Contract, name: str) -> object:
    """A stored figure. Those named `ledger_…` are rebuilt from the ledger and have a twin."""
    twins = {
        "ledger_paid_micro": (contract.paid_micro or 0)
        + contract.bond_micro
        - (contract.penalty_micro or 0),
        "ledger_returned_micro": (contract.refunded_micro or 0) + (contract.penalty_micro or 0),
        "ledger_escrow_micro": -contract.payment_micro,
        "ledger_bond_micro": -contract.bond_micro,
        "pool": str(contract.lease.pool),
        "rate_holds": True,
    }
    if name == "quote_facts":
        return quote_stored(contract)
    return twins[name] if name in twins else getattr(contract, name)


def _from_round(contract: Contract, rebuilt: dict[str, Any], unchecked: list[str]) -> None:
    """Price, reserve, GPUs and amounts, as the round sold them."""
    round = contract.round
    snapshot = getattr(round, "snapshot", None)
    if round is None:
        unchecked.append("No round sold it.")
        return
    if round.clearing is None or snapshot is None or snapshot.body is None:
        unchecked.append("The round's documents are past their retention.")
        return
    book, clearing = unpack(snapshot.body), unpack(round.clearing)
    job, pool = str(contract.lease.job_id), contract.lease.pool
    line = next((row for row in clearing["allocation"] if row["job"] == job), None)
    rebuilt["pool"] = line["pool"] if line else None
    if line is None or line["pool"] != str(pool):
        return
    own = {**clearing, "allocation": [line]}
    [award] = awards_read(book=book, clearing=own, pools={str(pool): pool.pk})
    reserves = {row["id"]: price_micro(row["reserve"]) for row in book["pools"]}
    rebuilt["gpus"] = award.gpus
    rebuilt["price_micro"] = award.price_micro
    rebuilt["reserve_micro"] = reserves[str(pool)]
    if contract.extensions == 0 and not contract.to_end:
        rebuilt["contracted"] = award.samples
        rebuilt["payment_micro"] = award.payment_micro
    else:
        rebuilt["rate_holds"] = _rate_holds(contract, award)


def _rate_holds(contract: Contract, award: Award) -> bool:
    """A contract that was prolonged, or sold for all the work, keeps the round's rate: each step
    may have rounded by less than one micro-credit."""
    off = abs(contract.payment_micro * award.samples - award.payment_micro * contract.contracted)
    return off <= (contract.extensions + 2) * max(award.samples, contract.contracted)


def _from_holds(contract: Contract, rebuilt: dict[str, Any]) -> None:
    """Escrow and bond, by what the ledger moved into them."""
    moved = _moved(contract, [EntryGroup.Kind.HOLD])
    held = moved.get(Kind.TENANT_ESCROW, 0)
    if rebuilt.get("payment_micro", held) == held:
        rebuilt["payment_micro"] = held
    rebuilt["bond_micro"] = moved.get(Kind.MEMBER_BOND, 0)


def _from_settlements(contract: Contract, rebuilt: dict[str, Any]) -> None:
    """Pay, refund and penalty, by what the ledger moved out of escrow and bond in the end."""
    moved = _moved(contract, [EntryGroup.Kind.SETTLE, EntryGroup.Kind.REVERSAL])
    rebuilt["ledger_paid_micro"] = moved.get(Kind.MEMBER_EARNINGS, 0)
    rebuilt["ledger_returned_micro"] = moved.get(Kind.TENANT_CASH, 0)
    rebuilt["ledger_escrow_micro"] = moved.get(Kind.TENANT_ESCROW, 0)
    rebuilt["ledger_bond_micro"] = moved.get(Kind.MEMBER_BOND, 0)


def _moved(contract: Contract, kinds: list[EntryGroup.Kind]) -> dict[str, int]:
    groups = Q(group__contract=contract) | Q(group__reverses__contract=contract)
    rows = Entry.objects.filter(groups, group__kind__in=kinds).order_by()
    rows = rows.exclude(group__reverses__kind=EntryGroup.Kind.ISSUE)  # no part of a settlement
    return dict(rows.values_list("account__kind").annotate(sum=Sum("amount_micro")))


def _from_reports(contract: Contract, rebuilt: dict[str, Any]) -> None:
    """Both counters, by what agent and trainer said."""
    last = contract.counts.filter(last=True).order_by("seq").first()
    rebuilt["counted"] = last.samples if last else None
    if contract.basis == Contract.Basis.SAMPLES:
        rebuilt["delivered"] = delivered_reported(contract, until=_measured_at(contract))


def _measured_at(contract: Contract) -> datetime | None:
    story = Event.objects.filter(subject="contract", subject_id=str(contract.pk))
    closed = story.filter(event__in=["measure", "void"]).order_by("id")
    return closed.values_list("at", flat=True).first()


def _from_figures(contract: Contract, rebuilt: dict[str, Any]) -> Figures:
    """The settlement itself, of the rebuilt amounts and counts."""
    paper = copy.copy(contract)
    for name in ("price_micro", "reserve_micro", "contracted", "payment_micro", "bond_micro"):
        setattr(paper, name, rebuilt.get(name, getattr(contract, name)))
    paper.delivered = rebuilt.get("delivered", contract.delivered)
    paper.counted = rebuilt["counted"]
    figures = figures_of(paper, word=word_of(contract))
    rebuilt["accepted"] = min(figures.outcome.accepted, paper.contracted)
    rebuilt["paid_micro"] = figures.outcome.pay_micro
    rebuilt["refunded_micro"] = figures.outcome.refund_micro
    rebuilt["penalty_micro"] = figures.outcome.penalty_micro
    rebuilt["due"] = figures.delivery.due
    rebuilt["cause"] = figures.delivery.cause.value if contract.rules_id else ""
    return figures
