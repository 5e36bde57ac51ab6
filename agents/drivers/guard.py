"""Stands beside one job, outlives the agent, and lets nothing of the job outlive itself.

    agent ··> keeper ──> guard ──> job's shell ──> whatever it starts

The guard pumps the log, and stops the job at the fence, at its runtime limit or when asked. The
keeper only waits: when the guard is killed, the orphans fall to the keeper, which kills them; when
the keeper is killed, the guard is told by the kernel and kills them. Only both at once leaves
something, and that the agent finds by its mark.

Works in one folder. Reads `spec.json`, `renewal.json` (the fence) and `stop.json`; writes
`guard.json` (the claim: one folder runs once), `output.log` and last of all `exit.json`, for which
it keeps room from the start.
Times are CLOCK_BOOTTIME seconds. Standard library only, one thread.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import time
from contextlib import suppress
from typing import Any

from agents.drivers import jsonfile, processes
from agents.drivers.jsonfile import read_json as read_json
from agents.drivers.jsonfile import write_json as write_json

TICK_S = 0.2
READ = 64 * 1024
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None, use_errno=True)


def main(folder: str, kind: type[Guard] | None = None) -> int:
    """Claim the folder, split into keeper and guard, and stay until nothing is left."""
    os.umask(0o077)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # whoever left them open
    os.chdir(folder)
    spec = read_json("spec.json")
    if spec is None or not claim():
        return 1
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = os.getpid()
    guard = os.fork()
    if guard == 0:
        status = 1
        try:
            (kind or Guard)(spec, keeper).run()
            status = 0
        finally:
            os._exit(status)
    return keep(guard)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def claim(name: str = "guard.json") -> bool:
    """Take the folder for this process; False when somebody did before."""
    me = processes.look(os.getpid())
    if me is None:
        return False
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return claim_as({"pid": me.pid, "start": me.start, "boot": boot, "started": now()}, name)


def claim_as(identity: dict[str, Any], name: str) -> bool:
    """Whole and exclusive at once: a hard link to a finished file either appears or it does not."""
    draft = f"{name}.{os.getpid()}"
    write_json(draft, identity)
    try:
        os.link(draft, name)
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True


def keep(guard: int) -> int:
    """Wait for the guard; when it vanished without a record, clean up and say so."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _pass_on(guard))
    while True:
        with suppress(ChildProcessError):
            pid, _ = os.waitpid(-1, 0)
            if pid != guard:
                continue
        break
    kill_all()
    if read_json("exit.json") is None:
        write_exit("lost", None, "the guard of the job was killed; the job was stopped with it")
    return 0


def _pass_on(guard: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(guard, signal.SIGTERM)


def kill_all() -> dict[int, int]:
    """SIGKILL to every descendant until none is left; returns the exit statuses by pid.

    Has no time limit: a process stuck in a device driver still holds its GPUs, so it is not over.
    """
    ended: dict[int, int] = {}
    pause = 0.002  # the kernel needs a moment to hand orphans over
    while True:
        left = processes.descendants(os.getpid())
        for process in left:
            processes.kill(process)
        reaped = reap()
        ended.update(reaped)
        if not left and not reaped:
            return ended
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def reap() -> dict[int, int]:
    """Exit statuses of children that ended, by pid."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = status
    return ended


class Guard:
    """One job: where it stands, and since when it is being stopped."""

    def __init__(self, spec: dict[str, Any], keeper: int) -> None:
        self.spec = spec
        self.keeper = keeper
        self.leader = 0
        self.wake = -1
        self.status: int | None = None  # of the leader, as waitpid gave it
        self.reason = ""  # why it is being stopped; empty = it is not
        self.why = ""
        self.kill_at = 0.0
        self.fence_at = float(spec["fence_at"])
        self.log = Log("output.log", int(spec["log_cap_bytes"]))
        self.started = now()
        with suppress(OSError):
            jsonfile.keep_room("exit.json")

    def run(self) -> None:
        """Start it, watch it, leave nothing, write down how it ended."""
        self._hear_signals()
        if not self._prepare():
            return
        pipe = self._spawn()
        while not self._over():
            self._pump(pipe)
            self._look()
            if self.reason and now() >= self.kill_at:
                break
        self.status = kill_all().get(self.leader, self.status)
        self._drain(pipe)
        self._record()

    def _hear_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._told())
        signal.signal(signal.SIGUSR1, lambda *_: self._orphaned())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1), 0, 0, 0)
        if os.getppid() != self.keeper:
            self._orphaned()

    def _prepare(self) -> bool:
        """False when there is nothing to start any more."""
        self._read_renewal()
        if now() >= self._fence_begins():
            write_exit("fenced", None, "the fence had passed before the job was started")
            return False
        stop = read_json("stop.json")
        if stop is not None:
            write_exit(str(stop["reason"]), None, str(stop["why"]))
            return False
        return not self.reason

    def _spawn(self) -> int:
        """Start the job in a session of its own; returns the reading end of its output."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        begun, held = os.pipe()
        guard = os.getpid()
        self.leader = os.fork()
        if self.leader == 0:
            become_job(self.spec, writing, guard)
        os.close(writing)
        os.close(held)
        os.read(begun, 1)  # ends when the job's program has begun: its group can be signalled now
        os.close(begun)
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        self.wake = wake_r
        return reading

    def _pump(self, pipe: int) -> None:
        """Wait a tick or until something happens; move what the job wrote into the log."""
        sources = [self.wake] if self.log.at_end else [self.wake, pipe]
        ready, _, _ = select.select(sources, [], [], TICK_S)
        if self.wake in ready:
            with suppress(BlockingIOError):
                os.read(self.wake, READ)
        if pipe in ready:
            self._take(pipe)

    def _take(self, pipe: int) -> bool:
        """One read; False when nothing is there now."""
        try:
            data = os.read(pipe, READ)
        except BlockingIOError:
            return False
        if not data:
            self.log.at_end = True
            return False
        self.log.write(data)
        return True

    def _drain(self, pipe: int) -> None:
        """What is still in the pipe; the writers are gone, so it is at most a pipe's worth."""
        while self._take(pipe):
            continue

    def _look(self) -> None:
        """Reap, then see whether something asks for an end."""
        for pid, status in reap().items():
            if pid == self.leader:
                self.status = status
        self._read_orders()
        moment = now()
        if moment >= self._fence_begins():
            self._stop("fenced", "the broker was out of reach for too long", self._lead())
            self.kill_at = min(self.kill_at, max(self.fence_at, moment))
        elif moment >= self.started + float(self.spec["max_runtime_s"]):
            self._stop("runtime_limit", "the runtime limit was reached", self._grace())

    def _stop(self, reason: str, why: str, grace_s: float) -> None:
        """Begin to stop, once; a later request can only shorten the grace."""
        kill_at = now() + max(grace_s, 0.0)
        if self.reason:
            self.kill_at = min(self.kill_at, kill_at)
            return
        self.reason, self.why, self.kill_at = reason, why, kill_at
        with suppress(ProcessLookupError):
            os.killpg(self.leader, signal.SIGTERM)

    def _told(self) -> None:
        if self.leader:
            self._stop("driver_failed", "the guard was told to stop on this host", self._grace())
        else:
            self.reason = "driver_failed"

    def _orphaned(self) -> None:
        """The keeper is gone: nobody would find what is left if the guard went too."""
        if self.status is None:
            self.reason, self.why = "lost", "the keeper of the job was killed"
        self.kill_at = 0.0

    def _over(self) -> bool:
        """While stopping, what the job's shell left behind keeps its grace too."""
        if self.status is None:
            return False
        return not self.reason or not processes.descendants(os.getpid())

    def _grace(self) -> float:
        return float(self.spec["grace_s"])

    def _lead(self) -> float:
        return float(self.spec["fence_lead_s"])

    def _fence_begins(self) -> float:
        return self.fence_at - self._lead()

    def _read_orders(self) -> None:
        """What the agent asks for, and until when."""
        if os.path.exists("stop.json"):
            stop = read_json("stop.json")
            if stop is not None:
                self._stop(str(stop["reason"]), str(stop["why"]), float(stop["grace_s"]))
        self._read_renewal()

    def _read_renewal(self) -> None:
        renewal = read_json("renewal.json")
        fence_at = None if renewal is None else jsonfile.fence_of(renewal)
        if fence_at is not None:
            self.fence_at = fence_at

    def _record(self) -> None:
        self.log.close()
        code = None if self.status is None else exit_code(self.status)
        write_exit(self.reason or "exited", code, self.why or limit_words(self.status))


class Log:
    """The job's output up to a cap; the last bytes of a full log say that it is cut."""

    def __init__(self, path: str, cap: int) -> None:
        self.mark = log_mark(cap)
        self.cap = max(cap, len(self.mark))
        self.at_end = False
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0
        self._full = False

    def write(self, data: bytes) -> None:
        if self._full:
            return
        room = self.cap - len(self.mark) - self._size
        if len(data) > room:
            data = data[:room] + self.mark
            self._full = True
        self._size += len(data)
        with suppress(OSError):  # a full disk loses log, not the job
            os.write(self._file, data)

    def close(self) -> None:
        os.close(self._file)


def log_mark(cap: int) -> bytes:
    return f"\n[hanse: this log reached its cap of {cap} bytes, the rest was dropped]\n".encode()


def become_job(spec: dict[str, Any], output: int, guard: int) -> None:
    """In the new process: own session, limits, output, then the job's words. Never returns."""
    try:
        os.setsid()
        LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != guard:
            os._exit(125)
        limit(spec)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(spec["work"])
        os.umask(0o022)
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - words, no shell
    except OSError as error:
        os.write(2, f"hanse: {spec['argv'][0]} cannot be started: {error}\n".encode())
    os._exit(127)


def limit(spec: dict[str, Any]) -> None:
    """Memory is RLIMIT_DATA: CUDA reserves far more address space than it uses."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if spec.get("memory_bytes"):
        resource.setrlimit(resource.RLIMIT_DATA, (spec["memory_bytes"], spec["memory_bytes"]))
    if spec.get("cpus"):
        os.sched_setaffinity(0, spec["cpus"])


def exit_code(status: int) -> int:
    """As a shell counts: 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def limit_words(status: int | None) -> str:
    if status is not None and os.WIFSIGNALED(status):
        return f"ended by signal {os.WTERMSIG(status)}"
    return ""


def write_exit(reason: str, code: int | None, message: str) -> None:
    value = {"reason": reason, "exit_code": code, "message": message, "ended": now()}
    try:
        write_json("exit.json", value)
    except OSError:  # a full disk: the end of a job that went well must not be lost with it
        jsonfile.write_into_room("exit.json", value)
