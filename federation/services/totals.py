"""What reports say of attempts, in any order, raised in memory. Pure: no row is read or written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from federation.models import Contract, Lease

Told = tuple[UUID | None, "Measured"]  #: the contract that a report names, and its totals


@dataclass(frozen=True, slots=True)
class Measured:
    """Totals of one attempt so far; every number only ever grows."""

    samples: int
    contract_samples: int
    gpu_seconds: float
    samples_per_s: float | None
    lines: int
    loss: float | None


def totals(told: Iterable[Told]) -> Iterator[Told]:
    """What the reports say, those in a row of one contract as one: totals only ever grow.

    The start of an attempt, where nothing was trained yet, is told by itself.
    """
    last: Told | None = None
    for contract_id, measured in told:
        if last is not None and (last[0] != contract_id or not last[1].samples):
            yield last
            last = None
        last = (contract_id, measured if last is None else _later(last[1], measured))
    if last is not None:
        yield last


def _later(one: Measured, other: Measured) -> Measured:
    """Both as one. The speed is that of more lines; of as many, the later."""
    newest = one
    if other.samples_per_s is not None and (one.samples_per_s is None or other.lines >= one.lines):
        newest = other
    before = None if one.samples_per_s is None else one.loss
    return Measured(
        samples=max(one.samples, other.samples),
        contract_samples=max(one.contract_samples, other.contract_samples),
        gpu_seconds=max(one.gpu_seconds, other.gpu_seconds),
        samples_per_s=newest.samples_per_s,
        lines=newest.lines,
        loss=before if newest.loss is None else newest.loss,
    )


def lease_raise(lease: Lease, measured: Measured, now: datetime) -> int:
    """Raise an attempt's totals to what was reported, never lower them; samples gained."""
    gained = max(0, measured.samples - lease.samples)
    lease.samples += gained
    lease.gpu_seconds = max(lease.gpu_seconds, measured.gpu_seconds)
    if measured.samples_per_s is not None and measured.lines >= lease.progress_lines:
        lease.measured_samples_per_s = measured.samples_per_s
        lease.progress_lines = measured.lines
        lease.loss = measured.loss if measured.loss is not None else lease.loss
    lease.started_at = lease.started_at or now
    return gained


@dataclass(slots=True)
class Booked:
    """A contract that can still be worked under, whose figures reports raise."""

    contract: Contract
    before: float  #: highest GPU-seconds of the attempt told under a contract before it
    named: bool = False  #: by one of these reports


def contracts_raise(books: Sequence[Booked], told: Iterable[Told]) -> None:
    """Raise what contracts of one lease delivered, in memory. `books`: in the contracts' order.

    GPU-seconds under a contract are the highest total told under it less the highest told under an
    earlier one, whichever was heard first.
    """
    by_id: dict[UUID | None, Booked] = {book.contract.pk: book for book in books}
    for contract_id, measured in told:
        book = by_id.get(contract_id)
        if book is None:
            continue  # another lease's, or measured already: kept, moves nothing
        row, book.named = book.contract, True
        row.gpu_seconds_told = max(row.gpu_seconds_told, measured.gpu_seconds)
        if row.basis == Contract.Basis.SAMPLES:
            row.delivered = max(row.delivered, measured.contract_samples)
    highest = 0.0
    for book in books:
        row, before = book.contract, max(book.before, highest)
        highest = max(highest, row.gpu_seconds_told)
        row.gpu_seconds = max(0.0, row.gpu_seconds_told - before)
        if row.basis == Contract.Basis.GPU_MS:
            row.delivered = int(row.gpu_seconds * 1000)
