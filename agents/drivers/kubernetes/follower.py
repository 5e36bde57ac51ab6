"""Follows one attempt through the cluster, from created to over.

    created ──> every rank's guard waits ──> confirmed: the guards begin ──> over
       │                                         │
       └── no nodes, no image, fence, stop ──────┴── exit, fence, stop, deleted, node lost

A pod does nothing before it is confirmed, by uid and on record: a Job that makes a second pod, a
creation that was thought lost, a half-placed gang or an agent that died never run anything.

`advance` looks, reads, tells and decides; repeating it changes nothing. It raises ServerAway and
ServerRefused when the API server does: then nothing is known and nothing is concluded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from agents.clock import Clock
from agents.drivers.base import Exit
from agents.drivers.kubernetes import seen, terms
from agents.drivers.kubernetes.cluster import Cluster, Found, View
from agents.drivers.kubernetes.reader import Reader
from agents.drivers.kubernetes.seen import Pod
from agents.drivers.kubernetes.server import ServerAway
from agents.drivers.kubernetes.settings import KubernetesSettings
from agents.drivers.kubernetes.spool import Spool
from agents.drivers.kubernetes.teller import Stop, Teller, read_confirmed, read_stop
from agents.drivers.kubernetes.terms import CENTI, SLACK_S, Terms, base_name
from agents.protocol import EndReason

GONE_S = 3.0  #: something must stay away for so long before it counts as gone
INCOMPLETE_S = 30.0  #: for a gang whose Jobs were not all created
DRAIN_S = 60.0  #: longest wait for the last words of a pod whose node does not answer
LOOKS_SHARE = 0.1  #: of its age between two reads of its progress
LONGEST_BETWEEN_S = 30.0
AWAY_S = 15.0  #: after a node did not answer
GANG = "gang"
DEADLINE = "its Job's deadline passed"


@dataclass(slots=True)
class Since:
    """Since when something has been so, boottime."""

    at: float | None = None

    def lasts(self, is_so: bool, now: float) -> float:
        if not is_so:
            self.at = None
        elif self.at is None:
            self.at = now
        return 0.0 if self.at is None else now - self.at


class Follower:
    def __init__(
        self,
        attempt: str,
        *,
        cluster: Cluster,
        spool: Spool,
        clock: Clock,
        boot: str,
        settings: KubernetesSettings,
        created: float,
    ) -> None:
        self.attempt = attempt
        self.spool = spool
        self.created = created  # boottime; a view must be newer to say anything
        self.terms = Terms(gpus=0, ranks=1, grace_s=0.0, lead_s=0.0, log_cap_bytes=spool.cap)
        self.fence_at: float | None = None  # boottime; None after a restart, until renewed
        self.stop: Stop | None = None
        boot_then, begun = spool.begun or ("", 0.0)
        self.begun = begun if boot_then == boot else None  # boottime at which it was confirmed
        self.reader = Reader(cluster, spool, clock, boot=boot)
        self._teller = Teller(cluster, self.reader, spool, clock, boot=boot)
        self._cluster = cluster
        self._clock = clock
        self._boot = boot
        self._settings = settings
        self._judged: View | None = None  # the newest that was looked at
        self._adopted = False  # the terms are those on the first Job
        self._confirmed: dict[int, str] = {}  # uid by rank; empty before
        self._stop_kept = False
        self._seen: dict[int, Pod] = {}  # the confirmed pods as last seen
        self._over: dict[int, Exit] = {}
        self._culprit: int | None = None
        self._gone: dict[int, Since] = {}
        self._bounds: dict[int, float] = {}  # fences of silent ranks, by guess
        self._pulling, self._jobless, self._drain = Since(), Since(), Since()
        self._next_read = 0.0

    # -- one step ---------------------------------------------------------------------------------

    def advance(self, view: View) -> Exit | None:
        """The end, once it is certain and everything it said has been read."""
        found = view.of(self.attempt)
        if not found.jobs:
            return self._without_jobs(view, found)
        self._jobless.at = None
        self._adopt(found)
        if not self._confirmed:
            over = self._before(found)
            if over is not None:
                self.delete(found)
            return over
        if view is self._judged and self.calm and self._clock.boottime() < self._next_read:
            self._tell(found, self.pods(), self._clock.boottime())  # nothing else can be new
            return None
        self._judged = view
        return self._after(found)

    def pods(self) -> list[Pod]:
        return [self._seen[rank] for rank in sorted(self._seen)]

    @property
    def calm(self) -> bool:
        """It runs by itself, and nobody wants it to end."""
        return bool(self._confirmed) and self.stop is None and not self._over and not self._gone

    def delete(self, found: Found) -> None:
        for name in found.jobs:
            self._cluster.server.delete(self._cluster.jobs(name))

    def ahead(self) -> float:
        """Seconds that rank 0's clock is ahead of our boottime."""
        first = self._seen.get(0)
        return 0.0 if first is None else self.reader.ahead(first) or 0.0

    def _adopt(self, found: Found) -> None:
        """What an earlier agent, or this one, has written on the first Job."""
        if self._adopted:
            return
        self._adopted = True
        job = found.jobs.get(base_name(self.attempt)) or next(iter(found.jobs.values()))
        notes = job["metadata"].get("annotations") or {}
        self.terms = terms.read_terms(notes.get(terms.TERMS, "")) or self.terms
        self.spool.cap = self.terms.log_cap_bytes
        self._confirmed = read_confirmed(notes.get(terms.CONFIRMED, ""))
        stop = read_stop(notes.get(terms.STOP, ""), now=self._clock.boottime())
        if stop is not None and self.stop is None:
            self.stop = stop
            self._stop_kept = True

    def _without_jobs(self, view: View, found: Found) -> Exit | None:
        """Pods may go on for their grace when their Job is deleted: then it is not over."""
        if view.asked <= self.created:
            return None
        if self._confirmed and (found.pods or self._over):
            return self._after(found)
        if found.pods and not self._adopted:
            return None
        now = self._clock.boottime()
        if self._jobless.lasts(True, now) < GONE_S:
            return None
        if self.stop is not None:
            return Exit(self.stop.reason, None, self.stop.why, now)
        why = "its Job was deleted at the site"
        if not self._adopted:
            why = "nothing of it is in the cluster: the API server never took it, or it was deleted"
        return Exit(EndReason.DRIVER_FAILED, None, why, now)

    # -- before it is confirmed -------------------------------------------------------------------

    def _before(self, found: Found) -> Exit | None:
        now = self._clock.boottime()
        pods = {pod.rank: pod for pod in found.pods if not pod.leaving}
        over = self._not_to_begin(found, pods, now)
        if over is not None:
            return replace(over, ended=now)
        self.reader.read_progress(pods.values())
        complete = len(pods) == self.terms.ranks and all(
            pod.running and self.reader.ahead(pod) is not None for pod in pods.values()
        )
        if complete and self.fence_at is not None:
            self._confirm(found, pods, self.fence_at, now)
        return None

    def _not_to_begin(self, found: Found, pods: dict[int, Pod], now: float) -> Exit | None:
        """Why it will not be started any more. Nothing of it has run."""
        if self.stop is not None:
            return Exit(self.stop.reason, None, self.stop.why)
        if self.fence_at is not None and now >= self.fence_at - self.terms.lead_s:
            return Exit(
                EndReason.FENCED, None, f"the fence passed first. {_troubles(pods)}".strip()
            )
        for pod in found.pods:
            if pod.exit is not None:
                return pod.exit
        return self._cannot_begin(found, pods, now)

    def _cannot_begin(self, found: Found, pods: dict[int, Pod], now: float) -> Exit | None:
        waited = now - self.created
        pulling = self._pulling.lasts(any(pod.pulling for pod in pods.values()), now)
        hopeless = any(pod.hopeless for pod in pods.values())
        wanted = len(terms.job_names(self.attempt, self.terms))
        why = ""
        if hopeless or pulling > self._settings.image_within_s:
            why = _troubles(pods)
        elif len(found.jobs) < wanted and waited > INCOMPLETE_S:
            why = f"{len(found.jobs)} of its {wanted} Jobs are there"
        elif waited > self._settings.start_within_s:
            why = f"it did not start within {self._settings.start_within_s:g} s. {_troubles(pods)}"
        elif any(seen.failed_by_deadline(job) for job in found.jobs.values()):
            why = f"its Job's deadline passed before it was started. {_troubles(pods)}"
        return Exit(EndReason.DRIVER_FAILED, None, why.strip()) if why else None

    def _confirm(self, found: Found, pods: dict[int, Pod], fence_at: float, now: float) -> None:
        """From here on these pods are the attempt, and they may begin."""
        uids = {rank: pod.uid for rank, pod in pods.items()}
        if not self._teller.confirm(base_name(self.attempt), uids):
            return
        self._confirmed, self._seen, self.begun = uids, pods, now
        self.spool.begun = (self._boot, now)
        self.spool.save()
        self._teller.tell(pods.values(), self.terms, fence_at, None)
        self._teller.move_deadlines(found, fence_at)

    # -- after it is confirmed --------------------------------------------------------------------

    def _after(self, found: Found) -> Exit | None:
        now = self._clock.boottime()
        self._see(found)
        self._read(now)
        self._judge(found, now)
        living = [pod for pod in self.pods() if pod.rank not in self._over]
        waiting = self._confirmed.keys() - self._over.keys()
        if waiting:
            self._tell(found, living, now)
            return None
        return self._close(now)

    def _see(self, found: Found) -> None:
        here = {pod.uid: pod for pod in found.pods}
        for rank, uid in self._confirmed.items():
            if uid in here:
                self._seen[rank] = replace(here[uid], rank=rank)
                self._gone.pop(rank, None)
            else:
                self._gone.setdefault(rank, Since())

    def _read(self, now: float) -> None:
        if now < self._next_read:
            return
        age = now - (self.begun if self.begun is not None else self.created)
        pause = min(max(LOOKS_SHARE * age, self._settings.look_s), LONGEST_BETWEEN_S)
        self._next_read = now + max(pause, self._cluster.pause_s())
        here = [pod for pod in self.pods() if pod.rank not in self._gone]
        try:
            self.reader.read_progress(pod for pod in here if pod.rank not in self._over)
        except ServerAway:  # one node that does not answer is not the API server
            self._next_read = now + AWAY_S
        self._cluster.took(self._clock.boottime() - now)

    def _judge(self, found: Found, now: float) -> None:
        """Ranks that are over, and whose doing it was."""
        by_deadline = any(seen.failed_by_deadline(job) for job in found.jobs.values())
        for rank in self._confirmed:
            if rank in self._over:
                continue
            over = self._end_of(rank, by_deadline, now)
            if over is None:
                continue
            self._over[rank] = over
            spoilt = over.reason is not EndReason.EXITED or over.exit_code != 0
            if spoilt and self._culprit is None and not self._followed(rank):
                self._culprit = rank

    def _end_of(self, rank: int, by_deadline: bool, now: float) -> Exit | None:
        pod = self._seen.get(rank)
        if pod is None or rank in self._gone:
            return self._end_of_gone(rank, pod, by_deadline, now)
        if pod.exit is not None:
            over = self._in_our_words(pod, replace(pod.exit, ended=self._ended(pod, now)))
            if by_deadline and pod.said in ("", "deleted"):
                return replace(over, reason=EndReason.FENCED, message=DEADLINE)
            return over
        if _is_silent(pod) and now > self._surely_fenced(pod):
            why = f"node {pod.node} does not answer; its fence has passed"
            return Exit(EndReason.LOST, None, why, now)
        return None

    def _end_of_gone(
        self, rank: int, pod: Pod | None, by_deadline: bool, now: float
    ) -> Exit | None:
        if self._gone[rank].lasts(True, now) < GONE_S:
            return None
        if pod is not None and _is_silent(pod) and now < self._surely_fenced(pod):
            return None  # removed from the books of a node that nobody hears: it may still run
        if self.stop is not None:
            return Exit(self.stop.reason, None, self.stop.why, now)
        if by_deadline:
            return Exit(EndReason.FENCED, None, DEADLINE, now)
        return Exit(EndReason.DRIVER_FAILED, None, seen.DELETED, now)

    def _in_our_words(self, pod: Pod, over: Exit) -> Exit:
        """The guard knows the reason for a stop, we know why."""
        stop = self.stop
        if stop is None or pod.said not in (str(stop.reason), "deleted"):
            return over
        return replace(over, reason=stop.reason, message=stop.why)

    def _followed(self, rank: int) -> bool:
        """It ended because another rank had."""
        pod = self._seen.get(rank)
        return pod is not None and pod.said == GANG

    def _ended(self, pod: Pod, now: float) -> float:
        """On our clock; at the latest, since the pod's is at least that far ahead."""
        ahead = self.reader.ahead(pod)
        if ahead is None or pod.ended_cs is None:
            return now
        return min(now, max(pod.ended_cs / CENTI - ahead, self.created))

    def _surely_fenced(self, pod: Pod) -> float:
        """Boottime by which the guard has kept the last fence that it may have been told."""
        told = self._teller.told_fence(pod)
        if told is None:  # an agent before this one told it: at most what was to hold by now
            fence = self.fence_at if self.fence_at is not None else math.inf
            told = min(self._bounds.get(pod.rank, math.inf), fence)
            self._bounds[pod.rank] = told
        return told + SLACK_S

    def _tell(self, found: Found, living: list[Pod], now: float) -> None:
        stop = self.stop
        if stop is not None:
            self._keep_stop(found, stop, now)
        elif self._over and self._culprit is not None:
            stop = Stop(EndReason.LOST, "", self.terms.grace_s, now, GANG)
        if self.fence_at is None:
            return
        heard = [pod for pod in living if not _is_silent(pod)]
        self._teller.tell(heard, self.terms, self.fence_at, stop)
        self._teller.move_deadlines(found, self.fence_at)

    def _keep_stop(self, found: Found, stop: Stop, now: float) -> None:
        """On record; and by force when the guards do not act."""
        if not self._stop_kept:
            self._stop_kept = self._teller.record_stop(base_name(self.attempt), stop)
        if now > stop.at + stop.grace_s + SLACK_S:
            self.delete(found)

    # -- the end ----------------------------------------------------------------------------------

    def _close(self, now: float) -> Exit | None:
        """All ranks are over: read the rest, then say so."""
        here = [pod for pod in self.pods() if pod.exit and pod.rank not in self._gone]
        waited = self._drain.lasts(True, now)
        if waited < DRAIN_S and not all(pod.told or pod.phase == "Failed" for pod in here):
            return None
        try:
            self.reader.read_progress(here, final=True)
            self.reader.read_log(here, prefixed=self.terms.ranks > 1, final=True)
        except ServerAway:
            if waited < DRAIN_S:
                raise
        ends = [over.ended for over in self._over.values() if over.ended is not None]
        rank = 0 if self._culprit is None else self._culprit
        over = self._over[rank if rank in self._over else min(self._over)]
        return replace(over, message=self._message(rank, over), ended=max(ends, default=now))

    def _message(self, rank: int, over: Exit) -> str:
        stopped = self.stop is not None and over.message == self.stop.why
        if self.terms.ranks == 1 or self._culprit is None or stopped:
            return over.message
        pod = self._seen.get(rank)
        node = f" on node {pod.node}" if pod is not None else ""
        return f"rank {rank}{node}: {over.message or f'exit code {over.exit_code}'}"


def _is_silent(pod: Pod) -> bool:
    """Running as far as anybody knows, on a node that the cluster has lost sight of."""
    return pod.running and not pod.ready


def _troubles(pods: dict[int, Pod]) -> str:
    return "; ".join(dict.fromkeys(pod.trouble for pod in pods.values() if pod.trouble))
