"""Squared norms of the gradients of one replica, taken while it accumulates them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from hanse.callbacks.noise import NoiseAverage

PENDING = 256  #: steps whose norms stay on the device before they are fetched together


def squared_norm(gradient: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean norm as a float32 scalar on the gradient's device."""
    values = gradient.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    return torch.linalg.vector_norm(values, dtype=torch.float32).square()


class PassNoise:
    """Gradient noise of one replica that accumulates `passes` equal backward passes into a step.

    Hooks on the parameters see the gradient of each pass before it is added, and the sum after the
    last, before anything clips or unscales it. `summed`: the loop adds the passes' gradients
    without dividing the loss by their number. Raises ValueError for fewer than two passes.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], passes: int, *, summed: bool = False
    ) -> None:
        if passes < 2:
            raise ValueError("gradient noise of one replica needs at least two passes in a step")
        self.average = NoiseAverage()
        self._passes = passes
        # the loop's gradient over the average one, and one pass's over what the loop adds
        self._divisor = float(passes**2) if summed else 1.0
        self._factor = 1.0 if summed else float(passes**2)
        self._seen: dict[int, int] = {}
        self._each: list[torch.Tensor] = []
        self._whole: list[torch.Tensor] = []
        self._pending: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        self._handles: list[Any] = []
        for place, parameter in enumerate(one for one in parameters if one.requires_grad):
            self._watch(place, parameter)

    def _watch(self, place: int, parameter: torch.nn.Parameter) -> None:
        def before(gradient: torch.Tensor) -> None:
            self._each.append(squared_norm(gradient))

        def after(changed: torch.Tensor) -> None:
            self._seen[place] = self._seen.get(place, 0) + 1
            if self._seen[place] == self._passes and changed.grad is not None:
                self._whole.append(squared_norm(changed.grad))

        self._handles.append(parameter.register_hook(before))
        self._handles.append(parameter.register_post_accumulate_grad_hook(after))

    def end_step(self, samples: float) -> None:
        """The step of so many samples is over; one with fewer or more passes is left out."""
        if self._seen and all(count == self._passes for count in self._seen.values()):
            each, whole = total(self._each), total(self._whole)
            self._pending.append((each, whole, samples))
        self._seen.clear()
        self._each.clear()
        self._whole.clear()
        if len(self._pending) >= PENDING:
            self._fetch()

    def measured(self, samples: float) -> dict[str, float]:
        self._fetch()
        return self.average.values(samples)

    def remove(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _fetch(self) -> None:
        for each, whole, samples in fetched(self._pending):
            mean = self._factor * each / self._passes
            self.average.take(mean, whole / self._divisor, self._passes, samples)
        self._pending.clear()


def fetched(
    pending: list[tuple[torch.Tensor, torch.Tensor, float]],
) -> list[tuple[float, float, float]]:
    """The scalars of several steps, brought from the device in one go."""
    if not pending:
        return []
    pairs = torch.stack([torch.stack((each, whole)) for each, whole, _ in pending]).tolist()
    return [
        (each, whole, samples)
        for (each, whole), (_, _, samples) in zip(pairs, pending, strict=True)
    ]


def total(squares: list[torch.Tensor]) -> torch.Tensor:
    """Their sum, on the device of the first: a model may be spread over several."""
    return torch.stack([one.to(squares[0].device) for one in squares]).sum()
