"""Report from a PyTorch loop: `TrainingReport` around it, one call after each optimiser step."""

from __future__ import annotations

import resource
import sys
from types import TracebackType

import torch
import torch.distributed

from hanse.callbacks.exchange import Exchange
from hanse.callbacks.gradients import PassNoise
from hanse.callbacks.steps import Layout, Steps, layout_of_environment


def layout() -> Layout:
    """Of torch.distributed where it runs, else of torchrun's variables."""
    told = layout_of_environment()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return told
    replicas = torch.distributed.get_world_size()
    nodes = told.nodes if told.replicas == replicas else 1
    return Layout(torch.distributed.get_rank(), replicas, nodes)


def gpu_kind() -> str | None:
    """The name of the GPU in use; None on a CPU."""
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def memory_peak_bytes() -> int:
    """Most bytes that tensors held on the GPU in use; without one, that this process held."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Gauges:
    """What PyTorch lets be measured beside time: memory, GPU kind, exchange, gradient noise.

    `model`: the module whose gradients are watched, or None. In DistributedDataParallel the wait
    for other replicas is measured, and with `gradient_noise` the noise between replicas; where
    there is one replica, `gradient_noise` takes the noise between `accumulation + 1` passes, and
    with one pass there is none. `summed`: see `PassNoise`.
    """

    def __init__(
        self,
        model: torch.nn.Module | None = None,
        *,
        accumulation: int = 0,
        gradient_noise: bool = False,
        summed: bool = False,
    ) -> None:
        self._exchange: Exchange | None = None
        self._passes: PassNoise | None = None
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            self._exchange = Exchange(model, noise=gradient_noise)
        elif model is not None and gradient_noise and accumulation and layout().replicas == 1:
            self._passes = PassNoise(model.parameters(), accumulation + 1, summed=summed)

    def end_step(self, samples: int) -> None:
        for gauge in (self._exchange, self._passes):
            if gauge is not None:
                gauge.end_step(samples)

    def measured(self, samples: int) -> dict[str, object]:
        """Fields of a line of progress about steps of so many samples."""
        found: dict[str, object] = {"gpu": gpu_kind(), "memory_peak_bytes": memory_peak_bytes()}
        for gauge in (self._exchange, self._passes):
            if gauge is not None:
                found |= gauge.measured(samples)
        return found

    def remove(self) -> None:
        """Leave the model as it was found."""
        for gauge in (self._exchange, self._passes):
            if gauge is not None:
                gauge.remove()


class TrainingReport:
    """Counts, times and reports the optimiser steps of a loop of one's own.

        with TrainingReport(model) as told:
            for batch in loader:
                ...
                optimizer.step()
                told.step(len(batch), loss=loss)
                if told.done:
                    break

    Make one on every replica, after the process group and after wrapping the model: rank 0 writes.
    `accumulation`: backward passes of a step before its last. Other arguments: `Gauges`, `Steps`.
    """

    def __init__(
        self,
        model: torch.nn.Module | None = None,
        *,
        accumulation: int = 0,
        gradient_noise: bool = False,
        summed: bool = False,
        min_interval_s: float = 1.0,
        warm_up: int = 2,
    ) -> None:
        self._accumulation = accumulation
        self.gauges = Gauges(
            model, accumulation=accumulation, gradient_noise=gradient_noise, summed=summed
        )
        self.steps = Steps(
            layout(),
            min_interval_s=min_interval_s,
            warm_up=warm_up,
            measured=self.gauges.measured,
        )

    @property
    def done(self) -> bool:
        """Whether this attempt has trained what it should."""
        return self.steps.done

    def step(
        self,
        local_batch: int,
        *,
        accumulation: int | None = None,
        loss: torch.Tensor | float | None = None,
        samples: int | None = None,
    ) -> bool:
        """An optimiser step has ended; True when a line was written.

        `local_batch`: samples of one pass on this replica; all replicas have as many. `samples`:
        of all replicas and passes, where passes of this step were uneven.
        """
        passes = self._accumulation if accumulation is None else accumulation
        full = self.steps.layout.replicas * local_batch * (passes + 1)
        self.gauges.end_step(full)
        known = loss.detach() if isinstance(loss, torch.Tensor) else loss
        return self.steps.step(local_batch, accumulation=passes, loss=known, samples=samples)

    def pause(self) -> None:
        """What follows, up to the end of the next step, is no training: validation, saving."""
        self.steps.pause()

    def close(self) -> None:
        """Say the final count, and take the hooks off."""
        self.steps.finish()
        self.gauges.remove()

    def __enter__(self) -> TrainingReport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
