"""Seconds of one optimizer step of each split, by part.

Operations: 2 per parameter and token forward and twice that backward, and 4 s² h of the attention;
so 72 B s L h² (1 + s / 6h + V / 12Lh) for a GPT, and 96 and 16 where all is computed twice
(Narayanan et al., "Efficient large-scale language model training on GPU clusters", 2021).

A stage takes its layers' operations, its all-reduces among tensor ranks and its sends. A step takes
m of the slowest stage (the last: it has the logits), p - 1 of the others while the pipeline fills
and drains, and what the exchange among data-parallel ranks takes longer than the computing beside
it: an exchange in each micro-batch runs beside that micro-batch, one at the end of the step beside
the last backward pass.

GPUs are numbered tensor ranks first, then data, then stages: tensor ranks share a node, and a
group that leaves its node moves at the speed between nodes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from federation.affinity.planner.memory import Array, stage_params
from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.pool import Pool
from federation.affinity.planner.splits import WAYS, Recompute, Splits, Whole

STEP_PARTS = ("compute", "tensor", "pipeline", "bubble", "data")
TERA = 1e12
HALF = 2.0  # bytes of a number at half precision
#: Bytes per parameter that a rank receives and sends of (d-1)/d, by stage of ZeRO: once in a step,
#: and once in every micro-batch. 0: all-reduce of gradients at full precision. 1: reduce-scatter of
#: those, all-gather of weights. 2: the latter at half precision, the former for each micro-batch.
#: 3: weights gathered twice and gradients scattered, for each micro-batch.
ONCE = (8.0, 6.0, 2.0, 0.0)
EACH = (0.0, 0.0, 2.0, 6.0)
BACKWARD = 2.0 / 3.0  #: share of a micro-batch's operations in its backward pass


def layer_operations(model: ModelDescription) -> dict[Recompute, float]:
    """Operations of one layer on one sample, forward and backward, by way of recomputing."""
    attention = 4.0 * float(model.seq) ** 2 * model.hidden
    forward = 2.0 * model.layer_params * model.seq + attention
    return {
        Recompute.NONE: 3.0 * forward,
        Recompute.SELECTIVE: 3.0 * forward + attention,
        Recompute.FULL: 4.0 * forward,
    }


def logit_operations(model: ModelDescription) -> float:
    """Operations of the output layer on one sample, forward and backward."""
    return 6.0 * model.seq * model.embedding


def step_operations(model: ModelDescription, recompute: Recompute) -> float:
    """Operations of one step on all GPUs together."""
    each = model.layers * layer_operations(model)[recompute] + logit_operations(model)
    return model.global_batch * each


def run_seconds(
    model: ModelDescription, recompute: Recompute, *, tokens: float, gpus: int, tflops: float
) -> float:
    """Seconds to train on so many tokens at what each GPU is known to reach, TFLOP/s."""
    steps = tokens / (float(model.global_batch) * model.seq)
    return step_operations(model, recompute) * steps / (gpus * tflops * TERA)


def step_by_part(model: ModelDescription, pool: Pool, splits: Splits) -> dict[str, Array]:
    """Seconds of one step, (K,) each; their sum is the step."""
    rate = pool.efficiency * pool.device.peak_tflops * TERA * splits.tensor  # 1/s of one group
    layers = model.layers / splits.pipeline
    by_way = [layer_operations(model)[way] for way in WAYS]
    stage = splits.micro_batch * layers * np.take(by_way, splits.recompute) / rate
    logits = splits.micro_batch * logit_operations(model) / rate
    reduces = _tensor_seconds(model, pool, splits) * layers
    sends = _send_seconds(model, pool, splits)
    return {
        "compute": splits.micro_batches * (stage + logits),
        "tensor": splits.micro_batches * reduces,
        "pipeline": splits.micro_batches * sends,
        "bubble": (splits.pipeline - 1) * (stage + reduces + sends),
        "data": _data_seconds(model, pool, splits, stage + logits),
    }


def _boundary(model: ModelDescription, splits: Splits) -> Array:
    """Bytes between two layers of one micro-batch, (K,)."""
    found: Array = HALF * float(model.seq) * model.hidden * splits.micro_batch.astype(np.float64)
    return found


def _tensor_seconds(model: ModelDescription, pool: Pool, splits: Splits) -> Array:
    """All-reduces of one layer: two forward, two backward, two when it is computed again. (K,)"""
    times = np.where(splits.recompute == WAYS.index(Recompute.FULL), 6.0, 4.0)
    moved = 2.0 * (splits.tensor - 1) / splits.tensor * _boundary(model, splits)
    found: Array = times * moved / pool.device.intra
    return found


def _send_seconds(model: ModelDescription, pool: Pool, splits: Splits) -> Array:
    """Activations on to the next stage and their gradients back. (K,)"""
    share = np.where(splits.sequence_parallel, splits.tensor, 1)
    speed = _speed(pool, splits.gpus > pool.gpus_per_node)
    found: Array = (splits.pipeline > 1) * 2.0 * _boundary(model, splits) / share / speed
    return found


def _data_seconds(model: ModelDescription, pool: Pool, splits: Splits, computing: Array) -> Array:
    """Gradients, and weights where they are shared, beyond the computing of a micro-batch. (K,)"""
    held = stage_params(model, splits.tensor, splits.pipeline)
    speed = _speed(pool, _leaves_node(pool, splits))
    unit = held * (splits.data - 1) / splits.data / speed
    each = np.maximum(np.take(EACH, splits.zero) * unit - computing, 0.0)
    once = np.maximum(np.take(ONCE, splits.zero) * unit - BACKWARD * computing, 0.0)
    found: Array = splits.micro_batches.astype(np.float64) * each + once
    return found


def _leaves_node(pool: Pool, splits: Splits) -> NDArray[np.bool_]:
    """Whether a data-parallel group is spread over nodes. (K,)"""
    block: Whole = splits.tensor * splits.data
    found: NDArray[np.bool_] = (splits.gpus > pool.gpus_per_node) & (pool.gpus_per_node % block > 0)
    return found


def _speed(pool: Pool, between_nodes: NDArray[np.bool_]) -> Array:
    return np.where(between_nodes, pool.device.inter, pool.device.intra)
