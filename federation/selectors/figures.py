"""Reads of a contract's settlement: its terms, what was delivered, and what follows from both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from economics.settlement import PPM, Cause, Delivery, Outcome, Terms, settle_contract
from federation.causes import End, due_if, verdict
from federation.machines.contract import ContractState
from federation.models import Contract, Dispute, Lease, Report, Rules

_LOG = "log"  #: kind of reports that measure nothing
_RAN = ("started", "progress")  #: kinds of reports that only a started program makes


@dataclass(frozen=True, slots=True)
class Word:
    """A decision on a disputed contract: samples that count, and whose doing the rest was."""

    accepted: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Figures:
    """A contract's settlement, micro-credits and samples, with all that it follows from."""

    terms: Terms
    delivery: Delivery
    outcome: Outcome
    decided: bool = False  #: a decision on a dispute made them


def end_of(contract: Contract) -> End:
    """What is on record of a contract's end. The lease is wanted with it."""
    lease = contract.lease
    return End(
        opened_at=contract.created_at,
        ends_at=contract.ends_at,
        contracted=contract.contracted,
        first=contract.sequence == 1,
        to_end=contract.to_end,
        started=has_started(lease),
        superseded_at=contract.superseded_at,
        asked_back_at=lease.revoke_asked_at,
        asked_back_code=lease.revoke_code,
        ended_at=lease.ended_at,
        end_reason=lease.end_reason,
    )


def has_started(lease: Lease) -> bool:
    """True when its agent has said that the program ran."""
    return (
        lease.samples > 0
        or lease.gpu_seconds > 0
        or Report.objects.filter(lease=lease, kind__in=_RAN, applied=True).exists()
    )


def figures_of(
    contract: Contract, *, rules: Rules | None = None, word: Word | None = None
) -> Figures:
    """Settle a contract on paper, by its own rules or by others, and by a decision if there is one.

    A contract without rules, of a probe, is paid by what it delivered: no bond, no penalty. Of one
    that is void all goes back.
    """
    if contract.state == ContractState.VOIDED:
        return figures_void(contract)
    rules = rules or contract.rules
    terms = terms_of(contract, rules)
    delivery = _delivery(contract, rules, word)
    outcome = settle_contract(terms, delivery)
    if rules is not None and delivery.cause is Cause.SITE and not delivery.started:
        outcome = _non_start(outcome, terms, rules)
    if word is None:
        return Figures(terms, delivery, outcome)
    return Figures(terms, delivery, replace(outcome, disputed=False), decided=True)


def word_of(contract: Contract) -> Word | None:
    """The decision that stands for a contract; None when its own figures do."""
    decided = contract.disputes.filter(state=Dispute.State.DECIDED, accepted__isnull=False)
    last = decided.order_by("-decided_at", "-created_at").first()
    return Word(last.accepted or 0, Cause(last.cause)) if last else None


def terms_of(contract: Contract, rules: Rules | None) -> Terms:
    """What both sides agreed to, as it is stored."""
    return Terms(
        payment_micro=contract.payment_micro,
        contracted=contract.contracted,
        bond_micro=contract.bond_micro,
        price_micro=contract.price_micro,
        reserve_micro=contract.reserve_micro,
        kappa_ppm=rules.kappa_ppm if rules else 0,
        dead_band_ppm=rules.dead_band_ppm if rules else 0,
        tolerance_ppm=rules.tolerance_ppm if rules else 0,
    )


def figures_void(contract: Contract) -> Figures:
    """Nothing ran, and that is not the site's doing: all of escrow and bond goes back."""
    terms = terms_of(contract, contract.rules)
    nothing = Delivery(delivered=0, counted=None, gpu_ms=0, due=0)
    return Figures(terms, nothing, settle_contract(terms, nothing))


def _delivery(contract: Contract, rules: Rules | None, word: Word | None) -> Delivery:
    gpu_ms = int(contract.gpu_seconds * 1000)
    if rules is None:
        delivered = contract.delivered if word is None else word.accepted
        return Delivery(delivered=delivered, counted=None, gpu_ms=gpu_ms)
    allowance = timedelta(seconds=rules.start_allowance_s)
    end = end_of(contract)
    if word is not None:
        return Delivery(
            delivered=word.accepted,
            counted=None,
            gpu_ms=gpu_ms_of(contract, word.cause, started=end.started),
            due=due_if(end, word.accepted, word.cause, allowance),
            cause=word.cause,
            started=end.started or word.accepted > 0,
        )
    counts = (
        [contract.delivered]
        if contract.counted is None
        else [
            contract.delivered,
            contract.counted,
        ]
    )
    judged = verdict(end, min(counts), allowance)
    return Delivery(
        delivered=contract.delivered,
        counted=contract.counted,
        gpu_ms=gpu_ms_of(contract, judged.cause, started=end.started),
        due=judged.due,
        cause=judged.cause,
        started=judged.started,
    )


def _non_start(outcome: Outcome, terms: Terms, rules: Rules) -> Outcome:
    """A lease that its site never started costs the share of the bond that the rules name."""
    penalty = -(-terms.bond_micro * rules.non_start_ppm // PPM)
    return replace(outcome, penalty_micro=penalty, bond_back_micro=terms.bond_micro - penalty)


def gpu_ms_of(contract: Contract, cause: Cause, *, started: bool) -> int:
    """GPU-milliseconds under a contract.

    Where money hangs on them, when a shortfall is its tenant's doing, by its end or by a decision,
    they are read from the stored reports: the running total depends on the order in which the
    reports of two contracts came in. Of one that never started no report can say any: they were
    set when it was measured.
    """
    if started and cause is Cause.TENANT:
        stored = gpu_ms_reported(contract)
        if stored is not None:
            return stored
    return int(contract.gpu_seconds * 1000)


def gpu_ms_reported(contract: Contract, *, until: datetime | None = None) -> int | None:
    """GPU-milliseconds by the stored reports, or those received until then: the highest total said
    under this contract less the highest said under an earlier one of its lease. None when no report
    says any."""
    earlier = Contract.objects.filter(lease=contract.lease_id, sequence__lt=contract.sequence)
    before = {str(pk) for pk in earlier.values_list("pk", flat=True)}
    own, past = None, 0.0
    for name, progress in _progress(contract.lease_id, until):
        total = float(progress.get("gpu_seconds", 0.0))
        if name == str(contract.pk):
            own = max(own or 0.0, total)
        elif name in before:
            past = max(past, total)
    return None if own is None else max(0, int(own * 1000) - int(past * 1000))


def delivered_reported(contract: Contract, *, until: datetime | None = None) -> int:
    """Samples of a contract by the stored reports, or those received until it was measured."""
    said = [
        int(progress.get("contract_samples", 0))
        for name, progress in _progress(contract.lease_id, until)
        if name == str(contract.pk)
    ]
    return max(said, default=0)


def _progress(
    lease_id: UUID, until: datetime | None = None
) -> Iterator[tuple[str | None, dict[str, float]]]:
    """(contract, progress) of every applied report of a lease that measured something."""
    reports = Report.objects.filter(lease=lease_id, applied=True).exclude(kind=_LOG)
    if until is not None:
        reports = reports.filter(received_at__lte=until)
    for body in reports.values_list("body", flat=True).iterator():
        if body.get("progress"):
            yield body.get("contract"), body["progress"]
