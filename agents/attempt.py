"""One attempt as the journal keeps it, and the facts that can be told of it.

Pure: values in, values out. `Attempt` is written as a whole in the same transaction as the reports
that describe its change, so the two never disagree after a crash.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace

from agents.drivers.base import Exit, Handle, LogPart, Status
from agents.drivers.meter import Meter
from agents.protocol import (
    MAX_TEXT,
    AttemptState,
    AttemptStatus,
    End,
    EndReason,
    LeaseOrder,
    LogChunk,
    Progress,
    Report,
    ReportKind,
)


@dataclass(frozen=True, slots=True)
class Attempt:
    attempt: str
    state: AttemptState
    order: LeaseOrder | None  #: None: only ever heard of in a revoke
    contract: str | None
    contract_base: int = 0  #: samples when the agent learned of `contract`
    past_contracts: tuple[str, ...] = ()
    boot: str = ""  #: the boot of the host that `fence_at` and `started` belong to
    fence_at: float = 0.0  #: boottime
    slots: tuple[int, ...] = ()  #: GPUs held, counted over all pools
    ref: str = ""  #: the driver's handle
    started: float | None = None  #: boottime
    ahead_s: float = 0.0  #: CLOCK_MONOTONIC of the job's host minus this host's
    meter: Meter = field(default_factory=Meter)
    gpu_seconds: float = 0.0
    log_offset: int = 0  #: bytes of log journalled
    log_closed: bool = False
    reported_at: float = 0.0  #: boottime of the last look for news to report
    told_at: float = 0.0  #: boottime of the last progress report
    told_lines: int = 0  #: progress lines behind it
    stop_reason: EndReason | None = None
    stop_why: str = ""
    stop_grace_s: float = 0.0
    stop_code: str = ""  #: the site's own reason to stop it
    exit: Exit | None = None  #: the driver says it is over; its GPUs are free
    last_seq: int = 0

    @property
    def live(self) -> bool:
        return self.state is not AttemptState.ENDED

    @property
    def holds_gpus(self) -> bool:
        started = self.state not in (AttemptState.WAITING, AttemptState.ENDED)
        return started and self.exit is None

    @property
    def handle(self) -> Handle | None:
        return Handle(self.attempt, self.ref, self.started or 0.0) if self.ref else None

    def status(self) -> AttemptStatus:
        return AttemptStatus(self.attempt, self.state, self.contract, self.last_seq)

    def progress(self) -> Progress:
        meter, measured = self.meter, self.meter.measurement
        return Progress(
            samples=meter.samples,
            contract_samples=meter.samples - self.contract_base,
            gpu_seconds=self.gpu_seconds,
            samples_per_s=meter.samples_per_s,
            lines=meter.lines,
            step_time_s=meter.step_time_s,
            loss=meter.loss,
            # each line is told once
            measurement=measured if measured and measured.line > self.told_lines else None,
        )

    def under(self, order: LeaseOrder) -> Attempt:
        """The same work, booked under another contract from here on."""
        past = (*self.past_contracts, self.contract or "")
        return replace(
            self,
            order=order,
            contract=order.contract,
            contract_base=self.meter.samples,
            past_contracts=past,
        )


def received(order: LeaseOrder, *, fence_at: float, boot: str) -> Attempt:
    return Attempt(
        order.attempt, AttemptState.WAITING, order, order.contract, fence_at=fence_at, boot=boot
    )


def unheard(attempt: str) -> Attempt:
    """An attempt known only from a revoke."""
    return Attempt(attempt, AttemptState.WAITING, None, None)


def seen(attempt: Attempt, status: Status) -> Attempt:
    """What the driver saw; GPU-seconds begin when the local scheduler gave the GPUs."""
    started = attempt.started if status.held_since is None else status.held_since
    if (attempt.exit, attempt.started, attempt.ahead_s) == (status.exit, started, status.ahead_s):
        return attempt
    return replace(attempt, exit=status.exit, started=started, ahead_s=status.ahead_s)


def gpu_seconds(attempt: Attempt, now: float, boot: str) -> float:
    """GPUs held times wall time until `now` (boottime); of a lost job what was last known."""
    if attempt.started is None or attempt.order is None or attempt.boot != boot:
        return attempt.gpu_seconds
    until = now if attempt.exit is None else attempt.exit.ended
    held = 0.0 if until is None else (until - attempt.started) * attempt.order.gpus
    return max(attempt.gpu_seconds, held)


def ended(attempt: Attempt, over: Exit) -> Attempt:
    return replace(attempt, state=AttemptState.ENDED, exit=over)


def fact_started(attempt: Attempt, at: str) -> Report:
    return _fact(attempt, ReportKind.STARTED, at, progress=Progress(0, 0, 0.0))


def fact_progress(attempt: Attempt, at: str) -> Report:
    return _fact(attempt, ReportKind.PROGRESS, at, progress=attempt.progress())


def fact_log(attempt: Attempt, part: LogPart, at: str) -> Report:
    data = base64.b64encode(part.data).decode()
    chunk = LogChunk(attempt.log_offset, data, part.truncated)
    return _fact(attempt, ReportKind.LOG, at, log=chunk)


def fact_ended(attempt: Attempt, over: Exit, at: str) -> Report:
    end = End(over.reason, over.exit_code, over.message[:MAX_TEXT], _code(attempt, over))
    return _fact(attempt, ReportKind.ENDED, at, progress=attempt.progress(), end=end)


def _code(attempt: Attempt, over: Exit) -> str | None:
    """The site's own reason. An older broker, which would refuse it, names no tenant."""
    if attempt.order is None or attempt.order.spec.tenant is None:
        return None
    own = attempt.stop_code if over.reason is attempt.stop_reason else ""
    return over.code or own or None


def _fact(
    attempt: Attempt,
    kind: ReportKind,
    at: str,
    *,
    progress: Progress | None = None,
    log: LogChunk | None = None,
    end: End | None = None,
) -> Report:
    """A report without its number: the journal gives it one when it is written."""
    return Report(attempt.attempt, 0, kind, at, attempt.contract, progress, log, end)
