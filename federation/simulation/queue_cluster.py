"""Jobs queue for one cluster in virtual time, under a discipline that says who goes first.

Events only: an arrival, a completion, a restart paid off, or a change of order that the discipline
announces. Between two events the same jobs run. A job holds all its GPUs or none, and any GPUs
serve it equally well: what a bad placement costs is not modelled.

Shapes: J jobs of the trace. Units: seconds · GPUs · GPU-seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from economics.market import Array, Index, Mask
from federation.simulation.queue_trace import Trace

DONE = 1e-9  # relative; less than this of its seconds left and a job is done


class Queue:
    """The jobs of a trace while it is played. Arrays are (J,)."""

    def __init__(self, trace: Trace) -> None:
        size = trace.jobs
        self.trace = trace
        self.now = 0.0
        self.left: Array = trace.seconds.copy()  # s of work
        self.debt: Array = np.zeros(size)  # s of restarting before work goes on
        self.first_start: Array = np.full(size, np.inf)
        self.finish: Array = np.full(size, np.nan)
        self.running: Mask = np.zeros(size, dtype=bool)
        self.arrived: Mask = np.zeros(size, dtype=bool)
        # Since the job last entered the first queue, for disciplines that have queues:
        self.ran: Array = np.zeros(size)
        self.waited: Array = np.zeros(size)

    @property
    def active(self) -> Index:
        """Jobs that have arrived and are not done, in the order they arrived."""
        return np.flatnonzero(self.arrived & np.isnan(self.finish))


class Discipline(Protocol):
    """Who goes first. Disciplines hold no state of their own."""

    @property
    def preempts(self) -> bool:
        """Whether a running job may be put back."""
        ...

    @property
    def skips(self) -> bool:
        """Whether a job may start past one that does not fit."""
        ...

    def order(self, queue: Queue, jobs: Index) -> Index:
        """These jobs, first to last."""
        ...

    def until_change(self, queue: Queue, jobs: Index) -> float:
        """Seconds until the order of these jobs may change although none comes or goes."""
        ...

    def promoted(self, queue: Queue, jobs: Index) -> Index:
        """Those of these jobs that enter the first queue again now."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which the same jobs ran."""

    start: float
    end: float
    jobs: Index


@dataclass(frozen=True, slots=True)
class Promotion:
    """A job that waited long enough to enter the first queue again."""

    at: float  # s
    job: int
    waited: float  # s since it last entered the first queue
    ran: float  # s since then


@dataclass(slots=True)
class Story:
    """What happened."""

    trace: Trace
    finish: Array  # (J,) s
    spans: list[Span] = field(default_factory=list)
    promotions: list[Promotion] = field(default_factory=list)
    restarts: int = 0

    @property
    def completion(self) -> Array:
        """Seconds from arrival to finish, (J,)."""
        return self.finish - self.trace.arrival

    @property
    def delivered(self) -> Array:
        """Seconds each job held its GPUs, (J,): restarts included."""
        seconds = np.zeros(self.trace.jobs)
        for span in self.spans:
            seconds[span.jobs] += span.end - span.start
        return seconds


def play(trace: Trace, gpus: int, discipline: Discipline, *, restart_s: float = 0.0) -> Story:
    """Play the trace to its end. A job that is put back pays `restart_s` when it starts again.

    Raises ValueError for a job wider than the cluster: it could never start, and under a strict
    order nobody behind it could.
    """
    if (trace.gpus > gpus).any():
        raise ValueError(f"a job asks for {trace.gpus.max():g} GPUs of a cluster of {gpus}")
    queue, story = Queue(trace), Story(trace, np.zeros(0))
    while np.isnan(queue.finish).any():
        # 1. Who is here, and who has waited long enough.
        queue.arrived |= trace.arrival <= queue.now
        _promote(queue, discipline, story)
        # 2. Who runs.
        _place(queue, _chosen(queue, discipline, gpus), restart_s, story)
        # 3. On to the next event.
        step = _until_event(queue, discipline)
        _advance(queue, step, story)
    story.finish = queue.finish
    return story


def _promote(queue: Queue, discipline: Discipline, story: Story) -> None:
    for job in discipline.promoted(queue, queue.active):
        story.promotions.append(
            Promotion(queue.now, int(job), float(queue.waited[job]), float(queue.ran[job]))
        )
        queue.ran[job] = queue.waited[job] = 0.0


def _chosen(queue: Queue, discipline: Discipline, gpus: int) -> Index:
    """Jobs that run next: in order, each on all its GPUs, while there are any."""
    active = queue.active
    kept = np.zeros(0, dtype=np.int64)
    if not discipline.preempts:
        kept = active[queue.running[active]]
        active = active[~queue.running[active]]
    free = gpus - float(queue.trace.gpus[kept].sum())
    chosen = []
    for job in discipline.order(queue, active):
        if free <= 0:
            break
        if queue.trace.gpus[job] <= free:
            free -= queue.trace.gpus[job]
            chosen.append(job)
        elif not discipline.skips:
            break
    return np.append(kept, np.array(chosen, dtype=np.int64))


def _place(queue: Queue, chosen: Index, restart_s: float, story: Story) -> None:
    runs = np.zeros(queue.running.shape, dtype=bool)
    runs[chosen] = True
    again = runs & ~queue.running & np.isfinite(queue.first_start)
    queue.debt[again] = restart_s
    story.restarts += int(again.sum())
    queue.first_start[runs & np.isinf(queue.first_start)] = queue.now
    queue.running = runs


def _until_event(queue: Queue, discipline: Discipline) -> float:
    active, trace = queue.active, queue.trace
    ends = (queue.left + queue.debt)[queue.running]
    debts = queue.debt[queue.running & (queue.debt > 0)]
    arrivals = trace.arrival[~queue.arrived] - queue.now
    return min(
        float(ends.min(initial=np.inf)),
        float(debts.min(initial=np.inf)),
        float(arrivals.min(initial=np.inf)),
        discipline.until_change(queue, active),
    )


def _advance(queue: Queue, step: float, story: Story) -> None:
    active, running = queue.active, np.flatnonzero(queue.running)
    story.spans.append(Span(queue.now, queue.now + step, running))
    worked = step - np.minimum(queue.debt[running], step)
    queue.debt[running] -= step - worked
    queue.left[running] -= worked
    queue.ran[running] += worked
    waiting = active[~queue.running[active]]
    queue.waited[waiting] += step
    queue.now += step
    done = running[queue.left[running] <= DONE * queue.trace.seconds[running]]
    queue.finish[done] = queue.now
    queue.running[done] = False
