"""Every way to split a job over so many GPUs, as arrays; and why the other ways are none.

Tensor parallel t is 1, 2, 4 or 8 and stays within a node, p stages divide the layers, d = G / (t p)
ranks divide the batch, and the micro-batch divides what is left of it. Stages 0 to 3 of ZeRO,
but only 0 and 1 with a pipeline. With t > 1 the sequence is split too wherever it divides: that
costs no more communication and less memory, so the other way is never better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.pool import Pool

TENSOR = (1, 2, 4, 8)
STAGES_OF_ZERO = 4
Whole = NDArray[np.int64]


class Recompute(StrEnum):
    """What of a forward pass is computed again in the backward pass instead of kept."""

    NONE = "none"
    SELECTIVE = "selective"  #: scores and context of the attention
    FULL = "full"  #: all but the input of each layer


WAYS = tuple(Recompute)


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows sorted by family: GPU count, tensor, pipeline, data and stage of ZeRO. (K,) each."""

    gpus: Whole
    tensor: Whole
    pipeline: Whole
    data: Whole
    zero: Whole
    micro_batch: Whole
    micro_batches: Whole
    recompute: Whole  #: index into WAYS
    sequence_parallel: NDArray[np.bool_]
    first: Whole  #: (F,) row where each family starts

    def __len__(self) -> int:
        return len(self.gpus)


@dataclass(frozen=True, slots=True)
class Layouts:
    """GPUs as tensor x pipeline x data. (M,) each."""

    gpus: Whole
    tensor: Whole
    pipeline: Whole
    data: Whole


def splits_of(model: ModelDescription, pool: Pool, sizes: Sequence[int]) -> Splits:
    """All splits over any of these GPU counts, but micro-batches whose activations alone are
    beyond the memory (the smallest is always there)."""
    layouts = _layouts(model, pool, sizes)
    batches = divisors(model.global_batch)  # (D,)
    least = 2.0 * model.seq * model.hidden * model.layers / layouts.pipeline  # bytes, (M,)
    room = np.maximum(pool.device.usable / least, 1.0)
    parts = layouts.data[:, None] * batches  # (M, D)
    possible = (model.global_batch % parts == 0) & (batches <= room[:, None])
    stages = np.arange(STAGES_OF_ZERO)  # (Z,)
    highest = np.where(layouts.data == 1, 0, np.where(layouts.pipeline > 1, 1, 3))
    allowed = possible[:, None, :] & (stages[:, None] <= highest[:, None, None])  # (M, Z, D)
    layout, zero, batch = (np.repeat(found, len(WAYS)) for found in np.nonzero(allowed))
    tensor, data, micro_batch = layouts.tensor[layout], layouts.data[layout], batches[batch]
    family = layout * STAGES_OF_ZERO + zero
    return Splits(
        gpus=layouts.gpus[layout],
        tensor=tensor,
        pipeline=layouts.pipeline[layout],
        data=data,
        zero=zero,
        micro_batch=micro_batch,
        micro_batches=model.global_batch // (data * micro_batch),
        recompute=np.tile(np.arange(len(WAYS)), len(layout) // len(WAYS)),
        sequence_parallel=(tensor > 1) & (model.seq % tensor == 0),
        first=np.flatnonzero(np.diff(family, prepend=-1)),
    )


def _layouts(model: ModelDescription, pool: Pool, sizes: Sequence[int]) -> Layouts:
    stages = divisors(model.layers)
    columns: list[Whole] = []
    for gpus in sizes:
        for tensor in TENSOR:
            if tensor_problem(model, pool, gpus, tensor) is None:
                groups = gpus // tensor
                pipeline = stages[groups % stages == 0]
                pipeline = pipeline[model.global_batch % (groups // pipeline) == 0]
                same = np.ones_like(pipeline)
                columns.append(np.array([same * gpus, same * tensor, pipeline, groups // pipeline]))
    found = np.concatenate([np.empty((4, 0), dtype=np.int64), *columns], axis=1)
    return Layouts(*found)


def tensor_problem(model: ModelDescription, pool: Pool, gpus: int, tensor: int) -> str | None:
    """Why a layer cannot be split over so many GPUs, or None."""
    if gpus % tensor:
        return f"{gpus} GPUs do not divide into groups of {tensor}"
    if model.heads % tensor:
        return f"{model.heads} heads do not divide by {tensor}"
    node = pool.gpus_per_node
    if tensor > node or (gpus > node and node % tensor):
        return f"a group of {tensor} GPUs would leave its node of {node}"
    return None


def divisors(number: int) -> Whole:
    """Divisors of a positive number, ascending. (D,)"""
    small = np.arange(1, int(number**0.5) + 1, dtype=np.int64)
    small = small[number % small == 0]
    return np.unique(np.concatenate([small, number // small]))


@dataclass(frozen=True, slots=True)
class Rejected:
    """Plans that were ruled out together, and why."""

    family: str
    why: str


def not_splits(model: ModelDescription, pool: Pool, gpus: int) -> list[Rejected]:
    """The families that no memory would help."""
    found = []
    stages = divisors(model.layers)
    stray = [int(p) for p in divisors(gpus) if model.layers % p]
    if stray:
        why = f"{model.layers} layers do not divide into so many stages"
        found.append(Rejected(f"pipeline {_listed(stray)}", why))
    for tensor in TENSOR:
        why_not = tensor_problem(model, pool, gpus, tensor)
        if why_not is not None:
            found.append(Rejected(f"tensor {tensor}", why_not))
            continue
        found += _not_layouts(model, gpus // tensor, tensor, stages)
    return found + _not_stages_of_zero(model, pool, gpus)


def _not_layouts(
    model: ModelDescription, groups: int, tensor: int, stages: Whole
) -> list[Rejected]:
    found = []
    odd = [int(p) for p in stages if groups % p]
    if odd:
        why = f"{groups} groups of {tensor} GPUs do not divide into so many stages"
        found.append(Rejected(f"tensor {tensor}, pipeline {_listed(odd)}", why))
    for pipeline in stages[groups % stages == 0]:
        data = groups // int(pipeline)
        if model.global_batch % data:
            why = f"a global batch of {model.global_batch} does not divide into {data} parts"
            found.append(Rejected(f"tensor {tensor}, pipeline {pipeline}, data {data}", why))
    return found


def _not_stages_of_zero(model: ModelDescription, pool: Pool, gpus: int) -> list[Rejected]:
    layouts = _layouts(model, pool, [gpus])
    found = []
    if (layouts.data == 1).any():
        why = "there is no other rank to share the states with"
        found.append(Rejected("data 1, ZeRO 1, 2, 3", why))
    if ((layouts.data > 1) & (layouts.pipeline > 1)).any():
        why = (
            "what is shared would have to be exchanged again for every micro-batch in the pipeline"
        )
        found.append(Rejected("pipeline above 1, ZeRO 2, 3", why))
    return found


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
