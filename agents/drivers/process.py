"""Jobs as processes of this host, each beside its own guard.

    <state>/attempts/<attempt>/   spec.json script renewal.json stop.json guard.json exit.json
                                  progress.jsonl output.log guard.log
    <work>/<job>/                 the job's folder, kept for its later attempts here

The driver and a guard talk through these files only, so either may die and come back. Jobs run as
the agent's own user: this driver contains mistakes, not malice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agents
from agents.clock import Clock, boot_id
from agents.config import NAME, Config, DriverSettings
from agents.drivers import guard, jsonfile, processes
from agents.drivers.base import Capacity, Exit, Handle, LogPart, Phase, Status, Supply, Task
from agents.drivers.environment import BASE_PATH, job_environment
from agents.drivers.loading import Kind
from agents.errors import DriverFailed
from agents.log import trouble
from agents.probes.capacity import machine
from agents.protocol import EndReason

START_GUARD = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from agents.drivers.guard import main; sys.exit(main(sys.argv[2]))"
)
MEGA = 1024 * 1024
TAIL = 500  #: characters of a guard's last words worth telling


@dataclass(frozen=True, slots=True)
class Identity:
    """A guard that cannot be taken for another process."""

    pid: int
    start: int
    boot: str


class ProcessDriver:
    def __init__(self, *, root: Path, site: str, settings: DriverSettings, clock: Clock) -> None:
        self._root = root  # one folder per attempt in here
        self._site = site
        self._settings = settings
        self._clock = clock
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def capacity(self) -> Capacity:
        return machine()

    def supply(self) -> Supply | None:
        """The configuration's GPUs are the agent's alone."""
        return None

    def start(self, task: Task) -> Handle:
        if not NAME.fullmatch(task.attempt) or not NAME.fullmatch(task.job):
            raise DriverFailed("the attempt's or the job's id cannot be a folder's name")
        folder = self._folder(task.attempt)
        try:
            folder.mkdir(mode=0o700)
            work = self._work(task.job)
            self._write(task, folder, work)
            pid = _spawn_guard(folder)
        except FileExistsError:
            raise DriverFailed("this attempt was started here before") from None
        except OSError as error:
            raise DriverFailed(f"the job's guard cannot be started: {error}") from error
        process = processes.look(pid)
        if process is None:
            raise DriverFailed("the job's guard vanished at once")
        ref = json.dumps({"pid": pid, "start": process.start, "boot": boot_id()})
        return Handle(task.attempt, ref, self._clock.boottime())

    def poll(self, handle: Handle) -> Status:
        identity = _identity(handle)
        with suppress(ChildProcessError):
            os.waitpid(identity.pid, os.WNOHANG)  # our child unless the agent was restarted
        over = self._exit(handle.attempt)
        if over is None and self._alive(identity):
            return Status(Phase.RUNNING)
        over = over or self._exit(handle.attempt)  # it may have been written in between
        if over is None:
            self._kill_rest(handle.attempt)
            over = Exit(EndReason.LOST, message=self._last_words(handle.attempt))
        return Status(Phase.OVER, over)

    def renew(self, handle: Handle, fence_at: float) -> None:
        """In place, so that a full disk does not cost a healthy job its fence."""
        path = self._folder(handle.attempt) / "renewal.json"
        with suppress(FileNotFoundError):
            try:
                jsonfile.rewrite(str(path), jsonfile.renewal(fence_at))
            except FileNotFoundError:
                raise
            except OSError as error:
                trouble("fence.not_moved", attempt=handle.attempt, why=str(error))

    def stop(self, handle: Handle, *, grace_s: float, reason: EndReason, why: str) -> None:
        value = {"reason": str(reason), "why": why, "grace_s": grace_s}
        path = self._folder(handle.attempt) / "stop.json"
        try:
            _replace(path, value)
        except FileNotFoundError:
            return
        except OSError as error:
            trouble("stop.without_room", attempt=handle.attempt, why=str(error))
            self._stop_without_room(handle, path, value)

    def _stop_without_room(self, handle: Handle, path: Path, value: dict[str, Any]) -> None:
        """Into the room laid down for it; failing that the guard is told, though not why."""
        try:
            jsonfile.write_into_room(str(path), value)
        except OSError:
            identity = _identity(handle)
            if self._alive(identity):
                os.kill(identity.pid, signal.SIGTERM)

    def readopt(self, attempt: str) -> Handle | None:
        """A folder without a claim is claimed here, so that a late guard finds it taken."""
        claim = self._folder(attempt) / "guard.json"
        if not claim.parent.is_dir():
            return None
        never = {"pid": 0, "start": 0, "boot": "", "started": 0.0}
        if not claim.exists() and guard.claim_as(never, str(claim)):
            return None
        identity = guard.read_json(str(claim))
        if identity is None or not identity["pid"]:
            return None
        return Handle(attempt, json.dumps(identity), float(identity["started"]))

    def progress(self, attempt: str, offset: int, limit: int) -> bytes:
        return _slice(self._folder(attempt) / "progress.jsonl", offset, limit)

    def logs(self, attempt: str, offset: int, limit: int) -> LogPart:
        folder = self._folder(attempt)
        data = _slice(folder / "output.log", offset, limit)
        spec = guard.read_json(str(folder / "spec.json")) if data else None
        cap = int(spec["log_cap_bytes"]) if spec else 0
        full = max(cap, len(guard.log_mark(cap)))
        return LogPart(data, truncated=bool(spec) and offset + len(data) >= full)

    def cleanup(self, attempt: str) -> None:
        if NAME.fullmatch(attempt):
            shutil.rmtree(self._folder(attempt), ignore_errors=True)

    def known(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self._root.iterdir() if entry.is_dir())

    def _folder(self, attempt: str) -> Path:
        return self._root.resolve() / attempt

    def _work(self, job: str) -> Path:
        work = (self._settings.work / job).resolve()
        (work / "checkpoint").mkdir(parents=True, exist_ok=True)
        os.utime(work)
        return work

    def _write(self, task: Task, folder: Path, work: Path) -> None:
        """Everything the guard reads; the claim and the end are its own to write."""
        settings = self._settings
        argv = list(task.argv)
        if not argv:
            script = folder / "script"
            script.write_text(_script(task), encoding="utf-8")
            argv = [shutil.which("bash", path=BASE_PATH) or "/bin/sh", str(script)]
        env = job_environment(
            task,
            site=self._site,
            site_env=settings.env,
            work=work,
            progress=folder / "progress.jsonl",
            threads_per_gpu=settings.threads_per_gpu,
        )
        memory = settings.memory_mb_per_gpu
        spec = {
            "argv": argv,
            "env": env,
            "work": str(work),
            "fence_at": task.fence_at,
            "fence_lead_s": task.fence_lead_s,
            "max_runtime_s": task.max_runtime_s,
            "grace_s": task.grace_s,
            "log_cap_bytes": task.log_cap_bytes,
            "memory_bytes": None if memory is None else memory * task.gpus * MEGA,
            "cpus": self._cpus(task),
        }
        jsonfile.write_json(str(folder / "renewal.json"), {})
        jsonfile.rewrite(str(folder / "renewal.json"), jsonfile.renewal(task.fence_at))
        jsonfile.keep_room(str(folder / "stop.json"))
        _replace(folder / "spec.json", spec)

    def _cpus(self, task: Task) -> list[int] | None:
        """The cores that belong to the GPUs held, `threads_per_gpu` for each."""
        threads = self._settings.threads_per_gpu
        if not self._settings.pin_cpus or threads is None or not task.slots:
            return None
        cores = sorted(os.sched_getaffinity(0))
        first = [slot * threads for slot in task.slots]
        return sorted({cores[(at + i) % len(cores)] for at in first for i in range(threads)})

    def _exit(self, attempt: str) -> Exit | None:
        value = guard.read_json(str(self._folder(attempt) / "exit.json"))
        if value is None:
            return None
        reason = EndReason(value["reason"])
        return Exit(reason, value["exit_code"], value["message"], value["ended"])

    def _alive(self, identity: Identity) -> bool:
        return identity.boot == boot_id() and processes.alive(identity.pid, identity.start)

    def _kill_rest(self, attempt: str) -> None:
        """Guard and keeper are both gone: find what carries the attempt's mark."""
        mark = f"HANSE_PROGRESS={self._folder(attempt) / 'progress.jsonl'}"
        for process in processes.marked(mark):
            processes.kill(process)

    def _last_words(self, attempt: str) -> str:
        words = _slice(self._folder(attempt) / "guard.log", 0, 64 * 1024)
        tail = words.decode(errors="replace").strip()[-TAIL:]
        return f"the job vanished without an exit record. {tail}".strip()


def _spawn_guard(folder: Path) -> int:
    """In its own session, with no file of the agent's and nothing of its environment."""
    root = str(Path(agents.__file__).resolve().parent.parent)
    log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", START_GUARD, root, str(folder)],
        {"PATH": BASE_PATH, "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / "guard.log"), log, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
    )


def _script(task: Task) -> str:
    """The tenant's own words; a set-up that fails ends the attempt."""
    setup = f"set -e\n{task.setup}\nset +e\n" if task.setup.strip() else ""
    return f"{setup}{task.command}\n"


def _identity(handle: Handle) -> Identity:
    value = json.loads(handle.ref)
    return Identity(int(value["pid"]), int(value["start"]), str(value["boot"]))


def _slice(path: Path, offset: int, limit: int) -> bytes:
    """Bytes of a plain file; whatever else a job put in its place reads as empty."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return os.pread(fd, limit, offset)
    finally:
        os.close(fd)


def _replace(path: Path, value: dict[str, Any]) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(value), encoding="utf-8")
    os.replace(draft, path)


def make(config: Config, root: Path, site: str, clock: Clock) -> ProcessDriver:
    return ProcessDriver(root=root, site=site, settings=config.driver, clock=clock)


KIND = Kind(make)
