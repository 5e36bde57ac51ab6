"""What agent and guard tell each other about one attempt, through files that both hosts see.

    <attempts>/<attempt>/   agent: spec.json script renewal.json stop.json
                            guard: guard.json pulse.json exit.json progress.jsonl output.log

`guard.json` is the claim: a hard link that exists or does not, also on a network file system. The
guard takes it before it runs anything; the agent takes it to be sure that nothing ever will.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.drivers import guard
from agents.drivers.ray import watch


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has claimed the folder; pid 0 = the agent, so that nothing runs."""

    pid: int
    start: int
    boot: str
    pids: str  #: the pid's namespace
    started: float  #: boottime of `boot`


@dataclass(frozen=True, slots=True)
class Pulse:
    boot: str
    now: float  #: boottime of `boot`
    monotonic: float  #: CLOCK_MONOTONIC at the same moment


class AttemptFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt = path.name

    def exists(self) -> bool:
        return self.path.is_dir()

    def identity(self) -> Identity | None:
        value = self._read("guard.json")
        if value is None:
            return None
        return Identity(
            int(value["pid"]),
            int(value["start"]),
            str(value["boot"]),
            str(value["pids"]),
            float(value["started"]),
        )

    def withdraw(self, *, boot: str, now: float) -> bool:
        """Claim it for nobody; False when a guard has it, or nothing can be written here now."""
        nobody = {"pid": 0, "start": 0, "boot": boot, "pids": "", "started": now}
        try:
            return guard.claim_as(nobody, str(self.path / "guard.json"))
        except OSError:
            return False

    def pulse(self) -> Pulse | None:
        value = self._read("pulse.json")
        if value is None:
            return None
        return Pulse(str(value["boot"]), float(value["now"]), float(value["monotonic"]))

    def spec(self) -> dict[str, Any]:
        """Empty when it is not whole."""
        return self._read("spec.json") or {}

    def stop(self) -> dict[str, Any] | None:
        return self._read("stop.json")

    def over(self) -> dict[str, Any] | None:
        return self._read("exit.json")

    def renew(self, value: dict[str, Any]) -> None:
        """In place, so that a full disk does not cost a healthy job its fence."""
        watch.rewrite(str(self.path / "renewal.json"), value)

    def renewal(self) -> dict[str, Any] | None:
        return self._read("renewal.json")

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Whole or not at all."""
        guard.write_json(str(self.path / name), value)

    def progress(self, offset: int, limit: int) -> bytes:
        return self._slice("progress.jsonl", offset, limit)

    def log(self, offset: int, limit: int) -> bytes:
        return self._slice("output.log", offset, limit)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        return guard.read_json(str(self.path / name))

    def _slice(self, name: str, offset: int, limit: int) -> bytes:
        """Bytes of a plain file; whatever else a job put in its place reads as empty."""
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return b""
        try:
            return os.pread(fd, limit, offset) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
