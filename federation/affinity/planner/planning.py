"""Weigh every split of a job over so many GPUs of a pool.

A few hundred splits are weighed at once as arrays, so the best is found by looking at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.affinity.planner.checks import count, refuse_any
from federation.affinity.planner.memory import (
    PARTS,
    Array,
    Offload,
    memory_by_part,
    offloaded_states,
    stage_params,
)
from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.plan import Memory, Plan, Plans, Step
from federation.affinity.planner.pool import GB, USABLE, Pool
from federation.affinity.planner.splits import (
    WAYS,
    Rejected,
    Splits,
    not_splits,
    splits_of,
)
from federation.affinity.planner.step_time import STEP_PARTS, step_by_part

KEPT = 12  # digits of a step's time: sums in another order must tie
NAMES = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
}


@dataclass(frozen=True, slots=True)
class Weighed:
    """Splits with their figures, (K,) each."""

    splits: Splits
    memory: dict[str, Array]  #: bytes
    total: Array  #: bytes
    step: dict[str, Array]  #: seconds
    seconds: Array  #: of a step
    fits: NDArray[np.bool_]
    speed_from: str


def plans(model: ModelDescription, pool: Pool, gpus: int) -> Plans:
    """Every plan on exactly so many GPUs that fits in memory, quickest first.

    Raises BadDescription when the pool has not so many. Equal times are ranked by the larger
    micro-batch, then by less recomputing, ZeRO, tensor and pipeline.
    """
    refuse_any([count(pool.gpus).problem("gpus", gpus)])
    weighed = weigh(model, pool, [gpus])
    order = ranked(weighed)
    rejected = [*not_splits(model, pool, gpus), *_too_large(pool, weighed)]
    return Plans(
        plans=tuple(plan_at(model, pool, weighed, int(row)) for row in order),
        rejected=tuple(rejected),
        considered=len(weighed.splits),
        nothing=None if len(order) else nothing_fits(model, pool, weighed),
    )


def weigh(model: ModelDescription, pool: Pool, sizes: Sequence[int]) -> Weighed:
    """All splits over any of these GPU counts; times scaled to the believed speed, if any."""
    plain = _weigh(model, pool, sizes)
    scale = _scale(model, pool, sizes, plain)
    if scale is None:
        return plain
    return Weighed(
        plain.splits,
        plain.memory,
        plain.total,
        {part: seconds * scale for part, seconds in plain.step.items()},
        _rounded(plain.seconds * scale),
        plain.fits,
        "believed",
    )


def _weigh(model: ModelDescription, pool: Pool, sizes: Sequence[int]) -> Weighed:
    splits = splits_of(model, pool, sizes)
    memory = memory_by_part(model, splits)
    total = np.sum([memory[part] for part in PARTS], axis=0)
    step = step_by_part(model, pool, splits)
    seconds = _rounded(np.sum([step[part] for part in STEP_PARTS], axis=0))
    return Weighed(splits, memory, total, step, seconds, total <= pool.device.usable, "formula")


def _scale(
    model: ModelDescription, pool: Pool, sizes: Sequence[int], plain: Weighed
) -> float | None:
    """Seconds believed over seconds by formula, of the best plan at the size believed in.

    None without a belief, and where no plan fits at that size: then nothing can be compared.
    """
    if pool.believed is None:
        return None
    at = pool.believed.gpus
    there = plain if at in sizes else _weigh(model, pool, [at])
    times = there.seconds[there.fits & (there.splits.gpus == at)]
    if not len(times):
        return None
    return float(model.global_batch / pool.believed.samples_per_s / times.min())


def _rounded(seconds: Array) -> Array:
    """The same with so many digits, so that equal sums are equal numbers."""
    unit = 10.0 ** (np.floor(np.log10(seconds)) + 1 - KEPT)
    found: Array = np.round(seconds / unit) * unit
    return found


def ranked(weighed: Weighed) -> NDArray[np.int64]:
    """Rows that fit, by GPU count and then quickest first."""
    rows = np.flatnonzero(weighed.fits)
    splits = weighed.splits
    keys = (
        splits.pipeline[rows],
        splits.tensor[rows],
        splits.zero[rows],
        splits.recompute[rows],
        -splits.micro_batch[rows],
        weighed.seconds[rows],
        splits.gpus[rows],
    )
    return rows[np.lexsort(keys)]


def plan_at(model: ModelDescription, pool: Pool, weighed: Weighed, row: int) -> Plan:
    """One row as a plan."""
    splits = weighed.splits
    return Plan(
        gpus=int(splits.gpus[row]),
        gpus_per_node=pool.gpus_per_node,
        tensor=int(splits.tensor[row]),
        pipeline=int(splits.pipeline[row]),
        data=int(splits.data[row]),
        zero=int(splits.zero[row]),
        recompute=WAYS[splits.recompute[row]],
        sequence_parallel=bool(splits.sequence_parallel[row]),
        micro_batch=int(splits.micro_batch[row]),
        micro_batches=int(splits.micro_batches[row]),
        memory=Memory(
            **{part: float(weighed.memory[part][row]) for part in PARTS},
            usable=pool.device.usable,
        ),
        step=Step(**{part: float(weighed.step[part][row]) for part in STEP_PARTS}),
        step_s=float(weighed.seconds[row]),
        samples_per_s=model.global_batch / float(weighed.seconds[row]),
        speed_from=weighed.speed_from,
    )


def _too_large(pool: Pool, weighed: Weighed) -> list[Rejected]:
    """The families that do not fit even in their smallest plan."""
    first = weighed.splits.first
    if not len(first):
        return []
    out = ~np.logical_or.reduceat(weighed.fits, first)  # (F,)
    ends = np.append(first[1:], len(weighed.splits))
    found = []
    for start, end in zip(first[out], ends[out], strict=True):
        row = int(start + np.argmin(weighed.total[start:end]))
        found.append(Rejected(_family(weighed, row), _need(pool, weighed, row)))
    return found


def _family(weighed: Weighed, row: int) -> str:
    splits = weighed.splits
    shape = ("tensor", "pipeline", "data")
    named = ", ".join(f"{name} {getattr(splits, name)[row]}" for name in shape)
    return f"{named}, ZeRO {splits.zero[row]}"


def _need(pool: Pool, weighed: Weighed, row: int) -> str:
    """What the row needs, and of what most."""
    part = max(PARTS, key=lambda name: float(weighed.memory[name][row]))
    way = WAYS[weighed.splits.recompute[row]].value
    return (
        f"needs at least {weighed.total[row] / GB:.2f} GB of the {pool.device.usable / GB:.2f} GB"
        f" usable on a GPU (micro-batch {weighed.splits.micro_batch[row]}, recompute {way});"
        f" the tightest part is {NAMES[part]}, {weighed.memory[part][row] / GB:.2f} GB"
    )


def nothing_fits(model: ModelDescription, pool: Pool, weighed: Weighed) -> str:
    """Why there is no plan, in a sentence that names the tightest part."""
    where = f"on {pool.id}"
    if not len(weighed.splits):
        why = f"a global batch of {model.global_batch} and {model.layers} layers"
        return f"no plan {where}: {why} cannot be divided over so many GPUs"
    row = int(np.argmin(weighed.total))
    gpus = int(weighed.splits.gpus[row])
    room = f"{USABLE:.0%} of {pool.device.memory_gb:g} GB"
    return (
        f"no plan {where} fits in {room}: the smallest, on {gpus} GPUs ({_family(weighed, row)}),"
        f" {_need(pool, weighed, row)}{_with_host(model, pool, weighed)}"
    )


def _with_host(model: ModelDescription, pool: Pool, weighed: Weighed) -> str:
    """What the host's memory would change; such plans are not made, for a host is not described."""
    splits, least = weighed.splits, np.inf
    held = stage_params(model, splits.tensor, splits.pipeline)
    largest = model.largest_layer / splits.tensor
    for zero in (2, 3):
        states = offloaded_states(zero, held, splits.data, largest, Offload.OPTIMIZER)
        total = states + weighed.memory["activations"]
        least = min(least, float(np.min(total[splits.zero == zero], initial=np.inf)))
    if least > pool.device.usable:
        return ""
    return f"; with optimizer states in the host's memory {least / GB:.2f} GB would do"
