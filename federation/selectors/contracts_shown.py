"""Contracts, disputes and alarms as callers see them: credits as decimal text."""

from __future__ import annotations

from typing import Any

from federation.models import Alarm, Contract, Dispute
from federation.money import as_text


def _credits(micro: int | None) -> str | None:
    return None if micro is None else as_text(micro)


def contract_shown(contract: Contract) -> dict[str, Any]:
    """One contract: what was promised, what was counted, and what was paid."""
    lease = contract.lease
    return {
        "id": contract.pk,
        "job": lease.job_id,
        "job_name": lease.job.name,
        "attempt": lease.attempt,
        "sequence": contract.sequence,
        "site": lease.site.name,
        "tenant": lease.job.tenant.name,
        "state": contract.state.upper(),
        "basis": contract.basis,
        "gpus": contract.gpus,
        "rules": contract.rules.version if contract.rules is not None else None,
        "price": as_text(contract.price_micro),
        "reserve": as_text(contract.reserve_micro),
        "contracted": contract.contracted,
        "delivered": contract.delivered,
        "counted": contract.counted,
        "due": contract.due,
        "accepted": contract.accepted,
        "cause": contract.cause,
        "gpu_seconds": contract.gpu_seconds,
        "escrow": as_text(contract.payment_micro),
        "bond": as_text(contract.bond_micro),
        "paid": _credits(contract.paid_micro),
        "refunded": _credits(contract.refunded_micro),
        "penalty": _credits(contract.penalty_micro),
        "created_at": contract.created_at,
        "quote": lease.job.quote,
        "quote_reason": {"code": contract.quote_code, "message": contract.quote_why}
        if contract.quote_code
        else None,
        "settled_at": contract.settled_at,
        "final_at": contract.final_at,
    }


def dispute_shown(dispute: Dispute) -> dict[str, Any]:
    """One dispute with its evidence and, once it is decided, the decision."""
    decided = dispute.state == Dispute.State.DECIDED
    return {
        "id": dispute.pk,
        "contract": dispute.contract_id,
        "state": dispute.state.upper(),
        "by": dispute.by,
        "code": dispute.code,
        "why": dispute.why,
        "claimed": dispute.claimed,
        "created_at": dispute.created_at,
        "evidence": [
            {"at": row.created_at, "actor": row.actor, "text": row.text, "body": row.body}
            for row in dispute.evidence.all()
        ],
        "decision": {
            "accepted": dispute.accepted,
            "cause": dispute.cause,
            "why": dispute.decision_why,
            "by": dispute.decided_by,
            "at": dispute.decided_at,
        }
        if decided
        else None,
    }


def alarm_shown(alarm: Alarm) -> dict[str, Any]:
    """One alarm and the figures behind it."""
    return {
        "id": alarm.pk,
        "kind": alarm.kind,
        "about": alarm.about,
        "why": alarm.why,
        "figures": alarm.figures,
        "site": alarm.site.name if alarm.site else None,
        "created_at": alarm.created_at,
        "closed_at": alarm.closed_at,
        "closed_by": alarm.closed_by,
    }
