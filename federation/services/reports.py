"""Write side of agents' reports: stored once by number, applied in any order to the same end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Sum

from federation.bulk import rows_insert
from federation.machines.contract import ContractState
from federation.machines.job import JobState
from federation.machines.lease import LIVE, LeaseState
from federation.models import Contract, Job, Lease, LogChunk, Report, Site
from federation.services.leases import Ending, LeaseEnded, lease_end, log_cap_bytes, orders_changed
from federation.services.placement import waiting_place
from federation.services.sample_checks import SampleIn
from federation.services.samples import samples_accept
from federation.services.story import allows, move

REPORT = ("lease_id", "seq", "kind", "body", "received_at", "applied")


@dataclass(frozen=True, slots=True)
class Measured:
    """Totals of one attempt so far; every number only ever grows."""

    samples: int
    contract_samples: int
    gpu_seconds: float
    samples_per_s: float | None
    lines: int
    loss: float | None


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


def reports_accept(*, site: Site, reports: Sequence[ReportIn], now: datetime) -> Accepted:
    """Store and apply a batch. A report seen before is accepted again and changes nothing."""
    by_lease: dict[UUID, list[ReportIn]] = defaultdict(list)
    for report in reports:
        by_lease[report.lease_id].append(report)
    receipts: list[ReceiptOut] = []
    ended: list[LeaseEnded] = []
    for lease_id, batch in by_lease.items():
        with transaction.atomic():
            lease = (
                Lease.objects.select_for_update(of=("self",))
                .select_related("job", "site", "pool")
                .filter(pk=lease_id, site=site)
                .first()
            )
            if lease is None:
                receipts += [_unknown(r) for r in batch]
                continue
            ended += _accept(lease, batch, now)
            receipts += [ReceiptOut(r.lease_id, r.seq, accepted=True) for r in batch]
    # after the reports: a batch that dies in between comes again, and is stored then
    samples_accept(site=site, samples=[r.sample for r in reports if r.sample], now=now)
    return Accepted(tuple(receipts), tuple(ended))


def _unknown(report: ReportIn) -> ReceiptOut:
    return ReceiptOut(
        report.lease_id,
        report.seq,
        accepted=False,
        code="unknown_attempt",
        why="This site has no such attempt.",
    )


def _accept(lease: Lease, batch: list[ReportIn], now: datetime) -> list[LeaseEnded]:
    """Everything new in `batch`, in the order of its numbers, under the lease's lock."""
    seen = set(
        Report.objects.filter(lease=lease, seq__in=[r.seq for r in batch]).values_list(
            "seq", flat=True
        )
    )
    fresh = sorted({r.seq: r for r in batch if r.seq not in seen}.values(), key=lambda r: r.seq)
    if not fresh:
        return []
    counts = lease.state != LeaseState.FENCED
    rows_insert(Report, REPORT, ((lease.pk, r.seq, r.kind, r.body, now, counts) for r in fresh))
    ends = [r for r in fresh if r.ending is not None]
    Lease.objects.filter(pk=lease.pk).update(
        reports_stored=F("reports_stored") + len(fresh),
        reports_highest=max(lease.reports_highest, fresh[-1].seq),
        **({"end_seq": ends[-1].seq} if ends else {}),
    )
    _store_logs(lease, fresh)
    if counts:
        for contract_id, measured in _totals(fresh):
            _apply(lease, contract_id, measured, now)
    if ends:
        orders_changed(lease.site_id)  # so that the agent hears it may forget the attempt
    facts = []
    for report in ends:
        fact = lease_end(
            lease=lease,
            ending=report.ending,  # type: ignore[arg-type]
            now=now,
            actor=f"agent:{lease.site.name}",
        )
        if fact is not None:
            facts.append(fact)
            waiting_place(job_id=lease.job_id, now=now)
    return facts


def _totals(fresh: Sequence[ReportIn]) -> Iterator[tuple[UUID | None, Measured]]:
    """What the reports say, those in a row of one contract as one: totals only ever grow.

    The start of an attempt, where nothing was trained yet, is told by itself.
    """
    last: tuple[UUID | None, Measured] | None = None
    for report in fresh:
        told = report.measured
        if told is None:
            continue
        if last is not None and (last[0] != report.contract_id or not last[1].samples):
            yield last
            last = None
        last = (report.contract_id, told if last is None else _later(last[1], told))
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


def _store_logs(lease: Lease, fresh: list[ReportIn]) -> None:
    sent = [r.log for r in fresh if r.log is not None]
    if not sent:
        return
    cap = log_cap_bytes(lease)
    pieces = [_clipped(piece, cap) for piece in sent]
    if any(p.truncated for p in pieces):
        Lease.objects.filter(pk=lease.pk).update(log_truncated=True)
    LogChunk.objects.bulk_create(
        (
            LogChunk(lease=lease, offset=p.offset, size=len(p.data), data=p.data)
            for p in pieces
            if p.data
        ),
        ignore_conflicts=True,
    )
    top = max(p.offset + len(p.data) for p in pieces)
    Lease.objects.filter(pk=lease.pk, log_bytes__lt=top).update(log_bytes=top)


def _clipped(piece: LogPiece, cap: int) -> LogPiece:
    """An agent that does not keep to the cap fills no disk here."""
    room = max(0, cap - piece.offset)
    if len(piece.data) <= room:
        return piece
    return LogPiece(min(piece.offset, cap), piece.data[:room], truncated=True)


def _apply(lease: Lease, contract_id: UUID | None, measured: Measured, now: datetime) -> None:
    """Raise the totals of lease, contract and job to what was reported; never lower them."""
    gained = max(0, measured.samples - lease.samples)
    lease.samples += gained
    lease.gpu_seconds = max(lease.gpu_seconds, measured.gpu_seconds)
    if measured.samples_per_s is not None and measured.lines >= lease.progress_lines:
        lease.measured_samples_per_s = measured.samples_per_s
        lease.progress_lines = measured.lines
        lease.loss = measured.loss if measured.loss is not None else lease.loss
    lease.started_at = lease.started_at or now
    lease.save(
        update_fields=[
            "samples",
            "gpu_seconds",
            "measured_samples_per_s",
            "progress_lines",
            "loss",
            "started_at",
        ]
    )
    if gained:
        Job.objects.filter(pk=lease.job_id).update(
            samples_done=F("samples_done") + gained, updated_at=now
        )
    _deliver(contract_id, lease, measured, now)
    _job_moves(lease, measured, now)


def _deliver(contract_id: UUID | None, lease: Lease, measured: Measured, now: datetime) -> None:
    if contract_id is None:
        return
    contract = Contract.objects.filter(pk=contract_id, lease=lease).first()
    if contract is None:
        return
    earlier = Contract.objects.filter(lease=lease, sequence__lt=contract.sequence)
    before = earlier.aggregate(total=Sum("gpu_seconds"))["total"] or 0.0
    gpu_seconds = max(0.0, measured.gpu_seconds - before)
    done = measured.contract_samples
    if contract.basis == Contract.Basis.GPU_MS:
        done = int(gpu_seconds * 1000)
    if contract.state not in (ContractState.HELD, ContractState.RUNNING):
        return  # measured already: kept, moves nothing
    move(
        contract,
        "deliver",
        now=now,
        delivered=max(contract.delivered, done),
        gpu_seconds=max(contract.gpu_seconds, gpu_seconds),
    )


def _job_moves(lease: Lease, measured: Measured, now: datetime) -> None:
    job = Job.objects.get(pk=lease.job_id)
    if lease.state not in LIVE:
        return
    event = "run" if measured.samples > 0 else "start"
    quiet = (JobState.RUNNING, JobState.STARTING) if event == "start" else (JobState.RUNNING,)
    if job.state in quiet or job.state == JobState.RECOVERING:
        return
    if allows(job, event):
        move(job, event, now=now, actor=f"agent:{lease.site.name}", updated_at=now)
