"""Optimiser steps, counted and timed between two lines of progress; standard library only.

What every framework's callback shares. A step's time is the wall time from the end of the step
before to its own end, data loading included: on an accelerator that works through a queue, single
ends are early but their mean is right. Steps before `warm_up` (compilation, first allocations) and
steps after a pause (validation, a checkpoint) count their samples but not their time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

from hanse.report import report, samples_wanted

Measured = Mapping[str, object]
MOST_SHAPES = 64  #: batch shapes timed apart between two lines; beyond it a step is not timed


@dataclass(frozen=True, slots=True)
class Layout:
    """Where this process stands in its job."""

    rank: int = 0
    replicas: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.replicas and 1 <= self.nodes <= self.replicas):
            raise ValueError(
                f"rank {self.rank} of {self.replicas} replicas on {self.nodes} nodes cannot be"
            )


def layout_of_environment() -> Layout:
    """The layout that torchrun's variables tell; without them, one replica.

    Raises ValueError when they contradict each other.
    """
    replicas = _variable("WORLD_SIZE", 1)
    on_a_node = _variable("LOCAL_WORLD_SIZE", replicas)
    if replicas < 1 or on_a_node < 1:
        raise ValueError("WORLD_SIZE and LOCAL_WORLD_SIZE must be at least 1")
    return Layout(_variable("RANK", 0), replicas, math.ceil(replicas / on_a_node))


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text else default


@dataclass(frozen=True, slots=True)
class Shape:
    """Samples of one replica in one pass, and passes of a step before its last."""

    local_batch: int
    accumulation: int


@dataclass(slots=True)
class _Timed:
    """Sums over the timed steps of one shape since the last line."""

    steps: int = 0
    seconds: float = 0.0


class Steps:
    """Counts the samples that this attempt trains on all replicas, and reports from rank 0.

    `min_interval_s`: least seconds between lines. `warm_up`: first steps that are not timed, and
    that no line is written in: the agent measures speed from the first line on. `measured`: asked
    for more fields when a line is due, with the samples of the step that the line shows.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        min_interval_s: float = 1.0,
        warm_up: int = 2,
        measured: Callable[[int], Measured] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = layout
        self.samples = 0  #: trained by all replicas in this attempt
        self._wanted = samples_wanted()
        self._reports = layout.rank == 0 and bool(os.environ.get("HANSE_PROGRESS"))
        self._min_interval_s = min_interval_s
        self._cold = max(warm_up, 0)
        self._measured = measured
        self._clock = clock
        self._last_end: float | None = None
        self._told_at = -math.inf
        self._told = -1
        self._timed: dict[Shape, _Timed] = {}
        self._loss: SupportsFloat | None = None

    @property
    def done(self) -> bool:
        """Whether all that this attempt should train is trained; the same on every replica."""
        return self._wanted is not None and self.samples >= self._wanted

    @property
    def reports(self) -> bool:
        """Whether this process writes lines, so that measuring is worth its while."""
        return self._reports

    def step(
        self,
        local_batch: int,
        *,
        accumulation: int = 0,
        samples: int | None = None,
        loss: SupportsFloat | None = None,
        steps: int = 1,
    ) -> bool:
        """An optimiser step (or `steps` alike ones) has ended; True when a line was written.

        `local_batch`: samples of one replica in one pass; `accumulation`: passes before the last.
        `samples` of all replicas in all these steps: by default every pass was full and alike.
        """
        shape = Shape(local_batch, accumulation)
        full = steps * self.layout.replicas * local_batch * (accumulation + 1)
        trained = full if samples is None else samples
        self.samples += trained
        if not self._reports:
            return False
        self._loss = loss if loss is not None else self._loss
        now = self._clock()
        self._time(shape, now, steps, whole=trained == full)
        if self._cold or now - self._told_at < self._min_interval_s:
            self._cold = max(self._cold - steps, 0)
            return False
        return self._tell(now)

    def pause(self) -> None:
        """What follows until the next step ends is no training: leave its time out."""
        self._last_end = None

    def finish(self) -> bool:
        """Say the final count; True when a line was written. Nothing is said twice."""
        if not self._reports or self.samples == self._told:
            return False
        return self._tell(self._clock())

    def _time(self, shape: Shape, now: float, steps: int, *, whole: bool) -> None:
        last, self._last_end = self._last_end, now
        crowded = shape not in self._timed and len(self._timed) >= MOST_SHAPES
        if last is None or self._cold or not whole or crowded:
            return
        timed = self._timed.setdefault(shape, _Timed())
        timed.steps += steps
        timed.seconds += now - last

    def _tell(self, now: float) -> bool:
        fields: dict[str, Any] = {"replicas": self.layout.replicas, "nodes": self.layout.nodes}
        step_time_s = None
        if self._timed:
            shape, timed = max(self._timed.items(), key=lambda item: item[1].steps)
            step_time_s = timed.seconds / timed.steps
            fields |= {"local_batch": shape.local_batch, "accumulation": shape.accumulation}
            fields |= self._asked(shape, step_time_s)
        self._timed = {}
        self._told_at, self._told = now, self.samples
        return report(self.samples, step_time_s=step_time_s, loss=_finite(self._loss), **fields)

    def _asked(self, shape: Shape, step_time_s: float) -> dict[str, object]:
        """What else was measured; a wait that is longer than its step measured something else."""
        if self._measured is None:
            return {}
        samples = self.layout.replicas * shape.local_batch * (shape.accumulation + 1)
        found = {key: value for key, value in self._measured(samples).items() if value is not None}
        sync = found.get("sync_time_s")
        if isinstance(sync, float) and not 0.0 <= sync < step_time_s:
            del found["sync_time_s"]
        return found


def _finite(loss: SupportsFloat | None) -> float | None:
    """A loss that may be shown: a run that diverges goes on, and its speed still counts."""
    value = math.nan if loss is None else float(loss)
    return value if math.isfinite(value) else None


def samples_in(batch: object) -> int:
    """Samples of a batch: the length of the first array in it, in the order it was put together.

    Looks into mappings, tuples and lists; raises ValueError where it finds no array.
    """
    found = _first_length(batch)
    if found is None:
        raise ValueError("the batch holds no array: say batch_size= yourself")
    return found


def _first_length(value: object) -> int | None:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    inner: list[object] = []
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, tuple | list):
        inner = list(value)
    for item in inner:
        if (length := _first_length(item)) is not None:
            return length
    return None
