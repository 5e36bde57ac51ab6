"""Jobs that only exist on the clock: for rehearsing a site before it has a GPU, and for tests.

A fake job trains at a set speed, writes a progress line and a log line for each second, saves its
work when told to stop, and keeps fence and limits as the real drivers do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agents.clock import Clock
from agents.config import Config
from agents.drivers.base import Capacity, Exit, Handle, LogPart, Phase, Status, Supply, Task
from agents.drivers.guard import log_mark
from agents.drivers.loading import Kind
from agents.errors import DriverFailed
from agents.protocol import EndReason


@dataclass(slots=True)
class FakeJob:
    task: Task
    rate: float  #: samples/s
    started: float
    fence_at: float
    stop_at: float | None = None
    stop_reason: EndReason = EndReason.REVOKED
    stop_why: str = ""
    written: int = 0  #: whole seconds already told
    finished: bool = False
    progress: bytearray = field(default_factory=bytearray)
    log: bytearray = field(default_factory=bytearray)

    def end(self) -> Exit | None:
        """The earliest of all ends that are known now."""
        task = self.task
        ends: list[tuple[float, EndReason, int | None, str]] = [
            (self.fence_at - task.fence_lead_s, EndReason.FENCED, None, "the fence passed"),
            (self.started + task.max_runtime_s, EndReason.RUNTIME_LIMIT, None, "the limit passed"),
        ]
        if task.samples_wanted and self.rate > 0:
            done_at = self.started + task.samples_wanted / self.rate
            ends.append((done_at, EndReason.EXITED, 0, ""))
        if self.stop_at is not None:
            ends.append((self.stop_at, self.stop_reason, 143, self.stop_why))
        at, reason, code, why = min(ends, key=lambda end: end[0])
        return Exit(reason, code, why, at)


class FakeDriver:
    def __init__(
        self, *, clock: Clock, speeds: Mapping[tuple[str, str], float], default: float = 0.0
    ) -> None:
        self._clock = clock
        self._speeds = dict(speeds)  # (pool, class) -> samples/s on one GPU
        self._default = default
        self._jobs: dict[str, FakeJob] = {}
        self.refuse: str = ""  #: when set, nothing can be started, and this is why

    def capacity(self) -> Capacity:
        return Capacity(cores=0, memory_bytes=0)

    def supply(self) -> Supply | None:
        return None

    def start(self, task: Task) -> Handle:
        if self.refuse:
            raise DriverFailed(self.refuse)
        if task.attempt in self._jobs:
            raise DriverFailed("this attempt was started here before")
        now = self._clock.boottime()
        speed = self._speeds.get((task.pool, task.job_class), self._default)
        self._jobs[task.attempt] = FakeJob(task, speed * task.gpus, now, task.fence_at)
        return Handle(task.attempt, "fake", now)

    def poll(self, handle: Handle) -> Status:
        job = self._jobs.get(handle.attempt)
        if job is None:
            return Status(Phase.OVER, Exit(EndReason.LOST, message="this rehearsal forgot it"))
        over = self._advance(job)
        return Status(Phase.RUNNING) if over is None else Status(Phase.OVER, over)

    def renew(self, handle: Handle, fence_at: float) -> None:
        job = self._jobs.get(handle.attempt)
        if job is not None and self._advance(job) is None:
            job.fence_at = fence_at

    def stop(self, handle: Handle, *, grace_s: float, reason: EndReason, why: str) -> None:
        job = self._jobs.get(handle.attempt)
        if job is not None and job.stop_at is None and self._advance(job) is None:
            job.stop_at, job.stop_reason, job.stop_why = self._clock.boottime(), reason, why

    def readopt(self, attempt: str) -> Handle | None:
        job = self._jobs.get(attempt)
        return None if job is None else Handle(attempt, "fake", job.started)

    def progress(self, attempt: str, offset: int, limit: int) -> bytes:
        job = self._jobs.get(attempt)
        if job is None:
            return b""
        self._advance(job)
        return bytes(job.progress[offset : offset + limit])

    def logs(self, attempt: str, offset: int, limit: int) -> LogPart:
        job = self._jobs.get(attempt)
        if job is None:
            return LogPart(b"")
        self._advance(job)
        mark = log_mark(job.task.log_cap_bytes)
        cap = max(job.task.log_cap_bytes, len(mark))
        whole = bytes(job.log)
        if len(whole) > cap - len(mark):
            whole = whole[: cap - len(mark)] + mark
        data = whole[offset : offset + limit]
        return LogPart(data, truncated=bool(data) and offset + len(data) >= cap)

    def cleanup(self, attempt: str) -> None:
        self._jobs.pop(attempt, None)

    def known(self) -> frozenset[str]:
        return frozenset(self._jobs)

    def _advance(self, job: FakeJob) -> Exit | None:
        """Write the lines of the seconds gone by; the end, once it is reached."""
        now = self._clock.boottime()
        end = job.end()
        over = end if end is not None and end.ended is not None and end.ended <= now else None
        until = now if over is None or over.ended is None else over.ended
        while job.started + job.written + 1 <= until:
            job.written += 1
            self._tell(job, job.written)
        if over is not None and over.reason is EndReason.EXITED and not job.finished:
            job.finished = True
            self._tell(job, until - job.started)
        return over

    def _tell(self, job: FakeJob, seconds: float) -> None:
        samples = round(job.rate * seconds)
        line = {"samples": samples, "t": job.started + seconds, "loss": 1 / (1 + seconds)}
        if samples:
            job.progress += json.dumps(line).encode() + b"\n"
        job.log += f"{seconds:g} s: {samples} samples\n".encode()


def make(config: Config, root: Path, site: str, clock: Clock) -> FakeDriver:
    """A rehearsal of this site at the speeds that its configuration declares."""
    speeds = {
        (speed.pool, item.name): speed.samples_per_s / speed.gpus
        for item in config.classes
        for speed in item.speeds
    }
    return FakeDriver(clock=clock, speeds=speeds)


KIND = Kind(make)
