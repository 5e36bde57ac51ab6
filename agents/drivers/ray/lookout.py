"""What became of an attempt: first by its folder, then by its processes, last by Ray's word.

A guard that moves its pulse runs, whatever Ray says. One that is silent has ended for certain when
its keeper is seen to be gone, or when the last fence that it can know of has passed. Until then the
attempt counts as running: nothing may run twice.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from agents.clock import Clock
from agents.drivers import processes
from agents.drivers.base import Exit
from agents.drivers.ray.folder import AttemptFolder, Identity
from agents.drivers.ray.server import RayJob, RayServer, told
from agents.drivers.ray.settings import RaySettings
from agents.drivers.ray.sight import Sight
from agents.drivers.ray.watch import HANG_S, pid_namespace
from agents.errors import DriverFailed
from agents.protocol import EndReason

LEEWAY_S = HANG_S + 5.0  #: beyond the fence, so that the keeper's own patience has passed too
#: Taken back, and then there was no room for a record of it.
NEVER = {"reason": EndReason.DRIVER_FAILED, "why": "it was taken back before it began"}
NOT_KNOWN = "Ray does not know the job any more: was its head restarted?"


class Lookout:
    """Times are the agent's boottime, of the boot `boot`."""

    def __init__(self, *, server: RayServer, ray: RaySettings, clock: Clock, boot: str) -> None:
        self._server = server
        self._ray = ray
        self._clock = clock
        self._boot = boot
        self._sights: dict[str, Sight] = {}

    def forget(self, attempt: str) -> None:
        self._sights.pop(attempt, None)

    def sight(self, folder: AttemptFolder) -> Sight:
        """The newest pulse, and since when it is the newest."""
        pulse = folder.pulse()
        known = self._sights.get(folder.attempt)
        now = self._clock.boottime()  # after the reading: see `agents.drivers.ray.sight`
        if known is None:
            known = Sight(pulse, now, self._clock.monotonic())
        elif pulse is not None and pulse != known.pulse:
            monotonic = self._clock.monotonic()
            known = replace(known, pulse=pulse, changed=now, monotonic=monotonic)
        self._sights[folder.attempt] = known
        return known

    def silent(self, folder: AttemptFolder) -> bool:
        return self.sight(folder).silent(self._clock.boottime())

    # -- the fence --------------------------------------------------------------------------------

    def tell_fence(self, folder: AttemptFolder, fence_at: float) -> None:
        """In the guard's clock where that is known, else in ours: another boot will not read it."""
        sight = self.sight(folder)
        value = {
            "boot": self._boot if sight.pulse is None else sight.pulse.boot,
            "fence_at": fence_at - sight.offset(self._boot),
            "told": {"boot": self._boot, "fence_at": fence_at},
        }
        folder.renew(value)

    def answer(self, folder: AttemptFolder, identity: Identity) -> None:
        """A guard on another host starts nothing before it has the fence in its own clock."""
        sight, renewal = self.sight(folder), folder.renewal()
        if sight.pulse is None or sight.pulse.boot != identity.boot or renewal is None:
            return
        told = renewal["told"]
        if renewal["boot"] != identity.boot and told["boot"] == self._boot:
            with suppress(OSError):  # the next look tries again
                self.tell_fence(folder, float(told["fence_at"]))

    def held_since(self, folder: AttemptFolder) -> float:
        """When it got its GPUs; what waits in Ray's queue holds none yet."""
        identity = folder.identity()
        if identity is None:
            return self._clock.boottime()
        return self._our_time(folder, identity, identity.started)

    def ahead_s(self, folder: AttemptFolder) -> float:
        return self.sight(folder).ahead_s(self._boot)

    # -- the end ----------------------------------------------------------------------------------

    def over(self, folder: AttemptFolder) -> Exit | None:
        """The record of its end, in our clock."""
        value = folder.over()
        identity = folder.identity()
        if value is None and identity is not None and not identity.pid:
            value = {**NEVER, **(folder.stop() or {}), "ended": identity.started}
        if value is None or identity is None:
            return None
        reason, message = EndReason(value["reason"]), str(value.get("message", value.get("why")))
        if reason is EndReason.LOST and identity.pid:
            message = f"{message}. {self._words(folder.attempt)}"
        ended = self._our_time(folder, identity, float(value["ended"]))
        return Exit(reason, value.get("exit_code"), message, ended)

    def gone(self, folder: AttemptFolder, identity: Identity) -> bool:
        """Begun, without a record, and certain not to run any more."""
        if identity.boot == self._boot and identity.pids == pid_namespace():
            return not processes.alive(identity.pid, identity.start)
        sight, now = self.sight(folder), self._clock.boottime()
        if not sight.silent(now):
            return False
        return now > self._last_fence(folder, sight) + LEEWAY_S or self._keeper_ended(folder)

    def lost(self, folder: AttemptFolder, identity: Identity) -> Exit:
        """Keeper and guard are both gone: on this host, find what carries the attempt's mark."""
        if identity.boot == self._boot:
            for process in processes.marked(f"HANSE_PROGRESS={folder.path / 'progress.jsonl'}"):
                processes.kill(process)
        words = self._words(folder.attempt)
        return Exit(EndReason.LOST, message=f"the job vanished without an exit record. {words}")

    def _our_time(self, folder: AttemptFolder, identity: Identity, moment: float) -> float:
        """A moment of the claimant's clock; now where the clocks cannot be compared."""
        now = self._clock.boottime()
        sight = self.sight(folder)
        if identity.boot == self._boot:
            return min(moment, now)
        if sight.pulse is None or sight.pulse.boot != identity.boot:
            return now
        return min(moment + sight.offset(self._boot), now)

    def _last_fence(self, folder: AttemptFolder, sight: Sight) -> float:
        """Told by an earlier boot of this host, it is no later than a whole fence from now on."""
        told = (folder.renewal() or {}).get("told", {})
        if told.get("boot") == self._boot:
            return float(told["fence_at"])
        return sight.changed + float(folder.spec().get("fence_s", 0.0))

    def _keeper_ended(self, folder: AttemptFolder) -> bool:
        """Ray has its exit code, and it was not killed: then it has left nothing behind."""
        if not self._may_ask(folder):
            return False
        job = self.ask(folder.attempt)
        return job is not None and job.over and job.exit_code is not None and job.exit_code >= 0

    # -- Ray's word -------------------------------------------------------------------------------

    def why_not_started(self, folder: AttemptFolder) -> str | None:
        """Not begun, and Ray will not begin it; None while it may."""
        sight, now = self.sight(folder), self._clock.boottime()
        if now - sight.changed > self._ray.start_within_s:
            return f"Ray did not start the job within {self._ray.start_within_s:g} s"
        if not self._may_ask(folder):
            return None
        try:
            job = self._question(folder.attempt)
        except DriverFailed:
            return None
        if job is None:
            return f"{NOT_KNOWN} The job never ran"
        if job.over:
            return f"Ray could not start the job ({job.status}): {told(job.message)}"
        return None

    def ask(self, attempt: str) -> RayJob | None:
        """None when the head has no such job, or does not answer."""
        with suppress(DriverFailed):
            return self._question(attempt)
        return None

    def _may_ask(self, folder: AttemptFolder) -> bool:
        return self._clock.boottime() - self.sight(folder).asked >= self._ray.look_s

    def _question(self, attempt: str) -> RayJob | None:
        known = self._sights.get(attempt)
        if known is not None:
            self._sights[attempt] = replace(known, asked=self._clock.boottime())
        return self._server.job(self._ray.submission(attempt))

    def _words(self, attempt: str) -> str:
        """What Ray says of a job that its site has lost, for the tenant and the operator."""
        try:
            job = self._question(attempt)
        except DriverFailed as error:
            return str(error)
        return NOT_KNOWN if job is None else f"Ray has it as {job.status}: {told(job.message)}"
