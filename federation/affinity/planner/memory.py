"""Bytes that a GPU must hold: weights, gradients, optimizer states and activations.

Sources. Model states: Megatron-LM's theoretical memory (18 bytes per parameter, 6 + 12/d when the
optimizer is distributed) for stages 0 and 1; DeepSpeed's memory page (4 + 16/N, and 18/N + four
times the largest layer) for stages 2 and 3. Activations: Korthikanti et al., "Reducing activation
recomputation in large transformer models", 2022.

Symbols: s sequence, b micro-batch, h hidden, a heads, t tensor parallel, N ranks that share the
states, L layers, p stages. Arguments may be numbers or arrays that broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.splits import WAYS, Recompute, Splits

Array = NDArray[np.float64]
PARTS = ("weights", "gradients", "optimizer", "activations")
#: Bytes per parameter by stage of ZeRO: held by every rank, and shared by all N of them.
WHOLE = {"weights": (2, 2, 2, 0), "gradients": (4, 4, 2, 0), "optimizer": (12, 0, 0, 0)}
SHARED = {"weights": (0, 0, 0, 2), "gradients": (0, 0, 4, 4), "optimizer": (0, 12, 12, 12)}
#: Stage 3 gathers a layer before it computes with it: bytes per parameter of the largest.
GATHERED = {"weights": (0, 0, 0, 2), "gradients": (0, 0, 0, 2), "optimizer": (0, 0, 0, 0)}


class Offload(StrEnum):
    """What lies in the host's memory instead."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    ALL = "all"  #: and the weights; stage 3 alone


def model_states(
    zero: ArrayLike, params: ArrayLike, ranks: ArrayLike, largest_layer: ArrayLike
) -> dict[str, Array]:
    """Bytes of weights, gradients and optimizer states on one GPU, by part."""
    stage = np.asarray(zero, dtype=np.intp)
    each, pieces = np.asarray(params, dtype=float), np.asarray(ranks, dtype=float)
    layer = np.asarray(largest_layer, dtype=float)
    return {
        part: each * (np.take(WHOLE[part], stage) + np.take(SHARED[part], stage) / pieces)
        + layer * np.take(GATHERED[part], stage)
        for part in WHOLE
    }


def offloaded_states(
    zero: int, params: ArrayLike, ranks: ArrayLike, largest_layer: ArrayLike, offload: Offload
) -> Array:
    """Bytes of model states on one GPU by DeepSpeed's page, with some in the host's memory.

    Stage 2 with the optimizer away keeps 2 per parameter, stage 3 keeps 2/N and four times the
    largest layer; with all away only the latter. ValueError for other stages.
    """
    if zero not in (2, 3) or (offload is Offload.ALL and zero != 3):
        raise ValueError(f"stage {zero} of ZeRO does not offload: {offload.value}")
    if offload is Offload.NONE:
        states = model_states(zero, params, ranks, largest_layer)
        return states["weights"] + states["gradients"] + states["optimizer"]
    gathered = 4.0 * np.asarray(largest_layer, dtype=float) * (zero == 3)
    if offload is Offload.ALL:
        return gathered
    pieces = np.asarray(ranks, dtype=float) if zero == 3 else 1.0
    return 2.0 * np.asarray(params, dtype=float) / pieces + gathered


def layer_activations(
    model: ModelDescription,
    micro_batch: ArrayLike,
    tensor: ArrayLike,
    sequence_parallel: ArrayLike,
) -> Mapping[Recompute, Array]:
    """Bytes that one layer keeps of one micro-batch, under each way of recomputing."""
    t = np.asarray(tensor, dtype=float)
    tokens = float(model.seq) * np.asarray(micro_batch, dtype=float)
    unit = tokens * model.hidden
    kept = unit * np.where(sequence_parallel, 34.0 / t, 10.0 + 24.0 / t)
    attention = 5.0 * model.heads * model.seq * tokens / t
    return {
        Recompute.NONE: kept + attention,
        Recompute.SELECTIVE: kept,
        Recompute.FULL: 2.0 * unit,
    }


def activations(model: ModelDescription, split: Splits) -> Array:
    """Bytes of activations on the GPU that holds most of them, (K,).

    The first stage keeps min(m, p) micro-batches; the last keeps one, and the logits. With one
    stage they are the same. Full recomputation also needs what one layer works on,
    without its attention's scores: kernels that are fused, and selective ones, keep none.
    """
    layers = model.layers / split.pipeline
    in_flight = np.minimum(split.micro_batches, split.pipeline)
    share = np.where(split.sequence_parallel, split.tensor, 1.0)
    tokens = float(model.seq) * split.micro_batch
    embedding = tokens * (8.0 + model.hidden) / share
    logits = 4.0 * tokens * (model.hidden + model.vocab) / share
    alone = split.pipeline == 1
    by_way = layer_activations(model, split.micro_batch, split.tensor, split.sequence_parallel)
    found = []
    for way in WAYS:
        layer = by_way[way]
        working = by_way[Recompute.SELECTIVE] if way is Recompute.FULL else 0.0
        first = in_flight * (layers * layer + embedding) + working + np.where(alone, logits, 0.0)
        last = np.where(alone, 0.0, layers * layer + working + logits)
        found.append(np.maximum(first, last))
    held: Array = np.choose(split.recompute, found)
    return held


def stage_params(model: ModelDescription, tensor: ArrayLike, pipeline: ArrayLike) -> Array:
    """Parameters on a GPU of the fullest stage: its layers, and an embedding. (K,)

    The first stage holds the embedding and the last a copy of it, so both are the fullest.
    """
    layers = model.layer_params * model.layers / np.asarray(pipeline, dtype=float)
    found: Array = (layers + model.embedding) / np.asarray(tensor, dtype=float)
    return found


def memory_by_part(model: ModelDescription, splits: Splits) -> dict[str, Array]:
    """Bytes on the fullest GPU of each split, by part, (K,) each."""
    held = stage_params(model, splits.tensor, splits.pipeline)
    largest = model.largest_layer / splits.tensor
    found = model_states(splits.zero, held, splits.data, largest)
    found["activations"] = activations(model, splits)
    return found
