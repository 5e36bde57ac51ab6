"""`hanse agent drain`, `open` and `leave`: the operator's word, written down for the agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from agents import drain
from agents.clock import SystemClock, rfc3339
from agents.config import Config
from agents.drain import MAX_REASON, Drain
from agents.errors import AgentError, AlreadyRunning, ConfigError
from agents.journal import Journal
from agents.state import StateFolder

LOOK_S = 0.5  #: between two looks whether the agent has ended


@dataclass(frozen=True, slots=True)
class Left:
    """What an agent that does not run has not told yet."""

    attempts: int  #: that still hold GPUs, or wait
    unsent: int  #: reports


def close(config: Config, *, reason: str, leave: bool) -> None:
    """Take nothing new from now on; with `leave` hand back what runs, too. Raises ConfigError."""
    if not reason.strip() or len(reason) > MAX_REASON:
        raise ConfigError("--reason", f"1 to {MAX_REASON} characters: tenants read it")
    folder = StateFolder(config.state)
    folder.membership(config.broker)
    drain.write(folder.drain, Drain(reason.strip(), rfc3339(SystemClock().wall()), leave))


def reopen(config: Config) -> bool:
    """Take new leases again; False when the site was open."""
    folder = StateFolder(config.state)
    closed = folder.drain.exists()
    drain.clear(folder.drain)
    return closed


def wait_for_end(
    config: Config, *, limit_s: float, sleep: Callable[[float], None] = time.sleep
) -> Left:
    """Until the agent has ended, or does not run at all; raises AgentError when it takes longer."""
    clock, folder = SystemClock(), StateFolder(config.state)
    until = clock.boottime() + limit_s
    while True:
        try:
            with folder.lock():
                return _left(folder)
        except AlreadyRunning:
            if clock.boottime() >= until:
                raise AgentError(
                    f"the agent still runs after {limit_s:g} s; it leaves when its jobs have "
                    "stopped and the broker has all reports: see hanse agent status"
                ) from None
        sleep(LOOK_S)


def _left(folder: StateFolder) -> Left:
    if not folder.journal.exists():
        return Left(0, 0)
    journal = Journal(folder.journal, read_only=True)
    try:
        return Left(sum(attempt.live for attempt in journal.attempts()), journal.unsent())
    finally:
        journal.close()
