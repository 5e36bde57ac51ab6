"""Our guard on a node of Ray: the same as beside a process, for an agent on another host.

    Ray's supervisor --> keeper --> guard --> job's shell --> whatever it starts

Two hosts have no clock in common and may disagree about the time of day, so the guard tells its own
clock (`pulse.json`, once a second) and obeys only fences that are told in it. The agent counts from
a pulse that it has read, so what a slow file system costs makes a fence earlier, never later. The
keeper knows the fence too, and needs no file for it: it ends a guard that hangs on a dead share.

When Ray's supervisor dies the GPUs are not the job's any more. Ray then kills the entrypoint's
process group, which the guard has left: so the keeper dies alone, and the guard, told by the
kernel, leaves nothing behind. Where nobody kills the keeper, it sees that its parent is gone.
Standard library only; it runs from a parcel on whatever Python the node has.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import struct
import time
from contextlib import suppress
from typing import Any

from agents.drivers import guard, processes
from agents.drivers.guard import Guard, now, read_json

PULSE_S = 1.0
HANG_S = 5.0  #: beyond its own deadline, a guard that has not ended hangs
LOOK_S = 1.0
RECORD = 512  #: bytes of a file that is written again and again
#: Of all that Ray gives an entrypoint a job gets its GPUs and no more.
PASSED = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def main(folder: str) -> int:
    """Claim the folder, split into keeper and guard, and stay until nothing is left."""
    parent = os.getppid()
    os.umask(0o077)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.chdir(folder)
    spec = read_json("spec.json")
    if spec is None or not claim():
        return 1
    spec["env"].update({name: os.environ[name] for name in PASSED if name in os.environ})
    guard.LIBC.prctl(guard.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper, deadline = os.getpid(), Deadline()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            RayGuard(spec, keeper, deadline).run()
            status = 0
        finally:
            os._exit(status)
    keep(pid, deadline, parent)
    return exit_status()


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def claim() -> bool:
    """Take the folder for this process; False when somebody did before."""
    me = processes.look(os.getpid())
    if me is None:
        return False
    identity = {
        "pid": me.pid,
        "start": me.start,
        "boot": boot_id(),
        "pids": pid_namespace(),
        "started": now(),
    }
    return guard.claim_as(identity, "guard.json")


def pid_namespace() -> str:
    """Numbers of processes mean something only within it."""
    return os.readlink("/proc/self/ns/pid")


class Deadline:
    """A moment in memory that keeper and guard share: no file, so no file system can hang it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.set(float("inf"))

    def set(self, moment: float) -> None:
        """Eight aligned bytes: never seen by halves."""
        struct.pack_into("d", self._page, 0, moment)

    def passed(self) -> bool:
        return bool(now() > struct.unpack_from("d", self._page, 0)[0])


def keep(pid: int, deadline: Deadline, parent: int) -> None:
    """Wait for the guard; end it when it hangs or Ray is gone; leave nothing and a record."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _send(pid, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    reason, why = "lost", "the guard of the job was killed; the job was stopped with it"
    while pid not in guard.reap():
        if os.getppid() != parent:
            why = "Ray's supervisor of the job died; the job was stopped with it"
            _send(pid, signal.SIGKILL)
        elif deadline.passed():
            reason, why = "fenced", "the guard hung beyond the fence: is the shared folder gone?"
            _send(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)
    guard.kill_all()
    if read_json("exit.json") is None:
        guard.write_exit(reason, None, why)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def rewrite(path: str, value: dict[str, Any]) -> None:
    """One write over what is there; a reader that sees it half done finds no JSON and waits."""
    data = json.dumps(value).encode().ljust(RECORD)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, data, 0)
    finally:
        os.close(fd)


def exit_status() -> int:
    """For people who look at Ray: the job's own, or 1 when it was stopped."""
    over = read_json("exit.json") or {}
    code = over.get("exit_code")
    return code if over.get("reason") == "exited" and isinstance(code, int) else 1


class RayGuard(Guard):
    def __init__(self, spec: dict[str, Any], keeper: int, deadline: Deadline) -> None:
        super().__init__(spec, keeper)
        self.deadline = deadline
        self.boot = boot_id()
        self.pulsed_at = 0.0
        self.known = spec["boot"] == self.boot  # the fence of the spec is in this clock
        if not self.known:
            self.fence_at = 0.0

    def _prepare(self) -> bool:
        """Wait until the fence is known here; whoever sent the job needs no longer than it."""
        until = self.started + float(self.spec["fence_s"])
        self._read_renewal()
        while not self.known and not self._unwanted() and now() < until:
            self._pulse()
            time.sleep(guard.TICK_S)  # a shared folder tells nobody that a file has changed
            self._read_renewal()
        self._pulse()
        ready = super()._prepare()
        self._tell_keeper()
        return ready

    def _unwanted(self) -> bool:
        return bool(self.reason) or os.path.exists("stop.json")

    def _look(self) -> None:
        self._pulse()
        super()._look()
        self._tell_keeper()

    def _tell_keeper(self) -> None:
        self.deadline.set(max(self.fence_at, self.kill_at) + HANG_S)

    def _pulse(self) -> None:
        """Tell this clock, in place: that needs no room on a full disk."""
        moment = now()
        if moment < self.pulsed_at + PULSE_S:
            return
        self.pulsed_at = moment
        with suppress(OSError):
            rewrite("pulse.json", {"boot": self.boot, "now": moment, "monotonic": time.monotonic()})

    def _read_renewal(self) -> None:
        renewal = read_json("renewal.json")
        if renewal is not None and renewal["boot"] == self.boot:
            self.fence_at = float(renewal["fence_at"])
            self.known = True
