"""A contract's settlement written down: its state, the ledger and its job, in one transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F

from federation.machines.contract import ContractState
from federation.models import Contract, Job
from federation.selectors.figures import Figures
from federation.selectors.quoted import compared_of, quote_facts
from federation.services import ledger
from federation.services.rules import rules_of
from federation.services.story import BROKER, move, tell


def contract_locked(pk: UUID) -> Contract:
    """A contract as it is now, its row locked until the caller's transaction ends."""
    return (
        Contract.objects.select_for_update(of=("self",))
        .select_related(
            *("lease__job__venue", "lease__job__tenant", "lease__site__member"),
            *("round", "rules"),
        )
        .defer("round__clearing")
        .get(pk=pk)
    )


def jobs_lock(job: Job) -> None:
    """Lock a job and the one that pays for it, until the caller's transaction ends.

    Everybody locks jobs before purses, for a report moves its job and may then place it anew.
    """
    jobs = Job.objects.select_for_update(no_key=True).order_by("pk")
    list(jobs.filter(pk__in={job.pk, job.parent_id or job.pk}).values_list("pk", flat=True))


def settlement_post(
    *,
    contract: Contract,
    event: str,
    figures: Figures,
    now: datetime,
    actor: str = BROKER,
    code: str = "",
    why: str = "",
) -> bool:
    """Give a locked contract its figures, moved by `event`; a later posting reverses the earlier.

    The event "correct" keeps the state. False when the state was another by then. Figures that
    are those of the earlier posting move no money. Raises Refused when a purse does not hold what
    is taken back; the caller's transaction must not go on then. Where the job cites a quote, every
    posting holds the line against it anew.
    """
    jobs_lock(contract.lease.job)
    posted, paid = contract.postings, contract.paid_micro or 0
    outcome, beside = figures.outcome, compared_of(contract, figures)
    same = bool(posted) and (paid, contract.penalty_micro) == (
        outcome.pay_micro,
        outcome.penalty_micro,
    )
    fields = {
        "due": figures.delivery.due,
        "cause": figures.delivery.cause.value if contract.rules_id else "",
        "accepted": min(outcome.accepted, contract.contracted),
        "paid_micro": outcome.pay_micro,
        "refunded_micro": outcome.refund_micro,
        "penalty_micro": outcome.penalty_micro,
        "postings": posted if same else posted + 1,
        "quote_code": beside.code if beside else "",
        "quote_why": beside.why if beside else "",
        "settled_at": contract.settled_at or now,
        "final_at": contract.final_at or (now if event == "void" else now + _window(contract, now)),
    }
    if not _move(contract, event, fields, now, actor, code, why):
        return False
    if same:
        return True
    ledger.escrow_settle(
        contract=contract,
        pay_micro=outcome.pay_micro,
        refund_micro=outcome.refund_micro,
        penalty_micro=outcome.penalty_micro,
        bond_back_micro=outcome.bond_back_micro,
        posting=posted + 1,
        facts=facts_of(contract, figures) | quote_facts(contract.lease.job, beside),
        now=now,
    )
    freed = 0 if posted else contract.payment_micro
    _job_pays(contract.lease.job, freed=freed, more=outcome.pay_micro - paid, now=now)
    return True


def facts_of(contract: Contract, figures: Figures) -> dict[str, Any]:
    """What the amounts of a settlement follow from. No number is a float: the text stays."""
    terms, delivery, round = figures.terms, figures.delivery, contract.round
    return {
        "round": round.number if round else None,
        "clearing_sha256": round.clearing_sha256 if round else "",
        "rules": contract.rules.version if contract.rules else None,
        "basis": contract.basis,
        "price_micro": terms.price_micro,
        "reserve_micro": terms.reserve_micro,
        "payment_micro": terms.payment_micro,
        "bond_micro": terms.bond_micro,
        "contracted": terms.contracted,
        "samples_per_s": str(contract.lease.predicted_samples_per_s or ""),
        "delivered": contract.delivered,
        "counted": contract.counted,
        "gpu_ms": delivery.gpu_ms,
        "due": delivery.due,
        "cause": delivery.cause.value,
        "started": delivery.started,
        "accepted": figures.outcome.accepted,
        "shortfall": figures.outcome.shortfall,
    }


def _window(contract: Contract, now: datetime) -> timedelta:
    rules = contract.rules or rules_of(contract.lease.job.venue, now)
    return timedelta(seconds=rules.window_s)


def _move(
    contract: Contract,
    event: str,
    fields: dict[str, Any],
    now: datetime,
    actor: str,
    code: str,
    why: str,
) -> bool:
    if event != "correct":
        return move(contract, event, now=now, actor=actor, code=code, why=why, **fields)
    rows = Contract.objects.filter(pk=contract.pk, state=ContractState.SETTLED)
    if not rows.update(**fields):
        return False
    for name, value in fields.items():
        setattr(contract, name, value)
    tell("contract", contract.pk, event, now=now, actor=actor, code=code, why=why)
    return True


def _job_pays(job: Job, *, freed: int, more: int, now: datetime) -> None:
    """Money of a job that is no longer held, and what it has spent more (or less, if negative)."""
    changes = {"held_micro": F("held_micro") - freed, "spent_micro": F("spent_micro") + more}
    Job.objects.filter(pk=job.pk).update(**changes, updated_at=now)
    if job.parent_id is not None:  # a probe is paid for by the job that needs it
        Job.objects.filter(pk=job.parent_id).update(**changes)
