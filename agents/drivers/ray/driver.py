"""Jobs through Ray's Jobs REST API, each beside our own guard on the node where Ray put it.

    agent --REST--> Ray's head --> supervisor --> keeper --> guard --> job's shell
      '..... one folder for each attempt, which agent and nodes see .....'

Ray is asked to start things and to find GPUs. Everything that must be certain goes through the
folder of the attempt: that it starts once, the fence, how it ended. So a head that is away or has
lost its memory starts nothing twice. A job has one node: Ray's Jobs API places one process.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from agents.clock import Clock, boot_id
from agents.config import NAME, Config, DriverSettings
from agents.drivers.base import Capacity, Exit, Handle, LogPart, Phase, Status, Task
from agents.drivers.guard import log_mark
from agents.drivers.loading import Kind
from agents.drivers.ray import nodes
from agents.drivers.ray.folder import AttemptFolder
from agents.drivers.ray.leftover import Leftovers
from agents.drivers.ray.lookout import Lookout
from agents.drivers.ray.parcel import deliver
from agents.drivers.ray.server import RayServer, Submission
from agents.drivers.ray.settings import KEYS, RaySettings, read
from agents.drivers.ray.specification import ENTRYPOINT, guard_env, specification, write_script
from agents.drivers.ray.supply import GPUS, OWNER, POOL, Supply, supply
from agents.errors import DriverFailed
from agents.protocol import EndReason

ATTEMPT = "hanse_attempt"  #: of a job's metadata


class RayDriver:
    def __init__(
        self,
        *,
        root: Path,
        site: str,
        settings: DriverSettings,
        ray: RaySettings,
        server: RayServer,
        clock: Clock,
        pools: tuple[str, ...] = (),
        boot: str = "",
    ) -> None:
        self._root = root.absolute()  # one folder per attempt in here, under this path on each node
        self._site = site
        self._settings = settings
        self._ray = ray
        self._pools = pools  # of the configuration, for `supply`
        self._server = server
        self._clock = clock
        self._boot = boot or boot_id()
        self._owner = hashlib.sha256(f"{site}\x00{self._root}".encode()).hexdigest()[:16]
        self._lookout = Lookout(server=server, ray=ray, clock=clock, boot=self._boot)
        self._leftovers = Leftovers(server=server, clock=clock, owner=self._owner)
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def capacity(self) -> Capacity:
        """Of all living nodes together; raises DriverFailed when the head does not tell."""
        return nodes.capacity(self._server.nodes())

    def kinds(self) -> dict[str, tuple[int, int]]:
        """GPUs by Ray's name of the accelerator: all together, and on the largest node."""
        return nodes.kinds(self._server.nodes())

    def supply(self) -> Supply:
        """What each pool has, and what its local users use and wait for; raises DriverFailed."""
        server = self._server
        pools = {name: self._ray.resources.get(name, {}) for name in self._pools}
        return supply(server.nodes(), server.usage(), server.jobs(), pools=pools, owner=self._owner)

    def start(self, task: Task) -> Handle:
        """1. see whether it can run, 2. write it down, 3. submit, 4. settle what is not certain."""
        if not NAME.fullmatch(task.attempt) or not NAME.fullmatch(task.job):
            raise DriverFailed("the attempt's or the job's id cannot be a folder's name")
        why = nodes.misfit(self._server.nodes(), task, self._resources(task))
        if why is not None:
            raise DriverFailed(why)
        folder, now = self._folder(task.attempt), self._clock.boottime()
        try:
            folder.path.mkdir(mode=0o700)
            self._write(task, folder, now)
            submission = self._submission(task, folder)
        except FileExistsError:
            raise DriverFailed("this attempt was started here before") from None
        except OSError as error:
            raise DriverFailed(f"the job's folder cannot be written: {error}") from error
        try:
            self._server.submit(submission)
        except DriverFailed as error:
            self._settle(folder, error)
        return Handle(task.attempt, submission.submission, now)

    def poll(self, handle: Handle) -> Status:
        self._leftovers.tidy()
        folder = self._folder(handle.attempt)
        over = self._lookout.over(folder) or self._look(folder)
        return Status(
            Phase.RUNNING if over is None else Phase.OVER,
            over,
            held_since=self._lookout.held_since(folder),
            ahead_s=self._lookout.ahead_s(folder),
        )

    def renew(self, handle: Handle, fence_at: float) -> None:
        """A guard that has fallen silent is told nothing: the last fence it knows is its end."""
        folder = self._folder(handle.attempt)
        if folder.exists() and not (folder.identity() and self._lookout.silent(folder)):
            with suppress(OSError):  # the share is away: the next sync tries again
                self._lookout.tell_fence(folder, fence_at)

    def stop(self, handle: Handle, *, grace_s: float, reason: EndReason, why: str) -> None:
        """The guard keeps the grace; what waits in Ray's queue will not begin any more."""
        folder = self._folder(handle.attempt)
        if not folder.exists():
            return
        try:
            folder.write("stop.json", {"reason": str(reason), "why": why, "grace_s": grace_s})
        except OSError:  # no room: Ray can stop it too, though not say why
            with suppress(DriverFailed):
                self._server.stop(self._ray.submission(handle.attempt))
        if folder.identity() is None:
            self._withdraw(folder, Exit(reason, message=why))

    def readopt(self, attempt: str) -> Handle | None:
        """What Ray still has in its queue may start; all else without a claim never will."""
        folder = self._folder(attempt)
        if not folder.exists():
            return None
        if folder.identity() is None:
            job = self._lookout.ask(attempt)
            waits = job is not None and not job.over and job.metadata.get(OWNER) == self._owner
            never = Exit(EndReason.DRIVER_FAILED, message="the agent was stopped before it began")
            if not waits and self._withdraw(folder, never):
                return None
        identity = folder.identity()
        if identity is not None and not identity.pid:
            return None
        return Handle(attempt, self._ray.submission(attempt), self._submitted(folder))

    def progress(self, attempt: str, offset: int, limit: int) -> bytes:
        return self._folder(attempt).progress(offset, limit)

    def logs(self, attempt: str, offset: int, limit: int) -> LogPart:
        folder = self._folder(attempt)
        data = folder.log(offset, limit)
        spec = folder.spec() if data else {}
        cap = int(spec.get("log_cap_bytes", 0))
        full = max(cap, len(log_mark(cap)))
        return LogPart(data, truncated=bool(spec) and offset + len(data) >= full)

    def cleanup(self, attempt: str) -> None:
        """From Ray's own list it goes a little later."""
        if not NAME.fullmatch(attempt):
            return
        self._leftovers.add(self._ray.submission(attempt))
        self._leftovers.tidy()
        self._lookout.forget(attempt)
        self._folder(attempt).remove()

    def known(self) -> frozenset[str]:
        """By their folders, and by the mark on jobs that Ray has from us."""
        found = {entry.name for entry in self._root.iterdir() if entry.is_dir()}
        with suppress(DriverFailed):
            found.update(
                job.metadata[ATTEMPT]
                for job in self._server.jobs()
                if job.metadata.get(OWNER) == self._owner and job.submission not in self._leftovers
            )
        return frozenset(found)

    # -- starting ---------------------------------------------------------------------------------

    def _folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self._root / attempt)

    def _resources(self, task: Task) -> dict[str, float]:
        return self._ray.resources.get(task.pool, {})

    def _write(self, task: Task, folder: AttemptFolder, now: float) -> None:
        """Everything the guard reads; the claim and the end are its own to write."""
        work = (self._settings.work / task.job).absolute()
        (work / "checkpoint").mkdir(parents=True, exist_ok=True)
        os.utime(work)
        write_script(task, folder.path)
        spec = specification(
            task, settings=self._settings, site=self._site, work=work, folder=folder.path
        )
        spec.update(boot=self._boot, submitted=now, fence_s=task.fence_at - now)
        self._lookout.tell_fence(folder, task.fence_at)
        folder.write("spec.json", spec)

    def _submission(self, task: Task, folder: AttemptFolder) -> Submission:
        return Submission(
            submission=self._ray.submission(task.attempt),
            entrypoint=ENTRYPOINT,
            env=guard_env(task, self._ray.python, deliver(self._root), folder.path),
            metadata={
                OWNER: self._owner,
                ATTEMPT: task.attempt,
                "hanse_job": task.job,
                "hanse_site": self._site,
                POOL: task.pool,
                GPUS: str(task.gpus),
            },
            gpus=task.gpus,
            resources=self._resources(task),
        )

    def _settle(self, folder: AttemptFolder, error: DriverFailed) -> None:
        """It may have arrived all the same: taken back, unless a guard is already at work."""
        over = Exit(EndReason.DRIVER_FAILED, message=str(error))
        if self._withdraw(folder, over):
            raise error

    def _submitted(self, folder: AttemptFolder) -> float:
        """Boottime; of a submission before this boot, now."""
        spec = folder.spec()
        now = self._clock.boottime()
        return float(spec["submitted"]) if spec.get("boot") == self._boot else now

    # -- ending -----------------------------------------------------------------------------------

    def _look(self, folder: AttemptFolder) -> Exit | None:
        """Without a record of its end: has it begun, does it run, is it gone?"""
        identity = folder.identity()
        if identity is None:
            why = self._lookout.why_not_started(folder)
            if why is not None:
                self._withdraw(folder, Exit(EndReason.DRIVER_FAILED, message=why))
            return self._lookout.over(folder)
        self._lookout.answer(folder, identity)
        if self._lookout.gone(folder, identity):
            # the record may have been written in between
            return self._lookout.over(folder) or self._lookout.lost(folder, identity)
        return None

    def _withdraw(self, folder: AttemptFolder, over: Exit) -> bool:
        """True: nothing of it runs nor ever will. False: a guard has begun."""
        now = self._clock.boottime()
        if not folder.withdraw(boot=self._boot, now=now):
            return False
        record = {"reason": str(over.reason), "exit_code": None, "message": over.message}
        with suppress(OSError):  # the claim is what counts
            folder.write("exit.json", {**record, "ended": now})
        self._leftovers.add(self._ray.submission(folder.attempt))
        return True


def make(config: Config, root: Path, site: str, clock: Clock) -> RayDriver:
    """The attempts lie where the nodes see them, apart from those of another agent's state."""
    settings, ray = config.driver, config.driver.own
    shared = ray.attempts or settings.work.with_name(f"{settings.work.name}.attempts")
    server = RayServer(ray.address, clock=clock, token_file=ray.token_file, ca_file=ray.ca_file)
    return RayDriver(
        root=shared / state_id(config.state) / root.name,
        site=site,
        settings=settings,
        ray=ray,
        server=server,
        clock=clock,
        pools=tuple(pool.name for pool in config.pools),
    )


def state_id(state: Path) -> str:
    """Names this agent's state folder, so that two agents on one share never touch each other."""
    path = state / "ray.id"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        draft = path.with_name(f"ray.id.{os.getpid()}")
        draft.write_text(secrets.token_hex(8))
        try:
            os.link(draft, path)
        finally:
            draft.unlink()
    return path.read_text().strip()


KIND = Kind(make, keys=KEYS, read=read)
