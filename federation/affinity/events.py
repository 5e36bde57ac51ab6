"""Asynchronous training with a parameter server, event by event, from profiles of steps.

Each worker draws a profile, runs its operations as soon as what they wait for is done, and draws
the next. The GPU of a worker does one operation at a time, in the order they became ready; so does
the server, as one queue for all or one for each worker. Each way of the server's link is shared
equally by the workers that have something to send, none faster than its own card. Within a worker,
either one transfer after the other, or all at once by turns of a flow-control window, as streams of
one HTTP/2 connection are. (The setting of Li, Yan, Paolieri and Golubchik, Throughput Prediction of
Asynchronous SGD in TensorFlow, ICPE 2020; written from its abstract.)

The two ways of a link are kept in virtual time: as all senders have the same rate, what a turn
needs is a distance in bytes per sender, and only its speed changes when senders come and go.
Workers start spread over the length of a step, as they do where nothing holds them together: equal
steps that start together stay in lockstep for ever and leave the link idle between.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from federation.affinity.samples import BadSamples
from federation.affinity.step_profile import Resource, StepProfile

LEAST_STEPS = 500
WARM_UP = 50
START = -1  #: in place of an operation: the worker begins


@dataclass(frozen=True, slots=True)
class Machine:
    """What the workers share."""

    link_bytes_s: float  # of the server, each way
    worker_bytes_s: float = math.inf  # of a worker's card, each way
    window_bytes: float = math.inf  # a turn of a stream; infinite: one transfer after the other
    one_server: bool = True  # one queue for updates, or one for each worker

    def __post_init__(self) -> None:
        values = (self.link_bytes_s, self.worker_bytes_s, self.window_bytes)
        if not all(value > 0 for value in values) or not math.isfinite(self.link_bytes_s):
            raise BadSamples(("bandwidths and the window must be above 0",))


@dataclass(frozen=True, slots=True)
class Replay:
    """What happened after the warm-up.

    Steps that began before the window and end in it count whole. While the start still shows, their
    number and that of steps cut off at its end may differ, by at most one for each worker: the rate
    may pass `mva.bound` by workers / steps (0.5 % was seen with 64 workers and 3,000 steps).
    """

    steps: int
    seconds: float

    @property
    def steps_per_s(self) -> float:
        return self.steps / self.seconds


@dataclass(slots=True)
class _Step:
    """A worker's present step."""

    profile: int
    waiting: list[int]  # operations that each operation still waits for
    left: int  # operations not done


@dataclass(slots=True)
class _Queue:
    """One operation at a time."""

    ready: deque[tuple[int, int]] = field(default_factory=deque)  # worker, operation
    busy: bool = False


@dataclass(slots=True)
class _Link:
    """One way of the server's link. Distances are bytes that each sender has sent."""

    machine: Machine
    now: float = 0.0
    sent: float = 0.0
    turns: list[tuple[float, int]] = field(default_factory=list)  # heap: distance, worker
    streams: dict[int, deque[tuple[int, float]]] = field(default_factory=dict)  # operation, left

    def rate(self) -> float:
        """Bytes per second of each sender."""
        return min(self.machine.link_bytes_s / len(self.turns), self.machine.worker_bytes_s)

    def advance(self, now: float) -> None:
        if self.turns:
            self.sent += (now - self.now) * self.rate()
        self.now = now

    def next_end(self) -> float:
        """When the next turn ends."""
        if not self.turns:
            return math.inf
        return self.now + max(self.turns[0][0] - self.sent, 0.0) / self.rate()

    def add(self, worker: int, operation: int, size: float) -> None:
        streams = self.streams.setdefault(worker, deque())
        streams.append((operation, size))
        if len(streams) == 1:
            self._turn(worker)

    def end_turn(self) -> tuple[int, int] | None:
        """Finish the first turn; the operation that is done with it, or None."""
        distance, worker = heappop(self.turns)
        self.sent = max(self.sent, distance)
        streams = self.streams[worker]
        operation, left = streams.popleft()
        left -= min(left, self.machine.window_bytes)
        if left > 0:
            streams.append((operation, left))
        if streams:
            self._turn(worker)
        return None if left > 0 else (worker, operation)

    def _turn(self, worker: int) -> None:
        size = min(self.streams[worker][0][1], self.machine.window_bytes)
        heappush(self.turns, (self.sent + size, worker))


class _Simulation:
    """The state between events; `run` is all that is used of it."""

    def __init__(
        self, profiles: Sequence[StepProfile], machine: Machine, workers: int, seed: int
    ) -> None:
        self.profiles = profiles
        self.followers = [profile.followers() for profile in profiles]
        self.draw = random.Random(seed)  # noqa: S311 a simulation, not a secret
        self.links = {way: _Link(machine) for way in (Resource.DOWN, Resource.UP)}
        self.gpus = [_Queue() for _ in range(workers)]
        servers = [_Queue()] if machine.one_server else [_Queue() for _ in range(workers)]
        self.servers = servers
        self.steps: list[_Step | None] = [None] * workers
        self.ends: list[tuple[float, int, Resource, int, int]] = []  # heap of timed operations
        self.serial = 0  # breaks ties of time by order of start
        self.now = 0.0
        self.done = 0

    def run(self, steps: int, warm_up: int) -> Replay:
        length = _length(self.profiles[0], self.links[Resource.DOWN].machine)
        for worker in range(len(self.gpus)):
            self._later(length * worker / len(self.gpus), Resource.GPU, worker, START)
        started = 0.0
        while self.done < steps + warm_up:
            before = self.done
            self._event()
            if before < warm_up <= self.done:
                started = self.now
        return Replay(steps, self.now - started)

    def _event(self) -> None:
        """The next end of a turn or of an operation."""
        way = min(self.links, key=lambda one: self.links[one].next_end())
        link = self.links[way]
        if self.ends and self.ends[0][0] <= link.next_end():
            self._pass_to(self.ends[0][0])
            _, _, resource, worker, operation = heappop(self.ends)
            if operation == START:
                self._begin(worker)
                return
            self._freed(resource, worker)
            self._finish(worker, operation)
            return
        self._pass_to(link.next_end())
        if ended := link.end_turn():
            self._finish(*ended)

    def _pass_to(self, now: float) -> None:
        self.now = now
        for link in self.links.values():
            link.advance(now)

    def _begin(self, worker: int) -> None:
        chosen = self.draw.randrange(len(self.profiles)) if len(self.profiles) > 1 else 0
        operations = self.profiles[chosen].operations
        waiting = [len(set(operation.after)) for operation in operations]
        self.steps[worker] = _Step(chosen, waiting, len(operations))
        for place, count in enumerate(waiting):
            if count == 0:
                self._release(worker, place)

    def _release(self, worker: int, place: int) -> None:
        operation = self._profile(worker).operations[place]
        if operation.resource in self.links:
            self.links[operation.resource].add(worker, place, operation.size)
            return
        queue = self._queue(operation.resource, worker)
        queue.ready.append((worker, place))
        self._serve(queue, operation.resource)

    def _serve(self, queue: _Queue, resource: Resource) -> None:
        if queue.busy or not queue.ready:
            return
        worker, place = queue.ready.popleft()
        queue.busy = True
        size = self._profile(worker).operations[place].size
        self._later(self.now + size, resource, worker, place)

    def _later(self, time: float, resource: Resource, worker: int, place: int) -> None:
        self.serial += 1
        heappush(self.ends, (time, self.serial, resource, worker, place))

    def _freed(self, resource: Resource, worker: int) -> None:
        queue = self._queue(resource, worker)
        queue.busy = False
        self._serve(queue, resource)

    def _queue(self, resource: Resource, worker: int) -> _Queue:
        if resource is Resource.GPU:
            return self.gpus[worker]
        return self.servers[worker if len(self.servers) > 1 else 0]

    def _finish(self, worker: int, place: int) -> None:
        step = self._step(worker)
        step.left -= 1
        for follower in self.followers[step.profile][place]:
            step.waiting[follower] -= 1
            if step.waiting[follower] == 0:
                self._release(worker, follower)
        if step.left == 0:
            self.done += 1
            self._begin(worker)

    def _step(self, worker: int) -> _Step:
        step = self.steps[worker]
        assert step is not None, "a worker always has a step"  # noqa: S101
        return step

    def _profile(self, worker: int) -> StepProfile:
        return self.profiles[self._step(worker).profile]


def _length(profile: StepProfile, machine: Machine) -> float:
    """Seconds of all operations of a step one after another, without other workers."""
    speed = min(machine.link_bytes_s, machine.worker_bytes_s)
    return math.fsum(
        operation.size / (speed if operation.resource in (Resource.DOWN, Resource.UP) else 1.0)
        for operation in profile.operations
    )


def replay(
    profiles: Sequence[StepProfile],
    machine: Machine,
    workers: int,
    *,
    seed: int,
    steps: int = LEAST_STEPS,
    warm_up: int = WARM_UP,
) -> Replay:
    """Steps of all workers together after `warm_up` of them.

    Raises `BadSamples` without profiles or workers, or when all operations take no time.
    """
    if not profiles or workers < 1 or steps < 1:
        raise BadSamples(("a replay needs a profile, a worker and a step",))
    if all(operation.size == 0 for one in profiles for operation in one.operations):
        raise BadSamples(("no operation of these profiles takes any time",))
    return _Simulation(profiles, machine, workers, seed).run(steps, warm_up)
