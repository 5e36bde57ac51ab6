"""One attempt's folder on the shared file system: what agent and guards tell each other.

spec.json      written by the agent before sbatch; the guards' orders
renewal.json   written by the agent, again and again: the fence
stop.json      written by the agent: end it, with this grace
job.json       written by the agent after sbatch: Slurm's number
doomed         written by the agent: a node is lost, the fence is not moved any more
guard.json     the claim: who has it runs the job, once
node.json      written by the guard: its host and clocks
exit.json      written by the guard last of all
node-K/        the same of the guard on node K of a gang
output.log progress.jsonl slurm.log
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.clock import Clock
from agents.drivers import guard
from agents.drivers.base import Exit
from agents.drivers.slurm import fence, stamps
from agents.protocol import EndReason

NEVER = {"pid": 0, "start": 0, "boot": "", "started": 0.0}  #: a claim that nobody runs under


@dataclass(frozen=True, slots=True)
class Submission:
    number: int  #: of the job in Slurm
    at: float  #: boottime from which Slurm knows it


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    path: Path
    clock: Clock
    boot: str  #: of the agent's host

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    # -- what the agent writes --------------------------------------------------------------------

    def renew(self, fence_at: float) -> None:
        now = self.clock.boottime()
        self._replace("renewal.json", fence.renewal(fence_at, now=now, boot=self.boot))

    def ask_to_stop(self, *, grace_s: float, reason: EndReason, why: str) -> None:
        self._replace("stop.json", {"reason": str(reason), "why": why, "grace_s": grace_s})

    def order(self, spec: dict[str, Any]) -> None:
        self._replace("spec.json", spec)

    def submitted(self, job: int) -> None:
        now = self.clock.boottime()
        self._replace("job.json", {"job": job, "at": now, "boot": self.boot})

    def doom(self) -> None:
        (self.path / "doomed").touch()

    def claim_for_nobody(self) -> bool:
        """True when no guard ever ran here, and none will from now on."""
        return guard.claim_as(dict(NEVER), str(self.path / "guard.json"))

    # -- what it reads ----------------------------------------------------------------------------

    @property
    def claimed(self) -> bool:
        """True when a guard has begun."""
        claim = guard.read_json(str(self.path / "guard.json"))
        return claim is not None and bool(claim["pid"])

    @property
    def is_nobodys(self) -> bool:
        """True when it was claimed so that nothing can ever run here."""
        claim = guard.read_json(str(self.path / "guard.json"))
        return claim is not None and not claim["pid"]

    @property
    def doomed(self) -> bool:
        return (self.path / "doomed").exists()

    def submission(self) -> Submission | None:
        """As sbatch said it, or as the guard found it in its environment; None: not yet."""
        value = guard.read_json(str(self.path / "job.json"))
        if value is not None:
            at = float(value["at"]) if value["boot"] == self.boot else 0.0
            return Submission(int(value["job"]), at)
        node = guard.read_json(str(self.path / "node.json"))
        return None if node is None else Submission(int(node["job"]), 0.0)

    def spec(self) -> dict[str, Any]:
        return guard.read_json(str(self.path / "spec.json")) or {}

    def stop(self) -> tuple[EndReason, str] | None:
        value = guard.read_json(str(self.path / "stop.json"))
        return None if value is None else (EndReason(value["reason"]), str(value["why"]))

    def exit(self) -> Exit | None:
        value = guard.read_json(str(self.path / "exit.json"))
        if value is None:
            return None
        ended = self._here(float(value["ended"]), "exit.json")
        return Exit(EndReason(value["reason"]), value["exit_code"], value["message"], ended)

    def others_ended(self) -> bool:
        """True when every guard that began on a node of the gang has written its end."""
        return all((node / "exit.json").exists() for node in self.path.glob("node-*"))

    def began_at(self) -> float | None:
        """Boottime at which the guard began; None while the job waits in Slurm's queue."""
        claim = guard.read_json(str(self.path / "guard.json"))
        if claim is None or not claim["pid"]:
            return None
        return self._here(float(claim["started"]), "guard.json")

    def ahead_s(self) -> float:
        """CLOCK_MONOTONIC of the job's host minus the agent's own, seconds."""
        node = guard.read_json(str(self.path / "node.json"))
        if node is None or node["boot"] == self.boot:
            return 0.0
        passed = self.age_s("node.json")
        return float(node["monotonic"]) + passed - self.clock.monotonic()

    def fence_passed(self) -> bool:
        """By what was renewed last; a restart of this host does not move it."""
        value = guard.read_json(str(self.path / "renewal.json"))
        if value is None:
            return True
        if value["boot"] == self.boot:
            return self.clock.boottime() >= float(value["fence_at"])
        return self.age_s("renewal.json") >= float(value["left_s"])

    def age_s(self, name: str) -> float:
        """How long ago a file was written, by the file system's own clock."""
        return stamps.age_s(str(self.path), name, touched="clock-agent")

    def bytes_of(self, name: str, offset: int, limit: int) -> bytes:
        """Of a plain file; whatever else a job put in its place reads as empty."""
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return b""
        try:
            return os.pread(fd, limit, offset) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)

    def _here(self, moment: float, name: str) -> float:
        """A boottime of the job's host as one of ours; `name` was written at that moment."""
        node = guard.read_json(str(self.path / "node.json"))
        if node is None or node["boot"] == self.boot:
            return moment
        return self.clock.boottime() - max(self.age_s(name), 0.0)

    def _replace(self, name: str, value: dict[str, Any]) -> None:
        """Whole or not at all; a folder that is gone is nobody's any more."""
        draft = self.path / f"{name}.draft"
        with suppress(FileNotFoundError):
            draft.write_text(json.dumps(value), encoding="utf-8")
            os.replace(draft, self.path / name)
