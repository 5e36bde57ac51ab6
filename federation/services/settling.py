"""Write side of contracts at their end: measured, settled or void, final; and of their rounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from economics.settlement import Cause
from federation.causes import ended_by
from federation.machines.contract import MACHINE as CONTRACT
from federation.machines.contract import ContractState
from federation.machines.lease import LIVE
from federation.machines.round import RoundState
from federation.models import Assignment, Contract, Member, Round
from federation.selectors.figures import end_of, figures_of, figures_void
from federation.services.disputes import counters_differ
from federation.services.ledger import stability_transfer
from federation.services.payouts import contract_locked, settlement_post
from federation.services.story import move
from federation.snapshot import unpack

OPEN = (ContractState.HELD, ContractState.RUNNING)


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

    A contract whose lease was withdrawn before anything ran is void: all money goes back.
    """
    rows = _measurable().order_by("created_at")[:limit]
    return [c for c in rows if _close(c, now)] + _measure_overdue(now)


def _close(contract: Contract, now: datetime) -> bool:
    if contract.state == ContractState.HELD and _withdrawn(contract):
        return _void(contract.pk, now)
    return _told(contract, "measure", now)


def _told(contract: Contract, event: str, now: datetime, code: str = "", why: str = "") -> bool:
    """Move a contract together with the line in its story."""
    with transaction.atomic():
        return move(contract, event, now=now, code=code, why=why)


def _withdrawn(contract: Contract) -> bool:
    """Its lease is over, never ran, and that is not its site's doing."""
    if contract.lease.state in LIVE or contract.rules_id is None:
        return False
    end = end_of(contract)
    return not end.started and ended_by(replace(end, superseded_at=None)) is not Cause.SITE


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
        if (
            ended is not None
            and ended + window <= now
            and _told(contract, "measure", now, "reports_missing", "the window is over")
        ):
            done.append(contract)
    return done


def contracts_settle(*, now: datetime, limit: int = 1000) -> list[Contract]:
    """Pay what was delivered, at most what was contracted; refund the rest of the escrow.

    What is missing by the site's doing costs it a part of its bond. A contract whose two counters
    are too far apart becomes a dispute instead.
    """
    due = Contract.objects.filter(state=ContractState.MEASURED).order_by("created_at")
    settled = (_settle(pk, now) for pk in due.values_list("pk", flat=True)[:limit])
    return [contract for contract in settled if contract is not None]


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
    return [c for c in due.order_by("settled_at")[:limit] if _told(c, "finalise", now)]


def rounds_settle(*, now: datetime) -> list[UUID]:
    """Close published rounds all of whose contracts are paid; post their stability transfers.

    A disputed contract holds its own money alone, not the round's.
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
        with transaction.atomic():
            if move(round, "settle", now=now, ended_at=now):
                stability_transfer(round=round, transfers=_transfers(round), now=now)
                settled.append(round.pk)
    return settled


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
