"""How fast a class runs here: its probe command, on the machinery that runs jobs.

A measurement is kept with the digest of everything that made it, so a restart does not repeat it
and a changed command does.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

from agents.clock import Clock, rfc3339
from agents.config import Config, JobClass, Probe
from agents.drivers.base import Driver, Handle, Phase, Task
from agents.drivers.meter import MAX_READ, Meter
from agents.errors import DriverFailed, ProbeFailed
from agents.log import event, trouble
from agents.protocol import AffinityOffer, BadMessage, EndReason, canonical, decode, encode
from agents.state import write_private

LEEWAY_S = 30.0  #: beyond the probe's seconds before its own fence ends it
GRACE_S = 5.0
LOG_BYTES = 64 * 1024
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to measure."""

    job_class: str
    pool: str
    probe: Probe
    digest: str


@dataclass(frozen=True, slots=True)
class Measurement:
    digest: str
    pool: str
    job_class: str
    gpus: int
    samples_per_s: float  #: on all `gpus` together
    lines: int
    measured_at: str

    def offer(self) -> AffinityOffer:
        return AffinityOffer(self.pool, self.job_class, self.samples_per_s, self.gpus, "probed")


@dataclass(frozen=True, slots=True)
class Measurements:
    kept: tuple[Measurement, ...]


def questions(config: Config) -> list[Question]:
    """Every class with a probe on every pool it is for."""
    return [
        Question(item.name, pool, item.probe, _digest(config, item, pool))
        for item in config.classes
        if item.probe is not None
        for pool in item.probe.pools
    ]


def fresh(
    kept: Sequence[Measurement], asked: Sequence[Question], *, now: datetime, max_age_hours: float
) -> list[Measurement]:
    """The measurements that still answer a question."""
    wanted = {question.digest for question in asked}
    oldest = now - timedelta(hours=max_age_hours)
    return [
        item
        for item in kept
        if item.digest in wanted and datetime.fromisoformat(item.measured_at) >= oldest
    ]


def load(path: Path) -> list[Measurement]:
    try:
        return list(decode(Measurements, json.loads(path.read_bytes())).kept)
    except (OSError, ValueError, BadMessage):
        return []  # a lost cache costs a probe


def save(path: Path, kept: Sequence[Measurement]) -> None:
    write_private(path, canonical(encode(Measurements(tuple(kept)))))


class Prober:
    """Runs probes one after another unless told otherwise: side by side they slow each other."""

    def __init__(
        self,
        *,
        config: Config,
        driver: Driver,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._driver = driver
        self._clock = clock
        self._sleep = sleep

    def answer(self, asked: Sequence[Question]) -> list[Measurement]:
        """One measurement per question that could be answered; the others are told."""
        found: dict[str, Measurement] = {}
        if self._config.probes.parallel:
            crew = [Thread(target=self._try, args=(q, found), daemon=True) for q in asked]
            for member in crew:
                member.start()
            for member in crew:
                member.join()
        else:
            for question in asked:
                self._try(question, found)
        return [found[question.digest] for question in asked if question.digest in found]

    def _try(self, question: Question, found: dict[str, Measurement]) -> None:
        try:
            found[question.digest] = self.measure(question)
        except (ProbeFailed, DriverFailed) as error:
            trouble(
                "probe.failed", job_class=question.job_class, pool=question.pool, why=str(error)
            )

    def clear(self) -> None:
        """End and remove probes of an agent that was stopped in the middle of them."""
        for name in self._driver.known():
            handle = self._driver.readopt(name)
            if handle is None:
                self._driver.cleanup(name)
            else:
                self._put_away(handle)

    def measure(self, question: Question) -> Measurement:
        """Run one probe to its end; raises ProbeFailed with what was seen instead of a speed."""
        task = self._task(question)
        handle = self._driver.start(task)
        try:
            meter = self._watch(handle)
            rate = meter.samples_per_s
            if not rate:
                raise ProbeFailed(self._why_no_rate(task, meter))
        finally:
            self._put_away(handle)
        event("probe.measured", job_class=question.job_class, pool=question.pool, rate=rate)
        return Measurement(
            digest=question.digest,
            pool=question.pool,
            job_class=question.job_class,
            gpus=question.probe.gpus,
            samples_per_s=rate,
            lines=meter.lines,
            measured_at=rfc3339(self._clock.wall()),
        )

    def _task(self, question: Question) -> Task:
        probe = question.probe
        pool = self._config.pool(question.pool)
        first = self._config.first_slot(question.pool)
        nonce = os.urandom(4).hex()
        return Task(
            attempt=f"probe-{question.digest[:12]}-{nonce}",
            job=f"probe-{question.digest[:12]}",
            pool=question.pool,
            gpus=probe.gpus,
            job_class=question.job_class,
            command="",
            argv=probe.command,
            probe=True,
            max_runtime_s=probe.seconds,
            grace_s=GRACE_S,
            log_cap_bytes=LOG_BYTES,
            fence_at=self._clock.boottime() + probe.seconds + LEEWAY_S,
            slots=tuple(range(first, first + probe.gpus)),
            devices=pool.devices[: probe.gpus] if pool is not None else (),
        )

    def _watch(self, handle: Handle) -> Meter:
        meter = Meter()
        while True:
            over = self._driver.poll(handle).phase is Phase.OVER
            data = self._driver.progress(handle.attempt, meter.offset, MAX_READ)
            now = self._clock.monotonic()
            since = now - max(self._clock.boottime() - handle.started, 0.0)
            meter = meter.read(data, now=now, since=since, final=over and len(data) < MAX_READ)
            if over and len(data) < MAX_READ:
                return meter
            if not over:
                self._sleep(LOOK_S)

    def _why_no_rate(self, task: Task, meter: Meter) -> str:
        log = self._driver.logs(task.attempt, 0, LOG_BYTES).data.decode(errors="replace")
        return (
            f"{meter.lines} progress lines in {task.max_runtime_s:g} s (two are needed, with "
            f"samples that grow); its last words: {log.strip()[-300:] or 'none'}"
        )

    def _put_away(self, handle: Handle) -> None:
        if self._driver.poll(handle).phase is Phase.RUNNING:
            self._driver.stop(
                handle, grace_s=0.0, reason=EndReason.RUNTIME_LIMIT, why="the probe is over"
            )
            while self._driver.poll(handle).phase is Phase.RUNNING:
                self._sleep(LOOK_S)
        self._driver.cleanup(handle.attempt)


def _digest(config: Config, item: JobClass, pool_name: str) -> str:
    """Names the measurement by all that can change its result."""
    pool = config.pool(pool_name)
    value = {
        "class": encode(item),
        "pool": encode(pool),
        "env": config.driver.env,
        "threads": config.driver.threads_per_gpu,
        "memory": config.driver.memory_mb_per_gpu,
        "pinned": config.driver.pin_cpus,
    }
    return hashlib.sha256(canonical(value)).hexdigest()
