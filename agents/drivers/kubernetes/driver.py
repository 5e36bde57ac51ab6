"""The Kubernetes driver: what the agent's loop asks, answered by followers of single attempts.

    <root>/<attempt>/   what was read of it (see `spool`); a lost folder is read again

The cluster keeps everything else: attempts are found again by label, their terms, their pods and a
wanted stop are annotations. While the API server is away a running attempt counts as running: it
keeps its fence by itself.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import closing, suppress
from pathlib import Path

from agents.clock import Clock, boot_id
from agents.config import NAME, Config
from agents.drivers.base import Capacity, Exit, Handle, LogPart, Phase, Status, Task
from agents.drivers.kubernetes import nodes, spool
from agents.drivers.kubernetes.access import access_for
from agents.drivers.kubernetes.cluster import Cluster
from agents.drivers.kubernetes.creation import Creation, created_by
from agents.drivers.kubernetes.follower import Follower
from agents.drivers.kubernetes.nodes import GpuKind
from agents.drivers.kubernetes.server import ApiServer, ServerAway, ServerRefused
from agents.drivers.kubernetes.settings import KEYS, KubernetesSettings, read
from agents.drivers.kubernetes.spool import Spool
from agents.drivers.kubernetes.supply import ClusterSupply, supply
from agents.drivers.kubernetes.teller import Stop
from agents.drivers.kubernetes.terms import base_name, site_label
from agents.drivers.loading import Kind
from agents.drivers.settings import DriverSettings
from agents.errors import ConfigError, DriverFailed
from agents.log import trouble
from agents.protocol import EndReason

RUNNING = Status(Phase.RUNNING)


class KubernetesDriver:
    def __init__(
        self,
        *,
        root: Path,
        site: str,
        settings: DriverSettings,
        clock: Clock,
        boot: str,
        pools: tuple[str, ...] = (),
    ) -> None:
        """`pools`: names of all pools of the site, for what local users leave of them."""
        own: KubernetesSettings = settings.own
        self._root = root
        self._site = site
        self._settings = settings
        self._own = own
        self._pools = pools
        self._clock = clock
        self._boot = boot
        self._cluster = Cluster(self._connect, site=site, clock=clock, look_s=own.look_s)
        self._followers: dict[str, Follower] = {}
        self._creations: dict[str, Creation] = {}
        self._ended: dict[str, Exit] = {}
        self._to_remove: set[str] = set()  # attempts whose Jobs are still to be deleted
        self._log_read: dict[str, float] = {}  # boottime of the last read of its log
        self._why_away = ""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _connect(self) -> ApiServer:
        access = access_for(self._own.kubeconfig, self._own.context)
        namespace = self._own.namespace or access.namespace
        return ApiServer(access, self._clock, namespace=namespace)

    def close(self) -> None:
        """Ends the connections; jobs go on."""
        self._cluster.close()

    # -- what the cluster has ---------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """Of all nodes that take jobs; raises DriverFailed when they cannot be seen."""
        try:
            return nodes.capacity(self._cluster.server.all_of("/api/v1/nodes"))
        except (ServerAway, ServerRefused, ConfigError) as error:
            raise DriverFailed(f"the cluster's nodes cannot be listed: {error}") from error

    def kinds(self) -> tuple[GpuKind, ...]:
        """GPUs by product, with what is free now; raises DriverFailed."""
        server = self._cluster.server
        try:
            found = server.all_of("/api/v1/nodes")
            pods = server.all_of("/api/v1/pods", fieldSelector="spec.nodeName!=")
        except (ServerAway, ServerRefused) as error:
            raise DriverFailed(f"the cluster's nodes cannot be listed: {error}") from error
        return nodes.kinds(
            found,
            pods,
            resource=self._own.resource,
            product_label=self._own.product_label,
            site=site_label(self._site),
        )

    def supply(self) -> ClusterSupply:
        """What local users leave of each pool, over connections of its own; raises DriverFailed."""
        selectors = {name: self._own.selector(name) for name in self._pools}
        try:
            with closing(self._connect()) as server:
                found = server.all_of("/api/v1/nodes")
                pods = server.all_of("/api/v1/pods")
        except (ServerAway, ServerRefused) as error:
            raise DriverFailed(f"the cluster's nodes cannot be listed: {error}") from error
        return supply(
            found,
            pods,
            selectors=selectors,
            resource=self._own.resource,
            site=site_label(self._site),
        )

    # -- one attempt ------------------------------------------------------------------------------

    def start(self, task: Task) -> Handle:
        """One create is one start: its name lets the server refuse another.

        While the server is away the Job is created later, until the fence: nothing runs before
        this agent has confirmed its pods.
        """
        if not NAME.fullmatch(task.attempt) or not NAME.fullmatch(task.job):
            raise DriverFailed("the attempt's or the job's id cannot be a label or a folder's name")
        if (self._root / task.attempt).exists():
            raise DriverFailed("this attempt was started here before")
        now = self._clock.boottime()
        creation = Creation(
            task,
            cluster=self._cluster,
            site=self._site,
            settings=self._settings,
            now=now,
            made=f"{self._boot}/{now:.6f}",
        )
        follower = self._follow(task.attempt, created=now)
        follower.fence_at = task.fence_at
        try:
            creation.advance()
        except ServerAway as error:
            self._tell_away(str(error))
            self._creations[task.attempt] = creation
        except DriverFailed:
            self._forget(task.attempt)
            raise
        ref = json.dumps({"job": base_name(task.attempt), "made": creation.made})
        return Handle(task.attempt, ref, now)

    def poll(self, handle: Handle) -> Status:
        attempt = handle.attempt
        follower = self._follow(attempt, created=handle.started)
        over = self._ended.get(attempt)
        if over is None:
            over = self._advance(attempt, follower)
            if over is None:
                return self._running(follower)
            self._ended[attempt] = over
            self._cluster.followed = len(self._followers) - len(self._ended)
            follower.spool.write_exit(over, self._boot)
        return Status(Phase.OVER, over, follower.begun)

    def renew(self, handle: Handle, fence_at: float) -> None:
        """Kept here; the next look at the attempt tells its pods."""
        self._follow(handle.attempt, created=handle.started).fence_at = fence_at

    def stop(self, handle: Handle, *, grace_s: float, reason: EndReason, why: str) -> None:
        """Kept here and in the cluster; the next look at the attempt tells its pods."""
        follower = self._follow(handle.attempt, created=handle.started)
        if follower.stop is None:
            follower.stop = Stop(reason, why, max(grace_s, 0.0), self._clock.boottime())
            self.poll(handle)

    def readopt(self, attempt: str) -> Handle | None:
        """By its label. What the server does not have never begins: nobody would confirm it."""
        now = self._clock.boottime()
        try:
            found = self._cluster.look().of(attempt)
        except ServerAway as error:
            self._tell_away(str(error))
            return Handle(attempt, "{}", now)  # it may be there: the polls find out
        job = found.jobs.get(base_name(attempt))
        if job is None:
            return None
        self._follow(attempt, created=now)
        return Handle(
            attempt, json.dumps({"job": base_name(attempt), "made": created_by(job)}), now
        )

    def progress(self, attempt: str, offset: int, limit: int) -> bytes:
        return self._spool(attempt).progress(offset, limit)

    def logs(self, attempt: str, offset: int, limit: int) -> LogPart:
        part = self._spool(attempt).log(offset, limit)
        if not part.data and attempt not in self._ended and self._is_due(attempt):
            self._read_log(attempt)
            part = self._spool(attempt).log(offset, limit)
        return part

    def cleanup(self, attempt: str) -> None:
        """Jobs and with them pods and service; at once, or when the API server is back."""
        self._to_remove.add(attempt)
        self._forget(attempt)
        with suppress(ServerAway):
            self._remove_left()

    def known(self) -> frozenset[str]:
        """What has a Job or a folder; a pod without its Job is on its way out."""
        here = {entry.name for entry in self._root.iterdir() if entry.is_dir()}
        try:
            found = self._cluster.look().attempts.items()
            return frozenset(here | {name for name, item in found if item.jobs})
        except ServerAway as error:
            self._tell_away(str(error))
            return frozenset(here)

    # -- how --------------------------------------------------------------------------------------

    def _advance(self, attempt: str, follower: Follower) -> Exit | None:
        """One look; None also when nothing can be known now."""
        try:
            over = self._still_to_create(attempt, follower)
            if over is not None or attempt in self._creations:
                return over
            self._remove_left()
            view = self._cluster.look(after=follower.created, calm=follower.calm)
            over = follower.advance(view)
        except ServerAway as error:
            self._tell_away(str(error))
            return None
        except ServerRefused as error:
            self._tell_away(f"HTTP {error.status}: {error}")
            return None
        self._why_away = ""
        return over

    def _still_to_create(self, attempt: str, follower: Follower) -> Exit | None:
        creation = self._creations.get(attempt)
        if creation is None:
            return None
        now = self._clock.boottime()
        if follower.stop is not None:
            over = Exit(follower.stop.reason, None, follower.stop.why, now)
        elif follower.fence_at is not None and now >= follower.fence_at:
            why = "the API server was away until its fence had passed"
            over = Exit(EndReason.FENCED, None, why, now)
        else:
            self._cluster.look()  # at once while it is known to be away
            try:
                creation.advance()
            except DriverFailed as error:
                over = Exit(EndReason.DRIVER_FAILED, None, str(error), now)
            else:
                follower.created = now
                del self._creations[attempt]
                return None
        del self._creations[attempt]
        self._to_remove.add(attempt)  # one create may have arrived all the same
        return over

    def _running(self, follower: Follower) -> Status:
        """Its clock next to ours; a node that never slept has one clock for both of Linux's."""
        ahead = follower.ahead() + self._clock.boottime() - self._clock.monotonic()
        return Status(Phase.RUNNING, None, follower.begun, ahead)

    def _follow(self, attempt: str, *, created: float) -> Follower:
        follower = self._followers.get(attempt)
        if follower is None:
            follower = self._followers[attempt] = Follower(
                attempt,
                cluster=self._cluster,
                spool=Spool(self._root / attempt),
                clock=self._clock,
                boot=self._boot,
                settings=self._own,
                created=min(created, self._clock.boottime()),  # it may be of an earlier boot
            )
            over = follower.spool.read_exit(self._boot)
            if over is not None:
                self._ended[attempt] = over
            self._cluster.followed = len(self._followers) - len(self._ended)
        return follower

    def _spool(self, attempt: str) -> Spool:
        follower = self._followers.get(attempt)
        return Spool(self._root / attempt) if follower is None else follower.spool

    def _is_due(self, attempt: str) -> bool:
        now = self._clock.boottime()
        if now < self._log_read.get(attempt, 0.0) + self._own.look_s:
            return False
        self._log_read[attempt] = now
        return True

    def _read_log(self, attempt: str) -> None:
        follower = self._followers.get(attempt)
        if follower is not None:
            with suppress(ServerAway):
                follower.reader.read_log(follower.pods(), prefixed=follower.terms.ranks > 1)

    def _remove_left(self) -> None:
        """Raises ServerAway; what could not be removed is tried again at the next look."""
        if not self._to_remove:
            return
        view = self._cluster.look(after=self._clock.boottime())
        for attempt in sorted(self._to_remove):
            for name in view.of(attempt).jobs:
                with suppress(ServerRefused):
                    self._cluster.server.delete(self._cluster.jobs(name))
            self._to_remove.discard(attempt)
        self._cluster.forget_view()

    def _forget(self, attempt: str) -> None:
        for kept in (self._followers, self._creations, self._ended, self._log_read):
            kept.pop(attempt, None)
        if NAME.fullmatch(attempt):
            spool.remove(self._root / attempt)

    def _tell_away(self, why: str) -> None:
        """Once for each trouble."""
        if why != self._why_away:
            self._why_away = why
            trouble("kubernetes.away", why=why)


def make(config: Config, root: Path, site: str, clock: Clock) -> KubernetesDriver:
    """Probes have no site's name: their attempts are kept apart from those of other agents."""
    return KubernetesDriver(
        root=root,
        site=site
        or f"probes-{hashlib.sha256(str(config.state.resolve()).encode()).hexdigest()[:16]}",
        settings=config.driver,
        clock=clock,
        boot=boot_id(),
        pools=tuple(pool.name for pool in config.pools),
    )


KIND = Kind(make, KEYS, read)
