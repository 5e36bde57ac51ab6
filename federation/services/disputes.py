"""Write side of disputes: open, bring evidence, decide, take back.

A dispute holds one contract's money and nobody else's. Who may object is the caller's to check,
with the contracts that `federation.selectors.disputes` shows to a user.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction

from economics.settlement import Cause
from federation.errors import BadInput, FieldProblem, Refused
from federation.machines.contract import ContractState
from federation.models import Contract, Dispute, Evidence
from federation.selectors.figures import Word, figures_of, word_of
from federation.services.payouts import contract_locked, jobs_lock, settlement_post
from federation.services.stakes import stake_freeze, stake_release
from federation.services.story import BROKER, move, tell

MAX_SAMPLES = 10**15
By, State = Dispute.By, Dispute.State


def dispute_open(
    *,
    contract: Contract,
    by: str,
    actor: str,
    code: str,
    why: str,
    claimed: int | None,
    now: datetime,
) -> Dispute:
    """Object to a contract's figures, within the window after its settlement.

    The refund and penalty that its tenant got are frozen until the decision, as far as they are
    there.

    `claimed`: samples that were delivered, by the one who objects. Raises Refused when the
    contract is not measured yet, is final, void or disputed, or when this party has objected
    before; BadInput for a claim or a reason that makes no sense.
    """
    _check_words(code, why, claimed)
    with transaction.atomic():
        contract = contract_locked(contract.pk)
        _check_open(contract, by, now)
        return _open(contract, by, actor, code, why, claimed, now)


def counters_differ(*, contract: Contract, now: datetime) -> Dispute:
    """The broker's own objection to a locked contract: its two counters are too far apart."""
    why = (
        f"The site counted {contract.delivered} samples, the trainer {contract.counted}: further "
        "apart than the rules allow."
    )
    return _open(contract, By.BROKER, BROKER, "counters_differ", why, contract.counted, now)


def correction_refused(*, contract: Contract, why: str, now: datetime) -> Dispute:
    """The broker's own objection to a locked contract whose late count could not be taken up."""
    return _open(contract, By.BROKER, BROKER, "correction_refused", why, contract.counted, now)


def evidence_add(
    *, dispute: Dispute, actor: str, text: str, body: dict[str, Any] | None, now: datetime
) -> Evidence:
    """Bring something to an open dispute. It is kept as it was brought."""
    if not 1 <= len(text.strip()) <= 4000:
        raise BadInput(FieldProblem("text", "1 to 4000 characters"))
    with transaction.atomic():
        _still_open(dispute)
        evidence = Evidence.objects.create(
            dispute=dispute, actor=actor[:100], text=text, body=body or {}, created_at=now
        )
        tell("dispute", dispute.pk, "evidence", now=now, actor=actor, why=text)
    return evidence


def dispute_decide(
    *, dispute: Dispute, accepted: int, cause: str, why: str, actor: str, now: datetime
) -> Contract:
    """End a dispute: `accepted` samples count, and a shortfall is the doing of `cause`.

    The earlier settlement is reversed and the decided one posted, in one transaction. It stays
    within the contract's own escrow and bond. Raises Refused when the dispute is decided, or when
    a purse no longer holds what would be taken back: nothing has changed then.
    """
    _check_decision(accepted, cause, why)
    word = Word(accepted, Cause(cause))
    with transaction.atomic():
        dispute = _still_open(dispute)
        contract = contract_locked(dispute.contract_id)
        dispute.accepted, dispute.cause = accepted, cause
        _decide(dispute, contract, word, why, actor, now)
    return contract


def dispute_withdraw(*, dispute: Dispute, why: str, actor: str, now: datetime) -> Contract:
    """Take an objection back: what stood without it stands, the contract's own figures or an
    earlier decision.

    Raises Refused for the broker's own, which only a decision ends.
    """
    if dispute.by == By.BROKER:
        raise Refused("The two counters still differ: it has to be decided.", code="not_yours")
    with transaction.atomic():
        dispute = _still_open(dispute)
        contract = contract_locked(dispute.contract_id)
        word = word_of(contract)
        if figures_of(contract, word=word).outcome.disputed:
            raise Refused("The two counters differ: it has to be decided.", code="counters_differ")
        _decide(dispute, contract, word, why or "withdrawn", actor, now, code="withdrawn")
    return contract


def _open(
    contract: Contract,
    by: str,
    actor: str,
    code: str,
    why: str,
    claimed: int | None,
    now: datetime,
) -> Dispute:
    move(contract, "dispute", now=now, actor=actor, code=code, why=why)
    dispute = Dispute.objects.create(
        contract=contract,
        by=by,
        actor=actor[:100],
        code=code,
        why=why,
        claimed=claimed,
        created_at=now,
    )
    stake_freeze(dispute=dispute, contract=contract, now=now)
    tell("dispute", dispute.pk, "open", now=now, actor=actor, code=code, why=why)
    return dispute


def _decide(
    dispute: Dispute,
    contract: Contract,
    word: Word | None,
    why: str,
    actor: str,
    now: datetime,
    *,
    code: str = "decided",
) -> None:
    jobs_lock(contract.lease.job)
    stake_release(dispute=dispute, contract=contract, now=now)
    settlement_post(
        contract=contract,
        event="decide",
        figures=figures_of(contract, word=word),
        now=now,
        actor=actor,
        code=code,
        why=why,
    )
    dispute.state, dispute.decided_by, dispute.decided_at = State.DECIDED, actor[:100], now
    dispute.decision_why = why[:1000]
    dispute.save()
    tell("dispute", dispute.pk, "decide", now=now, actor=actor, code=code, why=why)


def _still_open(dispute: Dispute) -> Dispute:
    """The dispute as it is now, its row locked."""
    locked = Dispute.objects.select_for_update(of=("self",)).get(pk=dispute.pk)
    if locked.state != State.OPEN:
        raise Refused("This dispute is decided.", code="dispute_decided")
    return locked


def _check_open(contract: Contract, by: str, now: datetime) -> None:
    if contract.state == ContractState.DISPUTED:
        raise Refused("It is disputed already; bring evidence to that.", code="disputed_already")
    if contract.state in (ContractState.FINAL, ContractState.VOIDED):
        raise Refused(f"The contract is {contract.state}.", code="window_over")
    if contract.state not in (ContractState.MEASURED, ContractState.SETTLED):
        raise Refused("The contract still runs; it is not measured yet.", code="not_measured")
    if contract.final_at is not None and contract.final_at <= now:
        raise Refused("The time for objections is over.", code="window_over")
    if contract.disputes.filter(by=by).exists():
        raise Refused("This party has objected before, and that was decided.", code="heard_before")


def _check_words(code: str, why: str, claimed: int | None) -> None:
    problems = []
    if not 1 <= len(code) <= 64:
        problems.append(FieldProblem("code", "1 to 64 characters"))
    if not 1 <= len(why.strip()) <= 1000:
        problems.append(FieldProblem("why", "a reason of at most 1000 characters"))
    if claimed is not None and not 0 <= claimed <= MAX_SAMPLES:
        problems.append(FieldProblem("claimed", f"0 to {MAX_SAMPLES}"))
    if problems:
        raise BadInput(*problems)


def _check_decision(accepted: int, cause: str, why: str) -> None:
    problems = []
    if not 0 <= accepted <= MAX_SAMPLES:
        problems.append(FieldProblem("accepted", f"0 to {MAX_SAMPLES}"))
    if cause not in [c.value for c in Cause]:
        problems.append(FieldProblem("cause", f"one of {', '.join(c.value for c in Cause)}"))
    if not 1 <= len(why.strip()) <= 1000:
        problems.append(FieldProblem("why", "a reason of at most 1000 characters"))
    if problems:
        raise BadInput(*problems)
