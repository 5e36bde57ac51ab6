"""Write side of the second counter: what a tenant's trainer counted under a contract."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from federation.errors import BadInput, FieldProblem, Refused
from federation.machines.contract import ContractState
from federation.models import Contract, Count
from federation.selectors.figures import figures_of, word_of
from federation.services.disputes import correction_refused, counters_differ
from federation.services.payouts import contract_locked, settlement_post

MAX_SAMPLES = 10**15
MAX_SEQ = 2**31 - 1


def count_add(
    *, contract: Contract, seq: int, samples: int, last: bool, actor: str, now: datetime
) -> Count:
    """Note that a trainer has counted `samples` under a contract so far; `last` = it counts no
    more.

    A repeat changes nothing, and the order in which counts come in does not matter: a last count
    that comes after the settlement, within its window, corrects it or disputes it. Raises
    BadInput for absurd numbers, Refused when the count contradicts an earlier one or comes too
    late.
    """
    _check_numbers(seq, samples)
    with transaction.atomic():
        contract = contract_locked(contract.pk)
        known = Count.objects.filter(contract=contract, seq=seq).first()
        if known is not None:
            return _repeated(known, samples, last)
        _check_in_time(contract, now)
        _check_monotone(contract, seq, samples, last)
        count = Count.objects.create(
            contract=contract,
            seq=seq,
            samples=samples,
            last=last,
            actor=actor[:100],
            created_at=now,
        )
        if last:
            Contract.objects.filter(pk=contract.pk).update(counted=samples)
            contract.counted = samples
            if contract.state == ContractState.SETTLED:
                _correct(contract, now)
    return count


def _check_numbers(seq: int, samples: int) -> None:
    problems = []
    if not 1 <= seq <= MAX_SEQ:
        problems.append(FieldProblem("seq", "numbers start at 1"))
    if not 0 <= samples <= MAX_SAMPLES:
        problems.append(FieldProblem("samples", f"0 to {MAX_SAMPLES}"))
    if problems:
        raise BadInput(*problems)


def _repeated(known: Count, samples: int, last: bool) -> Count:
    if (known.samples, known.last) != (samples, last):
        raise Refused(
            f"Count {known.seq} of this contract said {known.samples} samples before.",
            code="count_conflict",
        )
    return known


def _check_in_time(contract: Contract, now: datetime) -> None:
    if contract.basis != Contract.Basis.SAMPLES:
        raise Refused("A probe is paid by time; nobody counts its samples.", code="not_counted")
    over = contract.final_at is not None and contract.final_at <= now
    if over or contract.state in (ContractState.FINAL, ContractState.VOIDED):
        raise Refused("The time for counts of this contract is over.", code="window_over")


def _check_monotone(contract: Contract, seq: int, samples: int, last: bool) -> None:
    rows = Count.objects.filter(contract=contract)
    if rows.filter(last=True, seq__lt=seq).exists() or (last and rows.filter(seq__gt=seq).exists()):
        raise Refused("Nothing is counted after the last count.", code="count_after_last")
    falls = rows.filter(seq__lt=seq, samples__gt=samples).exists()
    if falls or rows.filter(seq__gt=seq, samples__lt=samples).exists():
        raise Refused("A counter never goes back.", code="count_not_monotone")


def _correct(contract: Contract, now: datetime) -> None:
    """Take a last count up that came after the settlement; a decision on it stands."""
    if word_of(contract) is not None:
        return
    figures = figures_of(contract)
    if figures.outcome.disputed:
        counters_differ(contract=contract, now=now)
        return
    try:
        with transaction.atomic():
            settlement_post(
                contract=contract,
                event="correct",
                figures=figures,
                now=now,
                code="late_count",
                why=f"The trainer's last count, {contract.counted} samples, came in.",
            )
    except Refused as refusal:
        contract.refresh_from_db(fields=["state", "postings"])
        correction_refused(contract=contract, why=refusal.why, now=now)
