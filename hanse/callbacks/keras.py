"""Report from Keras: `model.fit(..., callbacks=[HanseCallback(batch_size=..., ...)])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras.callbacks import Callback

from hanse.callbacks.steps import Layout, Steps, layout_of_environment


class HanseCallback(Callback):
    """Reports the batches of `fit`, and ends it when the attempt has trained enough.

    Keras does not tell a callback how large a batch is, and the broker pays by samples, so both
    numbers are yours to say: `batch_size` of all replicas together, and `samples_per_epoch`, which
    makes a last small batch count for what it is. `replicas` and `nodes` by default as torchrun's
    variables say. `gpu`: the kind of GPU, where you know it. Only rank 0 writes.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        samples_per_epoch: int,
        replicas: int | None = None,
        nodes: int = 1,
        gpu: str | None = None,
        min_interval_s: float = 1.0,
        warm_up: int = 2,
    ) -> None:
        super().__init__()
        told = layout_of_environment()
        place = told if replicas is None else Layout(told.rank, replicas, nodes)
        if batch_size < 1 or samples_per_epoch < 1 or batch_size % place.replicas:
            raise ValueError(
                f"batch_size {batch_size} must be positive and split evenly over "
                f"{place.replicas} replicas, and samples_per_epoch positive"
            )
        self._layout = place
        self._batch_size = batch_size
        self._samples_per_epoch = samples_per_epoch
        self._gpu = gpu
        self._min_interval_s = min_interval_s
        self._warm_up = warm_up
        self._steps: Steps | None = None
        self._left = 0  # samples of the epoch that are still to come
        self._batch = -1  # the last batch that has ended

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps = Steps(
            self._layout,
            min_interval_s=self._min_interval_s,
            warm_up=self._warm_up,
            measured=lambda _: {"gpu": self._gpu},
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._left, self._batch = self._samples_per_epoch, -1
        self._pause()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._steps is None:
            return
        batches, self._batch = batch - self._batch, batch  # several, with steps_per_execution
        samples = min(batches * self._batch_size, self._left)
        self._left -= samples
        loss = (logs or {}).get("loss")
        local = self._batch_size // self._layout.replicas
        self._steps.step(local, samples=samples, loss=loss, steps=batches)
        if self._steps.done:
            self.model.stop_training = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._pause()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._pause()

    def on_train_end(self, logs: Any = None) -> None:
        if self._steps is not None:
            self._steps.finish()

    def _pause(self) -> None:
        if self._steps is not None:
            self._steps.pause()
