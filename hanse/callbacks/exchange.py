"""The exchange of gradients between replicas, watched from outside DistributedDataParallel.

When backward has accumulated every gradient of this replica, DDP waits for the exchange, in a call
that it queues for the end of backward as the last gradient is ready. We queue one call at the first
gradient, so before DDP's, and from there another, so after it: between the two, nothing but the
exchange was left to do. Whatever hook compresses the exchange stays, and nothing of ours runs in
the threads that carry it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from hanse.callbacks.gradients import PENDING, fetched, squared_norm, total
from hanse.callbacks.noise import NoiseAverage

Moment = Any  #: perf_counter() seconds, or an event in the queue of an accelerator


@dataclass(slots=True)
class _Pass:
    """The newest backward pass of a step: of several, the last one exchanges."""

    ready: Moment | None = None
    done: Moment | None = None
    own: list[torch.Tensor] = field(default_factory=list)
    averaged: list[torch.Tensor] = field(default_factory=list)


class Exchange:
    """Seconds that steps waited for other replicas, and the noise of the gradients exchanged.

    `noise`: measure gradient noise too, by the norms of each parameter's gradient before and after.
    Of the mean square L only this replica's part is known here; replicas are alike, so its average
    over steps is the same.
    """

    def __init__(self, model: torch.nn.parallel.DistributedDataParallel, *, noise: bool) -> None:
        self.average = NoiseAverage()
        self._replicas = model.process_group.size()
        self._noise = noise
        self._parameters = [one for one in model.parameters() if one.requires_grad]
        self._pass: _Pass | None = None
        self._under_way = False
        self._waits: list[tuple[Moment, Moment]] = []
        self._pending: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        self._handles = [
            one.register_post_accumulate_grad_hook(self._accumulated) for one in self._parameters
        ]

    def end_step(self, samples: float) -> None:
        """The step of so many samples is over."""
        ended, self._pass = self._pass, None
        if ended is None or ended.ready is None or ended.done is None:
            return
        self._waits = [*self._waits[1 - PENDING :], (ended.ready, ended.done)]
        if ended.own and ended.averaged:
            self._pending.append((total(ended.own), total(ended.averaged), samples))
        if len(self._pending) >= PENDING:
            self._fetch()

    def measured(self, samples: float) -> dict[str, float]:
        """`sync_time_s`, the mean since the last call, and the noise of a step of `samples`."""
        self._fetch()
        waits = [_between(ready, done) for ready, done in self._waits]
        self._waits = []
        found = self.average.values(samples)
        if waits:
            found["sync_time_s"] = max(sum(waits) / len(waits), 0.0)
        return found

    def remove(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _accumulated(self, parameter: torch.nn.Parameter) -> None:
        """A gradient of this replica is whole; DDP has not touched it yet."""
        if not self._under_way or self._pass is None:
            self._under_way = True
            self._pass = _Pass()
            _at_the_end_of_backward(self._ready)
        if self._noise and parameter.grad is not None:
            self._pass.own.append(squared_norm(parameter.grad))

    def _ready(self) -> None:
        if self._pass is not None:
            self._pass.ready = _now(self._parameters[0])
        _at_the_end_of_backward(self._exchanged)

    def _exchanged(self) -> None:
        self._under_way = False
        if self._pass is None:
            return
        self._pass.done = _now(self._parameters[0])
        if self._noise:
            gradients = [one.grad for one in self._parameters if one.grad is not None]
            self._pass.averaged = [squared_norm(gradient) for gradient in gradients]

    def _fetch(self) -> None:
        for own, averaged, samples in fetched(self._pending):
            self.average.take(own, averaged, self._replicas, samples)
        self._pending.clear()


def _at_the_end_of_backward(call: Callable[[], None]) -> None:
    """Of the backward pass under way, in its own thread, after what is queued already."""
    torch.autograd.Variable._execution_engine.queue_callback(call)


def _now(near: torch.Tensor) -> Moment:
    """This moment, in the queue of work on the tensor's device."""
    if near.is_cuda:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
    return time.perf_counter()


def _between(start: Moment, end: Moment) -> float:
    """Seconds; waits for the device where it has not come so far."""
    if isinstance(start, float):
        return float(end) - start
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
