"""Between the wire's messages and the federation's values. Nothing is decided here."""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from agents import protocol as wire
from federation.admission import Published
from federation.affinity.planner.sheets import SAID_RULES
from federation.errors import BadInput, FieldProblem
from federation.models import Site
from federation.selectors.plans_award import launch_variables
from federation.services.leases import Ending, log_cap_bytes
from federation.services.offers import MAX_SPEED, AffinityLine, OfferDraft, PoolLine
from federation.services.orders import LeaseWanted, Orders
from federation.services.reports import LogPiece, Measured, ReportIn
from federation.services.sample_checks import SampleIn
from federation.services.syncs import AttemptSeen, Hello

MAX_BOOT = 64
MAX_COUNT = 2**53  #: samples and log bytes: what a float still counts one by one
MAX_GPU_SECONDS = 1e13  #: three thousand years of a hundred GPUs
INT_32 = 2**31  #: columns of 32 bits


_uuid = lru_cache(maxsize=8192)(UUID)  #: a batch names few attempts very often


def uuid_of(text: str, path: str) -> UUID:
    try:
        return _uuid(text)
    except ValueError:
        raise BadInput(FieldProblem(path, "an id is expected")) from None


def time_of(text: str | None, path: str) -> datetime | None:
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(FieldProblem(path, "an RFC 3339 time is expected")) from None
    if value.tzinfo is None:
        raise BadInput(FieldProblem(path, "the time needs a zone, such as Z"))
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise BadInput(FieldProblem(path, "a time within the calendar is expected")) from None


def hello(message: wire.SyncRequest, now: datetime) -> Hello:
    if not 1 <= len(message.boot) <= MAX_BOOT:
        raise BadInput(FieldProblem("boot", f"1 to {MAX_BOOT} characters"))
    sent = time_of(message.sent_at, "sent_at")
    skew = (sent - now).total_seconds() if sent is not None else None
    return Hello(agent_version=message.agent_version, boot=message.boot, clock_skew_s=skew)


def attempts(message: wire.SyncRequest) -> list[AttemptSeen]:
    return [
        AttemptSeen(
            lease_id=uuid_of(a.attempt, f"attempts[{i}].attempt"),
            state=a.state.value,
            contract_id=uuid_of(a.contract, f"attempts[{i}].contract") if a.contract else None,
            last_seq=a.last_seq,
        )
        for i, a in enumerate(message.attempts)
    ]


def offer_draft(offer: wire.OfferDocument) -> OfferDraft:
    return OfferDraft(
        digest=offer.digest(),
        pools=[PoolLine(p.name, p.gpu, p.gpus, p.reserve, _device(p)) for p in offer.pools],
        affinities=[
            AffinityLine(a.pool, a.job_class, a.gpus, a.samples_per_s, a.source)
            for a in offer.affinities
        ],
        valid_from=time_of(offer.valid_from, "offer.valid_from"),
        valid_until=time_of(offer.valid_until, "offer.valid_until"),
        note=offer.note[:1000],
        rules=None if offer.policy is None else _published(offer.policy),
    )


def _published(policy: wire.SitePolicy) -> Published:
    return Published(**{one.name: getattr(policy, one.name) for one in fields(Published)})


def _device(pool: wire.PoolOffer) -> dict[str, float]:
    """What the site says of the pool's GPUs; what it leaves out is not there."""
    said = {name: getattr(pool, name) for name in SAID_RULES}
    return {name: value for name, value in said.items() if value is not None}


def reports(batch: wire.ReportBatch) -> list[ReportIn]:
    return [_report(r, f"reports[{i}]") for i, r in enumerate(batch.reports)]


def _report(report: wire.Report, path: str) -> ReportIn:
    if not 1 <= report.seq < INT_32:
        raise BadInput(FieldProblem(f"{path}.seq", "numbers start at 1"))
    if (report.kind == wire.ReportKind.ENDED) != (report.end is not None):
        raise BadInput(FieldProblem(f"{path}.end", "comes with kind ended, and only with it"))
    time_of(report.at, f"{path}.at")
    body: dict[str, Any] = wire.encode(report)
    body.pop("log", None)
    lease_id = uuid_of(report.attempt, f"{path}.attempt")
    return ReportIn(
        lease_id=lease_id,
        seq=report.seq,
        kind=report.kind.value,
        contract_id=uuid_of(report.contract, f"{path}.contract") if report.contract else None,
        measured=_measured(report.progress, f"{path}.progress") if report.progress else None,
        log=_log(report.log, f"{path}.log") if report.log else None,
        ending=_ending(report.end, f"{path}.end") if report.end else None,
        body=body,
        sample=_sample(lease_id, report.seq, report.progress) if report.progress else None,
    )


def _sample(lease_id: UUID, seq: int, progress: wire.Progress) -> SampleIn | None:
    """As it came: what is wrong with it costs no report, see `services.sample_checks`."""
    told = progress.measurement
    if told is None:
        return None
    return SampleIn(
        lease_id=lease_id,
        seq=seq,
        line=told.line,
        lines=progress.lines,
        step_s=told.step_time_s,
        local_batch=told.local_batch,
        replicas=told.replicas,
        nodes=told.nodes,
        accumulation=told.accumulation,
        sync_s=told.sync_time_s,
        gpu=told.gpu,
        grad_sqr=told.grad_sqr,
        grad_var=told.grad_var,
        memory_peak=told.memory_peak_bytes,
        problem=told.problem,
    )


def _within(value: float, limit: float, path: str) -> None:
    if not 0 <= value < limit:
        raise BadInput(FieldProblem(path, f"not negative, and below {limit:g}, is expected"))


def _measured(progress: wire.Progress, path: str) -> Measured:
    _within(progress.samples, MAX_COUNT, f"{path}.samples")
    _within(progress.contract_samples, MAX_COUNT, f"{path}.contract_samples")
    _within(progress.gpu_seconds, MAX_GPU_SECONDS, f"{path}.gpu_seconds")
    _within(progress.lines, INT_32, f"{path}.lines")
    _within(progress.samples_per_s or 0.0, MAX_SPEED, f"{path}.samples_per_s")
    if progress.contract_samples > progress.samples:
        raise BadInput(FieldProblem(f"{path}.contract_samples", "more than the attempt's samples"))
    return Measured(
        samples=progress.samples,
        contract_samples=progress.contract_samples,
        gpu_seconds=progress.gpu_seconds,
        samples_per_s=progress.samples_per_s or None,
        lines=progress.lines,
        loss=progress.loss,
    )


def _log(chunk: wire.LogChunk, path: str) -> LogPiece:
    _within(chunk.offset, MAX_COUNT, f"{path}.offset")
    try:
        data = chunk.raw()
    except (binascii.Error, ValueError):
        raise BadInput(FieldProblem(f"{path}.data", "base64 is expected")) from None
    if len(data) > wire.MAX_LOG_CHUNK:
        raise BadInput(FieldProblem(f"{path}.data", f"at most {wire.MAX_LOG_CHUNK} bytes"))
    return LogPiece(offset=chunk.offset, data=data, truncated=chunk.truncated)


def _ending(end: wire.End, path: str) -> Ending:
    if end.exit_code is not None and not -INT_32 <= end.exit_code < INT_32:
        raise BadInput(FieldProblem(f"{path}.exit_code", "a number of 32 bits is expected"))
    return Ending(end.reason.value, end.exit_code, end.message, end.code or "")


def reply(site: Site, orders: Orders, now: datetime) -> wire.SyncReply:
    reads = frozenset(what for what in wire.READS if wire.reads(site.agent_version, what))
    leases = tuple(_lease(w, reads) for w in orders.wanted)
    revokes = tuple(
        wire.RevokeOrder(str(r.lease_id), r.code, r.why, r.grace_s) for r in orders.revokes
    )
    forget = tuple(str(pk) for pk in orders.forget)
    asks = ("offer",) if orders.ask_offer else ()
    digest = hashlib.sha256(
        wire.canonical(wire.encode([leases, revokes, forget, asks]))
    ).hexdigest()
    return wire.SyncReply(
        protocol=wire.PROTOCOL,
        server_time=now.isoformat(),
        renew_s=site.venue.renew_s,
        orders=digest,
        leases=leases,
        revokes=revokes,
        forget=forget,
        asks=asks,
    )


def _lease(wanted: LeaseWanted, reads: frozenset[str]) -> wire.LeaseOrder:
    """`reads`: what its agent reads of the fields that came later."""
    lease, job = wanted.lease, wanted.lease.job
    return wire.LeaseOrder(
        attempt=str(lease.pk),
        pool=lease.pool.name,
        gpus=lease.gpus,
        contract=str(wanted.contract.pk),
        contract_samples=wanted.contract.contracted,
        fence_s=lease.fence_s,
        spec=wire.JobSpec(
            job=str(job.pk),
            name=job.name,
            job_class=job.job_class.name,
            command=job.command,
            setup=job.setup,
            env=dict(job.env),
            samples_done=wanted.samples_done,
            samples_wanted=wanted.samples_wanted,
            probe=job.kind == job.Kind.PROBE,
            max_runtime_s=job.max_runtime_s,
            grace_s=job.grace_s,
            log_cap_bytes=log_cap_bytes(lease),
            tenant=job.tenant.name if wire.TENANTS in reads else None,
        ),
        plan=launch_variables(lease.plan) if wire.PLANS in reads else None,
    )
