"""Progress lines of a job, read as they grow: how far it is and how fast.

A line is a JSON object with `samples` (cumulative in this attempt) and optionally `t` (seconds of
CLOCK_MONOTONIC), `step_time_s` and `loss`. Jobs write what they like, so nothing here can fail: a
bad line is counted and skipped, a partial one waits for its end, samples never go back.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

MAX_READ = 256 * 1024  #: bytes in one look; also the longest line that is understood
MAX_SAMPLES = 2**53 - 1  #: exact as a float; the broker takes no more
MAX_RATE = 1e12  #: samples/s that nothing trains


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

    @property
    def samples_per_s(self) -> float | None:
        """Between the first and the last line: what came before the first is start-up."""
        if self.first_t is None or self.last_t is None or self.last_t <= self.first_t:
            return None
        rate = (self.samples - self.first_samples) / (self.last_t - self.first_t)
        return rate if math.isfinite(rate) and rate < MAX_RATE else None

    def read(self, data: bytes, *, now: float, since: float, final: bool = False) -> Meter:
        """Take in bytes that begin at `offset`; a `t` outside [since, now] is not believed."""
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= MAX_READ:
            return replace(self, offset=self.offset + len(data), skipping=True)
        whole = data if final else data[:end]
        meter = replace(self, offset=self.offset + len(whole))
        for line in whole.splitlines():
            if meter.skipping:
                meter = replace(meter, skipping=False, junk=meter.junk + 1)
            elif line.strip():
                meter = meter._line(line, now, since)
        return meter

    def _line(self, line: bytes, now: float, since: float) -> Meter:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return replace(self, junk=self.junk + 1)
        samples = _number(value.get("samples")) if isinstance(value, dict) else None
        if samples is None or not 0 <= samples <= MAX_SAMPLES:
            return replace(self, junk=self.junk + 1)
        t = _number(value.get("t"))
        t = t if t is not None and since <= t <= now else now
        t = t if self.last_t is None else max(t, self.last_t)
        step, loss = _number(value.get("step_time_s")), _number(value.get("loss"))
        first = self.first_t is None
        return replace(
            self,
            lines=self.lines + 1,
            samples=max(self.samples, int(samples)),
            first_samples=int(samples) if first else self.first_samples,
            first_t=t if first else self.first_t,
            last_t=t,
            step_time_s=self.step_time_s if step is None or step < 0 else step,
            loss=self.loss if loss is None else loss,
        )


def _number(value: Any) -> float | None:
    """A finite number, or nothing; whole numbers too large for a float too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
