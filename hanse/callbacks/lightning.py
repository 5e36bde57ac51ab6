"""Report from PyTorch Lightning: `Trainer(callbacks=[HanseCallback()])`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback

from hanse.callbacks.pytorch import Gauges
from hanse.callbacks.steps import Layout, Steps, samples_in


class HanseCallback(Callback):
    """Reports each optimiser step of `fit`, and ends it when the attempt has trained enough.

    `batch_size`: samples of a batch, or how to find them in one; by default the length of the
    first array in it. Other arguments: `hanse.callbacks.pytorch.TrainingReport`.
    """

    def __init__(
        self,
        *,
        batch_size: int | Callable[[Any], int] | None = None,
        gradient_noise: bool = False,
        min_interval_s: float = 1.0,
        warm_up: int = 2,
    ) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._gradient_noise = gradient_noise
        self._min_interval_s = min_interval_s
        self._warm_up = warm_up
        self._steps: Steps | None = None
        self._gauges: Gauges | None = None
        self._batches: list[int] = []  # samples of the passes of the step under way
        self._global_step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._gauges = Gauges(
            trainer.strategy.model,
            accumulation=trainer.accumulate_grad_batches - 1,
            gradient_noise=self._gradient_noise,
        )
        self._steps = Steps(
            Layout(trainer.global_rank, trainer.world_size, trainer.num_nodes),
            min_interval_s=self._min_interval_s,
            warm_up=self._warm_up,
            measured=self._gauges.measured,
        )
        self._global_step = trainer.global_step
        self._batches = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._steps is None or self._gauges is None:
            return
        self._batches.append(self._size(batch))
        if trainer.global_step == self._global_step:
            return  # a pass that only accumulates
        self._global_step = trainer.global_step
        batches, self._batches = self._batches, []
        samples = self._steps.layout.replicas * sum(batches)
        self._gauges.end_step(samples)
        self._steps.step(
            batches[0],
            accumulation=len(batches) - 1,
            samples=samples,
            loss=_loss(outputs, trainer.accumulate_grad_batches),
        )
        trainer.should_stop = trainer.should_stop or self._steps.done

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._pause()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._pause()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self._pause()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._finish()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._finish()

    def _size(self, batch: Any) -> int:
        if self._batch_size is None:
            return samples_in(batch)
        return self._batch_size if isinstance(self._batch_size, int) else self._batch_size(batch)

    def _pause(self) -> None:
        if self._steps is not None:
            self._steps.pause()

    def _finish(self) -> None:
        if self._steps is not None and self._gauges is not None:
            self._steps.finish()
            self._gauges.remove()


def _loss(outputs: Any, passes: int) -> Any:
    """The loss as the module returned it: Lightning divides it by the passes of a step."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return None if loss is None else loss.detach() * passes
