"""Reads what the containers of one attempt say: progress, log, and the time on the pods' clocks.

The progress of a job is what rank 0 writes. The log of a gang is all ranks', each line with its
rank in front.
"""

from __future__ import annotations

from collections.abc import Iterable

from agents.clock import Clock
from agents.drivers.kubernetes.cluster import Cluster
from agents.drivers.kubernetes.seen import Pod
from agents.drivers.kubernetes.server import ServerAway, ServerRefused
from agents.drivers.kubernetes.spool import Spool
from agents.drivers.kubernetes.stream import Part, read_on
from agents.drivers.kubernetes.terms import CENTI, FORWARD, JOB

CLOCK, LINE = b"clock ", b"> "  #: how the forwarder's lines begin
GONE = (400, 404)  #: the pod or its log is not there
DRIFT = 1e-4  #: two clocks may part by this much per second
MOST_PARTS = 64  #: answers taken in one go, so that a flood of log holds nobody up


class Reader:
    def __init__(self, cluster: Cluster, spool: Spool, clock: Clock, *, boot: str) -> None:
        self._cluster = cluster
        self._spool = spool
        self._clock = clock
        self._boot = boot
        self._heard: dict[str, float] = {}  # boottime of the best bound, by pod

    def ahead(self, pod: Pod) -> float | None:
        """Seconds that the pod's clock is ahead of ours, at least; None while it is unknown.

        A line told after the pod's clock showed M and read here at B proves that the pod's clock
        is not less than M - B ahead: a deadline set by it is never too late, only early by the
        time that the line was under way. The best line counts (F. Cristian, 1989, gives the
        two-way form); older ones lose what clocks may drift.
        """
        boot, ahead = self._spool.clocks.get(pod.uid, ("", 0.0))
        return ahead if boot == self._boot else None

    def read_progress(self, pods: Iterable[Pod], *, final: bool = False) -> None:
        for pod in pods:
            if pod.telling:
                self._read(pod, FORWARD, final=final)

    def read_log(self, pods: Iterable[Pod], *, prefixed: bool, final: bool = False) -> None:
        for pod in pods:
            if pod.begun and not self._spool.full:
                self._read(pod, JOB, final=final, prefixed=prefixed)

    def _read(self, pod: Pod, container: str, *, final: bool, prefixed: bool = False) -> None:
        key = f"{pod.uid}/{container}"
        path = f"{self._cluster.pods(pod.name)}/log"
        for _ in range(MOST_PARTS):
            place = self._spool.place(key)
            try:
                part = read_on(self._cluster.server, path, container, place, final=final)
            except ServerRefused as error:
                if error.status in GONE:
                    return  # there is no more of it
                raise ServerAway(f"HTTP {error.status}: {error}") from error
            if container == FORWARD:
                self._take_progress(pod, key, part)
            else:
                self._take_log(pod, key, part, prefixed)
            if part.endless and container == JOB:
                self._spool.close_log()
            if not part.more or (container == JOB and self._spool.full):
                return

    def _take_progress(self, pod: Pod, key: str, part: Part) -> None:
        now = self._clock.boottime()
        lines = []
        for line in part.lines:
            if line.startswith(CLOCK):
                self._hear(pod, line, now)
            elif pod.rank == 0 and line.startswith(LINE):
                lines.append(line.removeprefix(LINE))
        if part.lines:
            self._spool.take_progress(b"".join(lines), key=key, place=part.place)

    def _hear(self, pod: Pod, line: bytes, now: float) -> None:
        digits = line[len(CLOCK) :].strip()
        if not digits.isdigit():
            return
        bound = int(digits) / CENTI - now
        known = self.ahead(pod)
        since = now - self._heard.get(pod.uid, now)
        if known is None or bound >= known - DRIFT * since:
            self._spool.clocks[pod.uid] = (self._boot, bound)
            self._heard[pod.uid] = now

    def _take_log(self, pod: Pod, key: str, part: Part, prefixed: bool) -> None:
        if not part.lines:
            return
        mark = f"[{pod.rank}] ".encode() if prefixed else b""
        data = b"".join(mark + line for line in part.lines)
        self._spool.take_log(data, key=key, place=part.place, gap=part.gap)
