"""New progress lines of an attempt, as its driver has them."""

from __future__ import annotations

from agents.attempt import Attempt
from agents.clock import Clock
from agents.drivers.base import Driver
from agents.drivers.meter import MAX_READ, Meter

READS = 16  #: of progress, at most, in one look at one attempt


def read_progress(attempt: Attempt, driver: Driver, clock: Clock) -> Meter:
    """The attempt's meter after what its job has written since the last look."""
    meter = attempt.meter
    now = clock.monotonic() + attempt.ahead_s
    since = now - max(clock.boottime() - (attempt.started or 0.0), 0.0)
    for _ in range(READS):
        data = driver.progress(attempt.attempt, meter.offset, MAX_READ)
        last = len(data) < MAX_READ
        meter = meter.read(data, now=now, since=since, final=last and attempt.exit is not None)
        if last:
            break
    return meter
