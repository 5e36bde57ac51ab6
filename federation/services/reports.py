"""Write side of agents' reports: stored once by number, applied in any order to the same end.

A batch of many leases is one transaction with few statements. Locked are leases, by id, then their
jobs, by id; contracts are changed after both. A lease that ends has a transaction of its own, for
its job may be placed anew, which moves money.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import FloatField, Max, OuterRef, Subquery
from django.db.models.functions import Coalesce

from federation.bulk import pairs_stored, rows_among, rows_insert, rows_update
from federation.machines.contract import ContractState
from federation.machines.job import JobState
from federation.machines.lease import LIVE, LeaseState
from federation.models import Contract, Job, Lease, LogChunk, Report, Site
from federation.services.leases import (
    Ending,
    LeaseEnded,
    lease_end,
    log_caps_bytes,
    orders_changed,
)
from federation.services.placement import waiting_place
from federation.services.sample_checks import SampleIn
from federation.services.samples import samples_accept
from federation.services.story import allows, move
from federation.services.totals import (
    Booked,
    Told,
    contracts_raise,
    lease_raise,
    totals,
)
from federation.services.totals import (
    Measured as Measured,
)

log = logging.getLogger("hanse")
REPORT = ("lease_id", "seq", "kind", "body", "received_at", "applied")
RAISED = (
    *("reports_stored", "reports_highest", "end_seq", "log_bytes", "log_truncated"),
    *("samples", "gpu_seconds", "measured_samples_per_s", "progress_lines", "loss", "started_at"),
)  #: fields of a lease that its reports raise
DELIVERED = ("delivered", "gpu_seconds", "gpu_seconds_told")
OPEN = (ContractState.HELD, ContractState.RUNNING)


@dataclass(frozen=True, slots=True)
class LogPiece:
    offset: int
    data: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class ReportIn:
    lease_id: UUID
    seq: int
    kind: str
    contract_id: UUID | None
    measured: Measured | None
    log: LogPiece | None
    ending: Ending | None
    body: dict[str, Any]  #: as received, without the log's bytes
    sample: SampleIn | None = None  #: what the job measured of its own steps


@dataclass(frozen=True, slots=True)
class ReceiptOut:
    lease_id: UUID
    seq: int
    accepted: bool
    code: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    receipts: tuple[ReceiptOut, ...]
    ended: tuple[LeaseEnded, ...]


@dataclass(slots=True)
class _Attempt:
    """A locked lease, what is new of it, and what that says of its totals."""

    lease: Lease
    fresh: list[ReportIn]  #: by number
    told: list[Told] = field(default_factory=list)
    gained: int = 0  #: samples


@dataclass(slots=True)
class _Kept:
    """What became of a batch."""

    known: set[UUID] = field(default_factory=set)  #: leases of the site
    fresh: list[ReportIn] = field(default_factory=list)  #: stored for the first time
    ended: list[LeaseEnded] = field(default_factory=list)
    failures: dict[UUID, Exception] = field(default_factory=dict)  #: by lease

    def add(self, other: _Kept) -> None:
        self.known |= other.known
        self.ended += other.ended


Batches = Mapping[UUID, list[ReportIn]]  #: reports by their lease


def reports_accept(*, site: Site, reports: Sequence[ReportIn], now: datetime) -> Accepted:
    """Store and apply a batch. A report seen before is accepted again and changes nothing.

    What cannot be stored gets no receipt, so that its agent sends it again; it is raised when
    nothing at all could be.
    """
    batches: dict[UUID, list[ReportIn]] = defaultdict(list)
    for report in reports:
        batches[report.lease_id].append(report)
    kept = _Kept()
    last = {pk for pk, batch in batches.items() if any(r.ending is not None for r in batch)}
    _store(site, batches, [pk for pk in batches if pk not in last], now, kept)
    for pk in last:
        _store_alone(site, batches[pk], now, kept)
    for pk, error in kept.failures.items():
        if len(kept.failures) == len(batches):
            raise error
        log.error("reports of attempt %s cannot be stored", pk, exc_info=error)
    heard = (batch for pk, batch in batches.items() if pk not in kept.failures)
    receipts = (_receipt(r, kept) for batch in heard for r in batch)
    return Accepted(tuple(receipts), tuple(kept.ended))


def _receipt(report: ReportIn, kept: _Kept) -> ReceiptOut:
    if report.lease_id in kept.known:
        return ReceiptOut(report.lease_id, report.seq, accepted=True)
    return ReceiptOut(
        report.lease_id,
        report.seq,
        accepted=False,
        code="unknown_attempt",
        why="This site has no such attempt.",
    )


def _store(
    site: Site, batches: Batches, leases: Sequence[UUID], now: datetime, kept: _Kept
) -> None:
    """Store what came of some leases together; where that fails, of each half.

    So one lease with something that cannot be stored costs the others a few transactions more.
    """
    if len(leases) <= 1:
        for pk in leases:
            _store_alone(site, batches[pk], now, kept)
        return
    try:
        with transaction.atomic():
            found = _accept(site, {pk: batches[pk] for pk in leases}, now)
            _measure(site, batches, found, now)
    except Exception:  # noqa: BLE001 - met again by the lease that it comes from, and raised
        half = len(leases) // 2
        _store(site, batches, leases[:half], now, kept)
        _store(site, batches, leases[half:], now, kept)
    else:
        kept.add(found)


def _store_alone(site: Site, batch: list[ReportIn], now: datetime, kept: _Kept) -> None:
    """Store what came of one lease: the reports, then what was measured, in transactions apart.

    A measurement costs no report; and a batch that dies in between comes again, and is measured
    then.
    """
    one = batch[0].lease_id
    try:
        with transaction.atomic():
            found = _accept(site, {one: batch}, now)
        told = [report.sample for report in batch if report.sample is not None and found.known]
        if told:
            with transaction.atomic():
                _locked(site, {one})  # the lease before its model, as where both are stored at once
                samples_accept(site=site, samples=told, now=now)
    except Exception as error:  # noqa: BLE001 - told when the others are stored
        kept.failures[one] = error
    else:
        kept.add(found)


def _measure(site: Site, batches: Batches, found: _Kept, now: datetime) -> None:
    """Store the measurements in the reports' own transaction: what is new was in none before."""
    new = [report.sample for report in found.fresh if report.sample is not None]
    samples_accept(site=site, samples=new, now=now, heard=False)
    if len(found.fresh) == sum(len(batches[pk]) for pk in found.known):
        return
    told = [r.sample for pk in found.known for r in batches[pk] if r.sample is not None]
    samples_accept(site=site, samples=told, now=now)


def _accept(site: Site, batches: Batches, now: datetime) -> _Kept:
    """Everything new, in the order of its numbers, under the leases' locks."""
    leases = _locked(site, batches)
    attempts = _fresh(leases, batches)
    rows_insert(Report, REPORT, _rows(attempts, now))
    for attempt in attempts:
        _count(attempt)
        _total(attempt, now)
    _store_logs(attempts)
    # the new values are right however the rows were found: nobody else changes them meanwhile
    leases_changed = [(a.lease.pk, *(getattr(a.lease, name) for name in RAISED)) for a in attempts]
    rows_update(Lease, RAISED, leases_changed)
    jobs = _jobs_raise(attempts, now)
    _deliver(attempts, now)
    for attempt in attempts:
        _job_moves(attempt, jobs, now)
    fresh = [report for attempt in attempts for report in attempt.fresh]
    return _Kept(set(leases), fresh, [fact for one in attempts for fact in _end(one, now)])


def _locked(site: Site, ids: Collection[UUID]) -> dict[UUID, Lease]:
    """The site's leases among them, locked by id as a sync and a publication do."""
    rows = Lease.objects.select_for_update(of=("self",)).order_by("pk")
    leases = {lease.pk: lease for lease in rows_among(rows.filter(site=site), "pk", sorted(ids))}
    for lease in leases.values():
        lease.site = site
    return leases


def _fresh(leases: Mapping[UUID, Lease], batches: Batches) -> list[_Attempt]:
    """What of the batches was not stored before; of a number that stands twice, the last."""
    numbers = {(pk, report.seq) for pk in leases for report in batches[pk]}
    seen = pairs_stored(Report, ("lease_id", "seq"), numbers)
    found = []
    for pk, lease in leases.items():
        new = {r.seq: r for r in batches[pk] if (pk, r.seq) not in seen}
        if new:
            found.append(_Attempt(lease, [new[seq] for seq in sorted(new)]))
    return found


def _rows(attempts: Iterable[_Attempt], now: datetime) -> Iterable[tuple[Any, ...]]:
    for attempt in attempts:
        lease = attempt.lease
        counts = lease.state != LeaseState.FENCED
        for report in attempt.fresh:
            yield (lease.pk, report.seq, report.kind, report.body, now, counts)


def _count(attempt: _Attempt) -> None:
    """The numbers on record, and the last one when it is said."""
    lease, fresh = attempt.lease, attempt.fresh
    lease.reports_stored += len(fresh)
    lease.reports_highest = max(lease.reports_highest, fresh[-1].seq)
    ends = [report.seq for report in fresh if report.ending is not None]
    lease.end_seq = ends[-1] if ends else lease.end_seq


def _total(attempt: _Attempt, now: datetime) -> None:
    """Raise the attempt's totals; a superseded one's are kept and move nothing."""
    lease = attempt.lease
    if lease.state == LeaseState.FENCED:
        return
    measured = ((r.contract_id, r.measured) for r in attempt.fresh if r.measured is not None)
    attempt.told = list(totals(measured))
    attempt.gained = sum(lease_raise(lease, total, now) for _, total in attempt.told)


def _store_logs(attempts: Iterable[_Attempt]) -> None:
    sent = {
        attempt.lease.pk: (attempt.lease, pieces)
        for attempt in attempts
        if (pieces := [r.log for r in attempt.fresh if r.log is not None])
    }
    if not sent:
        return
    caps = log_caps_bytes([lease for lease, _ in sent.values()])
    chunks = []
    for lease, whole in sent.values():
        pieces = [_clipped(piece, caps[lease.pk]) for piece in whole]
        lease.log_truncated |= any(piece.truncated for piece in pieces)
        lease.log_bytes = max(lease.log_bytes, *(p.offset + len(p.data) for p in pieces))
        chunks += [
            LogChunk(lease=lease, offset=p.offset, size=len(p.data), data=p.data)
            for p in pieces
            if p.data
        ]
    LogChunk.objects.bulk_create(chunks, ignore_conflicts=True)


def _clipped(piece: LogPiece, cap: int) -> LogPiece:
    """An agent that does not keep to the cap fills no disk here."""
    room = max(0, cap - piece.offset)
    if len(piece.data) <= room:
        return piece
    return LogPiece(min(piece.offset, cap), piece.data[:room], truncated=True)


def _jobs_raise(attempts: Iterable[_Attempt], now: datetime) -> dict[UUID, Job]:
    """Lock the jobs that the reports can move, by id, and add the samples gained."""
    wanted = {a.lease.job_id for a in attempts if a.gained or (a.told and a.lease.state in LIVE)}
    rows = Job.objects.select_for_update(no_key=True).order_by("pk")
    rows = rows.only("pk", "state", "samples_done", "updated_at")
    jobs = {job.pk: job for job in rows_among(rows, "pk", sorted(wanted))}
    gained = [attempt for attempt in attempts if attempt.gained]
    for attempt in gained:
        jobs[attempt.lease.job_id].samples_done += attempt.gained
    more = {attempt.lease.job_id: jobs[attempt.lease.job_id].samples_done for attempt in gained}
    rows_update(Job, ["samples_done", "updated_at"], [(pk, to, now) for pk, to in more.items()])
    return jobs


def _deliver(attempts: Iterable[_Attempt], now: datetime) -> None:
    """Raise what the contracts delivered that can still be worked under."""
    told = {
        attempt.lease.pk: attempt.told
        for attempt in attempts
        if any(contract_id is not None for contract_id, _ in attempt.told)
    }
    changed = []
    for lease_id, books in _booked(told).items():
        before = [_figures(book.contract) for book in books]
        contracts_raise(books, told[lease_id])
        for book, were in zip(books, before, strict=True):
            row = book.contract
            if book.named and row.state == ContractState.HELD:
                figures: dict[str, Any] = dict(zip(DELIVERED, _figures(row), strict=True))
                move(row, "deliver", now=now, **figures)
            elif _figures(row) != were:
                changed.append((row.pk, *_figures(row)))
    # what was measured meanwhile stays as it is
    rows_update(Contract, DELIVERED, changed, only="state IN ('held', 'running')")


def _figures(contract: Contract) -> tuple[int, float, float]:
    return contract.delivered, contract.gpu_seconds, contract.gpu_seconds_told


def _booked(leases: Collection[UUID]) -> dict[UUID, list[Booked]]:
    """The contracts of leases that can still be worked under, in their order."""
    earlier = Contract.objects.filter(
        lease=OuterRef("lease"), sequence__lt=OuterRef("sequence")
    ).order_by()
    highest = earlier.values("lease").annotate(top=Max("gpu_seconds_told")).values("top")
    rows = Contract.objects.filter(state__in=OPEN).order_by("sequence")
    rows = rows.only("pk", "lease_id", "sequence", "state", "basis", *DELIVERED)
    before = Coalesce(Subquery(highest), 0.0, output_field=FloatField())
    found: dict[UUID, list[Booked]] = defaultdict(list)
    for row in rows_among(rows.annotate(before=before), "lease_id", sorted(leases)):
        found[row.lease_id].append(Booked(row, row.before))
    return found


def _job_moves(attempt: _Attempt, jobs: Mapping[UUID, Job], now: datetime) -> None:
    lease = attempt.lease
    if lease.state not in LIVE:
        return
    for _, measured in attempt.told:
        job = jobs[lease.job_id]
        event = "run" if measured.samples > 0 else "start"
        quiet = (JobState.RUNNING, JobState.STARTING) if event == "start" else (JobState.RUNNING,)
        if job.state in quiet or job.state == JobState.RECOVERING:
            continue
        if allows(job, event):
            move(job, event, now=now, actor=f"agent:{lease.site.name}", updated_at=now)


def _end(attempt: _Attempt, now: datetime) -> list[LeaseEnded]:
    """End the lease as its reports say, and place its job anew where it was awarded."""
    lease, facts = attempt.lease, []
    ends = [report.ending for report in attempt.fresh if report.ending is not None]
    if ends:
        orders_changed(lease.site_id)  # so that the agent hears it may forget the attempt
    for ending in ends:
        fact = lease_end(lease=lease, ending=ending, now=now, actor=f"agent:{lease.site.name}")
        if fact is not None:
            facts.append(fact)
            waiting_place(job_id=lease.job_id, now=now)
    return facts
