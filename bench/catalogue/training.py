"""What a class of the catalogue is: how to build it, and one optimiser step of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

PRECISIONS = {
    "float32": None,
    "tf32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Training:
    """A model with its optimiser and its made-up data; `loss` is one forward pass."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[], torch.Tensor]
    samples: int  #: in one step


@dataclass(frozen=True, slots=True)
class ModelClass:
    """One class: a family at one size. `batches` are tried in this order, smallest first."""

    family: str
    size: str
    sample: str  #: what one sample is
    batches: tuple[int, ...]
    build: Callable[[int, torch.device], Training]


class Stepper:
    """Optimiser steps of a training at one precision; weights stay in float32.

    bfloat16 and float16 are automatic mixed precision, float16 with a loss scaler; tf32 lets matrix
    products of float32 run on a GPU's tensor cores.
    """

    def __init__(self, training: Training, device: torch.device, precision: str) -> None:
        self._training = training
        self._device = device
        self._half = PRECISIONS[precision]
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        scaled = precision == "float16"
        self._scaler: Any = torch.amp.GradScaler(device.type, enabled=scaled)

    def step(self) -> torch.Tensor:
        """One step; its loss, still on the device."""
        self._training.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
            loss = self._training.loss()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._training.optimizer)
        self._scaler.update()
        return loss.detach()


def adam(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4)


def parameters_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
