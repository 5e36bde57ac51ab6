"""Report from the Hugging Face Trainer: `trainer.add_callback(HanseCallback(trainer))`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from hanse.callbacks.pytorch import Gauges, layout
from hanse.callbacks.steps import Layout, Steps


class HanseCallback(TrainerCallback):
    """Reports each optimiser step of `train`, and ends it when the attempt has trained enough.

    `trainer`: lets the exchange between replicas be measured; without it, callbacks see the model
    before it is wrapped. Other arguments: `hanse.callbacks.pytorch.TrainingReport`.
    """

    def __init__(
        self,
        trainer: Any = None,
        *,
        gradient_noise: bool = False,
        min_interval_s: float = 1.0,
        warm_up: int = 2,
    ) -> None:
        self._trainer = trainer
        self._gradient_noise = gradient_noise
        self._min_interval_s = min_interval_s
        self._warm_up = warm_up
        self._steps: Steps | None = None
        self._gauges: Gauges | None = None
        self._passes = 0  # of the step under way that have ended
        self._left: int | None = None  # samples of the epoch that are still to come
        self._loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        model = more.get("model") if self._trainer is None else self._trainer.model_wrapped
        self._gauges = Gauges(
            model,
            accumulation=args.gradient_accumulation_steps - 1,
            gradient_noise=self._gradient_noise,
        )
        told, devices = layout(), max(args.n_gpu, 1)  # several: DataParallel in one process
        self._steps = Steps(
            Layout(told.rank, told.replicas * devices, told.nodes),
            min_interval_s=self._min_interval_s,
            warm_up=self._warm_up,
            measured=self._gauges.measured,
        )
        self._passes = 0
        self._loss = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._pause()
        size = _length(more.get("train_dataloader"))
        trained = (state.epoch or 0.0) % 1.0  # of this epoch, when resumed from a checkpoint
        self._left = None if size is None else size - round(trained * size)

    def on_substep_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._passes += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self._steps is None or self._gauges is None:
            return
        passes, self._passes = self._passes + 1, 0
        samples = self._steps.layout.replicas * passes * args.per_device_train_batch_size
        if self._left is not None:  # the last batch of an epoch may be a small one
            samples = min(samples, self._left)
            self._left -= samples
        self._gauges.end_step(samples)
        self._steps.step(
            args.per_device_train_batch_size,
            accumulation=passes - 1,
            samples=samples,
            loss=self._loss,
        )
        if self._steps.done:
            control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **more: Any
    ) -> None:
        self._loss = logs.get("loss", self._loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._pause()

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._pause()

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self._steps is not None and self._gauges is not None:
            self._steps.finish()
            self._gauges.remove()

    def _pause(self) -> None:
        if self._steps is not None:
            self._steps.pause()


def _length(loader: Any) -> int | None:
    """Samples of an epoch; None for a stream, whose end nobody knows."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return None
