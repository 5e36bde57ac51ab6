"""One measured step of a worker as a graph of operations: what the event model replays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from federation.affinity.samples import BadSamples


class Resource(StrEnum):
    """What an operation runs on."""

    DOWN = "down"  #: the server's link towards workers; sizes in bytes
    GPU = "gpu"  #: the worker's own; sizes in seconds
    UP = "up"  #: the link towards the server; bytes
    SERVER = "server"  #: the update; seconds


@dataclass(frozen=True, slots=True)
class Operation:
    """`after`: places, in the profile, of what must be done first."""

    resource: Resource
    size: float
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Operations in an order in which each comes after all it waits for."""

    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        if not self.operations:
            raise BadSamples(("a step needs at least one operation",))
        for place, operation in enumerate(self.operations):
            if not (math.isfinite(operation.size) and operation.size >= 0):
                raise BadSamples((f"operation {place}: size {operation.size:g} is not a size",))
            if any(not 0 <= before < place for before in operation.after):
                raise BadSamples((f"operation {place} waits for one that does not come before",))

    def followers(self) -> tuple[tuple[int, ...], ...]:
        """For each operation, those that wait for it."""
        found: list[list[int]] = [[] for _ in self.operations]
        for place, operation in enumerate(self.operations):
            for before in sorted(set(operation.after)):
                found[before].append(place)
        return tuple(tuple(places) for places in found)


def chain(down: float, gpu: float, server: float, up: float) -> StepProfile:
    """The coarse step: parameters down, compute, gradients up, update. Bytes and seconds."""
    return StepProfile(
        (
            Operation(Resource.DOWN, down),
            Operation(Resource.GPU, gpu, (0,)),
            Operation(Resource.UP, up, (1,)),
            Operation(Resource.SERVER, server, (2,)),
        )
    )


def layered(
    layer_bytes: Sequence[float],
    forward_s: Sequence[float],
    backward_s: Sequence[float],
    update_s: Sequence[float],
) -> StepProfile:
    """A step by layers (n each): a layer runs when its parameters are there, and sends its gradient
    while the layers before it are still computed."""
    operations: list[Operation] = [Operation(Resource.DOWN, size) for size in layer_bytes]
    layers = len(layer_bytes)
    for layer, seconds in enumerate(forward_s):
        before = (layer,) if layer == 0 else (layer, layers + layer - 1)
        operations.append(Operation(Resource.GPU, seconds, before))
    last = 2 * layers - 1
    for layer in reversed(range(layers)):
        operations.append(Operation(Resource.GPU, backward_s[layer], (last,)))
        last = len(operations) - 1
        operations.append(Operation(Resource.UP, layer_bytes[layer], (last,)))
        operations.append(Operation(Resource.SERVER, update_s[layer], (len(operations) - 1,)))
    return StepProfile(tuple(operations))
