"""Clocks as an argument, so that tests never sleep.

`boottime` decides fences, runtimes and retries: nobody can set it and it counts a suspended host's
sleep, as the broker's clock does. `monotonic` is what `hanse.report()` stamps progress lines with.
`wall` is for people; it decides nothing.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    def boottime(self) -> float:
        """Seconds since the host booted, suspended time included."""
        ...

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC, the same in every process of this host."""
        ...

    def wall(self) -> datetime:
        """The time of day in UTC, as wrong as the host has it."""
        ...


class SystemClock:
    """The host's clocks."""

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime:
        return datetime.now(UTC)


class VirtualClock:
    """Time that passes only when told to: for rehearsals with the fake driver, and for tests."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._wall = datetime(2026, 1, 1, tzinfo=UTC)
        self._wall_offset = 0.0

    def boottime(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self._wall.timestamp() + self._now + self._wall_offset, UTC)

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def set_wall(self, offset_s: float) -> None:
        """Somebody sets the host's time of day wrong by `offset_s` seconds."""
        self._wall_offset = offset_s


def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def boot_id() -> str:
    """Names this boot of the host: a `boottime` value means nothing in another boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
