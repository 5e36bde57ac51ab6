"""Write side of contracts at their end: measured, settled or void, final; and of their rounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum

from economics.settlement import PPM, Cause
from federation.causes import ended_by, kept_for_nothing
from federation.machines.contract import MACHINE as CONTRACT
from federation.machines.contract import ContractState
from federation.machines.lease import LIVE
from federation.machines.round import RoundState
from federation.models import Assignment, Contract, Member, Round
from federation.selectors.figures import end_of, figures_of, figures_void
from federation.services.disputes import counters_differ
from federation.services.ledger import stability_transfer
from federation.services.payouts import contract_locked, settlement_post
from federation.services.story import move, tell
from federation.services.stuck import going_on
from federation.snapshot import unpack

OPEN = (ContractState.HELD, ContractState.RUNNING)
LEAST_PAID_PPM = 500_000  #: of a round's prices that must be paid before its transfers are


def _complete() -> Q:
    """All the reports up to the highest one seen are on record, the end among them."""
    return Q(lease__reports_stored=F("lease__reports_highest"))


def _measurable() -> QuerySet[Contract]:
    later = Contract.objects.filter(
        lease=OuterRef("lease"), sequence__gt=OuterRef("sequence")
    ).exclude(state=ContractState.HELD)
    over = ~Q(lease__state__in=sorted(LIVE))
    rows = Contract.objects.filter(state__in=OPEN).select_related("lease__job__venue")
    return rows.filter(
        (over & _complete() & Q(lease__end_seq=F("lease__reports_highest")))
        | (over & Q(lease__end_seq__isnull=True))  # fenced or withdrawn: nothing more will count
        | (Q(superseded_at__isnull=False) & Exists(later) & _complete())
        | Q(superseded_at__isnull=False, lease__booked_sequence__gt=F("sequence"))
    )


def contracts_measure(*, now: datetime, limit: int = 1000) -> list[Contract]:
    """Close the books of contracts to which no further work can be added.

    A contract whose lease was withdrawn before anything ran is void: all money goes back. One
    whose tenant cancelled it then pays the reserve price of the round that was kept for it.
    """
    done = []
    for contract in _measurable().order_by("created_at")[:limit]:
        with going_on("contract", contract.pk, "measure", now):
            if _close(contract, now):
                done.append(contract)
    return done + _measure_overdue(now)


def _close(contract: Contract, now: datetime) -> bool:
    if contract.state == ContractState.HELD and _withdrawn(contract):
        return _void(contract.pk, now)
    return _measured(contract, now)


def _measured(contract: Contract, now: datetime, code: str = "", why: str = "") -> bool:
    """Measure a contract; one that was kept for nothing as if its GPUs had been held throughout."""
    if contract.rules_id is None or not kept_for_nothing(end_of(contract)):
        return _told(contract, "measure", now, code, why)
    held = contract.gpus * contract.lease.job.venue.round_s
    why = "cancelled before the start: the GPUs were kept for it"
    return _told(contract, "measure", now, "cancel_before_start", why, gpu_seconds=held)


def _told(
    contract: Contract, event: str, now: datetime, code: str = "", why: str = "", **fields: Any
) -> bool:
    """Move a contract together with the line in its story."""
    with transaction.atomic():
        return move(contract, event, now=now, code=code, why=why, **fields)


def _withdrawn(contract: Contract) -> bool:
    """Its lease is over, never ran, and that is the doing neither of its site nor, while this
    contract stood, of its tenant."""
    if contract.lease.state in LIVE or contract.rules_id is None:
        return False
    end = end_of(contract)
    if end.started or kept_for_nothing(end):
        return False
    return ended_by(replace(end, superseded_at=None)) is not Cause.SITE


def _void(pk: UUID, now: datetime) -> bool:
    with transaction.atomic():
        contract = contract_locked(pk)
        if contract.state != ContractState.HELD:
            return False
        return settlement_post(
            contract=contract,
            event="void",
            figures=figures_void(contract),
            now=now,
            code="withdrawn",
            why="Nothing ran; all money goes back.",
        )


def _measure_overdue(now: datetime) -> list[Contract]:
    """Contracts whose last reports never came within the venue's window."""
    rows = Contract.objects.filter(state__in=OPEN).select_related("lease__job__venue")
    rows = rows.filter(Q(superseded_at__isnull=False) | Q(lease__ended_at__isnull=False))
    done = []
    for contract in rows.order_by("created_at")[:1000]:
        ended = contract.superseded_at or contract.lease.ended_at
        window = timedelta(seconds=contract.lease.job.venue.settle_after_s)
        if ended is None or ended + window > now:
            continue
        with going_on("contract", contract.pk, "measure", now):
            if _measured(contract, now, "reports_missing", "the window is over"):
                done.append(contract)
    return done


def contracts_settle(*, now: datetime, limit: int = 1000) -> list[Contract]:
    """Pay what was delivered, at most what was contracted; refund the rest of the escrow.

    What is missing by the site's doing costs it a part of its bond. A contract whose two counters
    are too far apart becomes a dispute instead.
    """
    due = Contract.objects.filter(state=ContractState.MEASURED).order_by("created_at")
    settled = []
    for pk in due.values_list("pk", flat=True)[:limit]:
        with going_on("contract", pk, "settle", now):
            contract = _settle(pk, now)
            if contract is not None:
                settled.append(contract)
    return settled


def _settle(pk: UUID, now: datetime) -> Contract | None:
    with transaction.atomic():
        contract = contract_locked(pk)
        if contract.state != ContractState.MEASURED:
            return None  # another worker was first
        figures = figures_of(contract)
        if figures.outcome.disputed:
            counters_differ(contract=contract, now=now)
            return None
        won = settlement_post(contract=contract, event="settle", figures=figures, now=now)
    return contract if won else None


def contracts_finalise(*, now: datetime, limit: int = 1000) -> list[Contract]:
    """Settled contracts whose window for objections is over are final."""
    rows = Contract.objects.filter(state=ContractState.SETTLED)
    due = rows.filter(Q(final_at__lte=now) | Q(final_at__isnull=True))  # null: before windows
    done = []
    for contract in due.order_by("settled_at")[:limit]:
        with going_on("contract", contract.pk, "finalise", now):
            if _told(contract, "finalise", now):
                done.append(contract)
    return done


def rounds_settle(*, now: datetime) -> list[UUID]:
    """Close published rounds all of whose contracts are paid; post their stability transfers.

    A disputed contract holds its own money alone, not the round's. Transfers mend the clearing of
    a trade; where that trade did not happen they are left out, and the round's story says why.
    """
    unpaid = Contract.objects.filter(round=OuterRef("pk")).exclude(
        state__in=[ContractState.SETTLED, ContractState.DISPUTED, *CONTRACT.final]
    )
    waiting = Assignment.objects.filter(round=OuterRef("pk"), status=Assignment.Status.WAITING)
    due = Round.objects.filter(
        ~Exists(unpaid), ~Exists(waiting), state=RoundState.PUBLISHED
    ).select_related("venue")  # with its clearing, which holds the transfers
    settled = []
    for round in due:
        with going_on("round", round.pk, "settle", now), transaction.atomic():
            if move(round, "settle", now=now, ended_at=now):
                _transfer(round, now)
                settled.append(round.pk)
    return settled


def _transfer(round: Round, now: datetime) -> None:
    """Post a round's stability transfers, all of them or, when its trade did not happen, none."""
    transfers = _transfers(round)
    why = _not_traded(round) if transfers else ""
    if why:
        told = f"No stability transfers: {why}."
        tell("round", round.pk, "no_transfers", now=now, code="not_traded", why=told)
        return
    stability_transfer(round=round, transfers=transfers, now=now)


def _not_traded(round: Round) -> str:
    """Why the trade that a round cleared did not happen; empty when it did.

    Every award must have become a contract under which something was delivered, and of the prices
    of those that are paid `LEAST_PAID_PPM` at least must be.
    """
    awards, contracts = Assignment.objects.filter(round=round), Contract.objects.filter(round=round)
    missed = awards.exclude(status=Assignment.Status.PLACED).count()
    if missed:
        return f"{missed} of {awards.count()} awards were not carried out"
    idle = contracts.filter(delivered=0).count()
    if idle or not contracts.exists():
        return f"nothing was delivered under {idle} of {contracts.count()} contracts"
    sums = contracts.filter(paid_micro__isnull=False).aggregate(
        paid=Sum("paid_micro"), price=Sum("payment_micro")
    )
    paid, price = sums["paid"] or 0, sums["price"] or 0
    if paid * PPM < LEAST_PAID_PPM * price:
        return f"only {paid} of {price} micro-credits were paid"
    return ""


def _transfers(round: Round) -> dict[Member, int]:
    if round.clearing is None:
        return {}
    amounts = {
        name: int(micro)
        for name, micro in unpack(round.clearing).get("transfers_micro", {}).items()
        if micro
    }
    members = Member.objects.in_bulk(list(amounts), field_name="name")
    return {members[name]: micro for name, micro in amounts.items()}
