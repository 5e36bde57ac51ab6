"""Tells the pods of one attempt what holds: their fence, and when they should stop.

An order is an annotation of the pod. The kubelet writes it into a volume that the guard reads, so
the fence is kept beside the job with the agent, the API server or the network gone. The Job's own
deadline is moved along, some seconds behind: the control plane's net for a guard that hangs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from agents.clock import Clock
from agents.drivers.kubernetes.cluster import Cluster, Found
from agents.drivers.kubernetes.reader import Reader
from agents.drivers.kubernetes.seen import Pod
from agents.drivers.kubernetes.server import Json, ServerRefused
from agents.drivers.kubernetes.spool import Spool
from agents.drivers.kubernetes.terms import (
    CENTI,
    CONFIRMED,
    ORDERS,
    SLACK_S,
    STOP,
    Terms,
    deadline,
    orders,
)
from agents.protocol import EndReason

SHARE = 0.2  #: of the time left; a fence that moved by less is not worth a call yet


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants it to end. `at` is boottime."""

    reason: EndReason
    why: str
    grace_s: float
    at: float
    word: str = ""  #: for the guard, when the reason is our own affair

    @property
    def told(self) -> str:
        return self.word or str(self.reason)


def read_confirmed(text: str) -> dict[int, str]:
    """Uid by rank; empty when it was not confirmed, or somebody has spoilt the annotation."""
    try:
        return {int(rank): str(uid) for rank, uid in json.loads(text).items()}
    except (ValueError, AttributeError):
        return {}


def read_stop(text: str, *, now: float) -> Stop | None:
    """What an earlier agent was asked for."""
    try:
        value = json.loads(text)
        return Stop(EndReason(value["reason"]), str(value["why"]), float(value["grace_s"]), now)
    except (ValueError, TypeError, KeyError):
        return None


class Teller:
    def __init__(
        self, cluster: Cluster, reader: Reader, spool: Spool, clock: Clock, *, boot: str
    ) -> None:
        self._cluster = cluster
        self._reader = reader
        self._spool = spool
        self._clock = clock
        self._boot = boot
        self._told: dict[str, tuple[float, str]] = {}  # what it has surely been told, by uid
        self._deadline: float | None = None  # the fence behind the Jobs' deadline

    def told_fence(self, pod: Pod) -> float | None:
        """The latest that it may have been told, boottime; None when this disk does not know."""
        boot, fence = self._spool.fences.get(pod.uid, ("", 0.0))
        return fence if boot == self._boot else None

    def tell(self, pods: Iterable[Pod], terms: Terms, fence_at: float, stop: Stop | None) -> None:
        """Give each pod its order, when it is news enough. Raises ServerAway."""
        for pod in pods:
            ahead = self._reader.ahead(pod)
            if ahead is None or not self._is_news(pod, fence_at, stop):
                continue
            text = orders(
                (fence_at + ahead) * CENTI,
                terms.lead_s,
                stop_s=None if stop is None else stop.grace_s,
                reason="-" if stop is None else stop.told,
            )
            self._spool.fences[pod.uid] = (self._boot, fence_at)
            self._spool.save()  # before it is told: what may have been told is on record
            if self._note(self._cluster.pods(pod.name), ORDERS, text):
                self._told[pod.uid] = (fence_at, _wish(stop))

    def move_deadlines(self, found: Found, fence_at: float) -> None:
        """The Jobs' deadlines follow the fence; both count on the server's own clock."""
        now, told = self._clock.boottime(), self._deadline
        if told is not None and fence_at - told < SHARE * (fence_at - now):
            return
        for name, job in found.jobs.items():
            started = _moment((job.get("status") or {}).get("startTime"))
            server_now = self._cluster.server.now()
            if started is None or server_now is None:
                return
            elapsed = (server_now - started).total_seconds()
            seconds = deadline(elapsed + fence_at - now + SLACK_S)
            self._patch(self._cluster.jobs(name), {"spec": {"activeDeadlineSeconds": seconds}})
        self._deadline = fence_at

    def confirm(self, job: str, uids: dict[int, str]) -> bool:
        """On record before any pod is told to begin: only these pods ever run the job."""
        value = {str(rank): uid for rank, uid in uids.items()}
        return self._note(self._cluster.jobs(job), CONFIRMED, json.dumps(value))

    def record_stop(self, job: str, stop: Stop) -> bool:
        """For an agent that comes after this one."""
        value = {"reason": str(stop.reason), "why": stop.why, "grace_s": stop.grace_s}
        return self._note(self._cluster.jobs(job), STOP, json.dumps(value))

    def _is_news(self, pod: Pod, fence_at: float, stop: Stop | None) -> bool:
        told, wish = self._told.get(pod.uid, (None, ""))
        if told is None or wish != _wish(stop):
            return True
        return fence_at - told >= SHARE * (fence_at - self._clock.boottime())

    def _note(self, path: str, key: str, text: str) -> bool:
        return self._patch(path, {"metadata": {"annotations": {key: text}}})

    def _patch(self, path: str, value: Json) -> bool:
        """False when it is not there any more; what follows from that the next look shows."""
        try:
            self._cluster.server.patch(path, value)
        except ServerRefused as error:
            if error.status in (404, 409):
                return False
            raise
        return True


def _wish(stop: Stop | None) -> str:
    return "" if stop is None else f"{stop.told} {stop.grace_s:g}"


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None
