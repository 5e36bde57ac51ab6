"""What the agent asks of a local scheduler.

A driver starts an attempt at most once, keeps it running when the agent dies, and stops it by
itself when the fence deadline in its renewal passes. Times are `Clock.boottime` seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agents.protocol import EndReason


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt as a driver needs it."""

    attempt: str
    job: str
    pool: str
    gpus: int
    command: str  #: a shell script, or "" when `argv` is given
    max_runtime_s: float
    grace_s: float
    log_cap_bytes: int
    fence_at: float  #: boottime; nothing of the job lives beyond it unless renewed
    fence_lead_s: float = 0.0  #: SIGTERM comes this long before the fence
    job_class: str = ""
    setup: str = ""
    argv: tuple[str, ...] = ()  #: instead of a script: words that never meet a shell
    env: dict[str, str] = field(default_factory=dict)
    samples_done: int = 0
    samples_wanted: int = 0
    probe: bool = False
    tenant: str = ""  #: for sites that keep an account for each; "" = not told
    plan: dict[str, str] = field(default_factory=dict)  #: variables of the plan; {} = none
    slots: tuple[int, ...] = ()  #: GPUs held, counted over all pools of the site
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handle:
    """A started attempt; `ref` is the driver's own text and survives an agent's restart."""

    attempt: str
    ref: str
    started: float  #: boottime


class Phase(StrEnum):
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Exit:
    """How it ended. `ended` is boottime; None = unknown."""

    reason: EndReason
    exit_code: int | None = None
    message: str = ""
    ended: float | None = None
    code: str = ""  #: the site's rule that was the reason; "" = none was


@dataclass(frozen=True, slots=True)
class Status:
    phase: Phase
    exit: Exit | None = None  #: with OVER
    held_since: float | None = None  #: boottime at which it got its GPUs; None = when it started
    ahead_s: float = 0.0  #: CLOCK_MONOTONIC of the job's host minus this host's


@dataclass(frozen=True, slots=True)
class LogPart:
    data: bytes
    truncated: bool = False  #: the cap was reached at the end of `data`


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the scheduler has for jobs, beside the GPUs that the configuration names."""

    cores: int
    memory_bytes: int


class PoolSupply(Protocol):
    @property
    def left(self) -> int:
        """GPUs for the federation when local users' wishes come first; our own jobs' count."""
        ...


class Supply(Protocol):
    """What a scheduler shared with local users has for the federation, by pool."""

    @property
    def pools(self) -> Mapping[str, PoolSupply]: ...


class Driver(Protocol):
    def capacity(self) -> Capacity: ...

    def supply(self) -> Supply | None:
        """What local users leave now, None where there are none. May take its time; called from
        another thread than the rest. Raises AgentError when it cannot be known."""
        ...

    def start(self, task: Task) -> Handle:
        """Start it; raises DriverFailed with a sentence when nothing was started."""
        ...

    def poll(self, handle: Handle) -> Status: ...

    def renew(self, handle: Handle, fence_at: float) -> None:
        """Move the fence of a running attempt."""
        ...

    def stop(self, handle: Handle, *, grace_s: float, reason: EndReason, why: str) -> None:
        """Ask it to end: SIGTERM, `grace_s` to save its work, SIGKILL. Repeating is harmless."""
        ...

    def readopt(self, attempt: str) -> Handle | None:
        """Find an attempt started earlier; None means that it never ran and never will."""
        ...

    def progress(self, attempt: str, offset: int, limit: int) -> bytes:
        """Bytes of its progress lines."""
        ...

    def logs(self, attempt: str, offset: int, limit: int) -> LogPart: ...

    def cleanup(self, attempt: str) -> None:
        """Remove what is kept of an ended attempt; the job's work folder stays."""
        ...

    def known(self) -> frozenset[str]:
        """Attempts that have left something here."""
        ...
