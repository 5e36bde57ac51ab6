"""Progress lines of a job, read as they grow: how far it is and how fast.

A line is a JSON object with `samples` (cumulative in this attempt) and optionally `t` (seconds of
CLOCK_MONOTONIC), `step_time_s` and `loss`. One that has `local_batch` as well measures its steps
and may say more (the protocol's `Measurement`): that is passed on, not judged. Jobs write what they
like, so nothing here can fail: a bad line is counted and skipped, a partial one waits for its end,
samples never go back.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from agents.protocol import MAX_TEXT, Measurement

MAX_READ = 256 * 1024  #: bytes in one look; also the longest line that is understood
MAX_SAMPLES = 2**53 - 1  #: exact as a float; the broker takes no more
MAX_RATE = 1e12  #: samples/s that nothing trains
MAX_KIND = 200  #: characters of a GPU's name
NUMBERS = ("step_time_s", "local_batch", "sync_time_s", "grad_sqr", "grad_var")
COUNTS = ("replicas", "nodes", "accumulation", "memory_peak_bytes")


@dataclass(frozen=True, slots=True)
class Meter:
    offset: int = 0  #: bytes understood so far
    skipping: bool = False  #: inside a line too long to keep
    junk: int = 0  #: lines that meant nothing
    lines: int = 0
    samples: int = 0
    first_samples: int = 0
    first_t: float | None = None  #: monotonic seconds of the first line
    last_t: float | None = None
    step_time_s: float | None = None
    loss: float | None = None
    measurement: Measurement | None = None  #: of the newest line that measured

    @property
    def samples_per_s(self) -> float | None:
        """Between the first and the last line: what came before the first is start-up."""
        if self.first_t is None or self.last_t is None or self.last_t <= self.first_t:
            return None
        rate = (self.samples - self.first_samples) / (self.last_t - self.first_t)
        return rate if math.isfinite(rate) and rate < MAX_RATE else None

    def read(self, data: bytes, *, now: float, since: float, final: bool = False) -> Meter:
        """Take in bytes that begin at `offset`; a `t` outside [since, now] is not believed."""
        if not data:
            return self
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= MAX_READ:
            return replace(self, offset=self.offset + len(data), skipping=True)
        whole = data if final else data[:end]
        reading = _Reading(self)
        for line in whole.splitlines():
            if reading.skipping:
                reading.skipping = False
                reading.junk += 1
            elif line.strip():
                reading.take(line, now, since)
        return reading.meter(self.offset + len(whole))


class _Reading:
    """A meter that moves, for one read: on a busy site lines cost more than all else."""

    def __init__(self, before: Meter) -> None:
        self.skipping = before.skipping
        self.junk = before.junk
        self.lines = before.lines
        self.samples = before.samples
        self.first_samples = before.first_samples
        self.first_t = before.first_t
        self.last_t = before.last_t
        self.step_time_s = before.step_time_s
        self.loss = before.loss
        self.measurement = before.measurement

    def take(self, line: bytes, now: float, since: float) -> None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            self.junk += 1
            return
        samples = _number(value.get("samples")) if isinstance(value, dict) else None
        if samples is None or not 0 <= samples <= MAX_SAMPLES:
            self.junk += 1
            return
        self.lines += 1
        self._moment(_number(value.get("t")), int(samples), now, since)
        self.samples = max(self.samples, int(samples))
        step, loss = _number(value.get("step_time_s")), _number(value.get("loss"))
        if step is not None and step >= 0:
            self.step_time_s = step
        if loss is not None:
            self.loss = loss
        self.measurement = _measurement(value, self.lines) or self.measurement

    def _moment(self, t: float | None, samples: int, now: float, since: float) -> None:
        t = t if t is not None and since <= t <= now else now
        t = t if self.last_t is None else max(t, self.last_t)
        if self.first_t is None:
            self.first_t, self.first_samples = t, samples
        self.last_t = t

    def meter(self, offset: int) -> Meter:
        return Meter(
            offset=offset,
            skipping=self.skipping,
            junk=self.junk,
            lines=self.lines,
            samples=self.samples,
            first_samples=self.first_samples,
            first_t=self.first_t,
            last_t=self.last_t,
            step_time_s=self.step_time_s,
            loss=self.loss,
            measurement=self.measurement,
        )


def _measurement(value: dict[str, Any], line: int) -> Measurement | None:
    """What a line says of its steps; a value that is no number is told as a problem."""
    if value.get("local_batch") is None:
        return None
    found: dict[str, Any] = {}
    problems = []
    for name in (*NUMBERS, *COUNTS):
        given = value.get(name)
        number = _number(given)
        if name in COUNTS and number is not None and not _is_count(number):
            number = None
        if given is not None and number is None:
            kind = "whole" if name in COUNTS else "finite"
            problems.append(f"{name} is {_told(given)}: a {kind} number is expected")
        found[name] = int(number) if name in COUNTS and number is not None else number
    gpu = value.get("gpu")
    if gpu is not None and (not isinstance(gpu, str) or not _is_kind(gpu)):
        problems.append("gpu is not the name of a kind")
        gpu = None
    return Measurement(line, **found, gpu=gpu or "", problem="; ".join(problems)[:MAX_TEXT])


def _told(given: Any) -> str:
    plain = isinstance(given, str | int | float)
    return repr(str(given)[:40]) if plain else f"a {type(given).__name__}"


def _is_count(number: float) -> bool:
    return number.is_integer() and abs(number) <= MAX_SAMPLES


def _is_kind(text: str) -> bool:
    return len(text) <= MAX_KIND and text.isprintable()


def _number(value: Any) -> float | None:
    """A finite number, or nothing; whole numbers too large for a float too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
