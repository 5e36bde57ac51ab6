"""A plan: one split with its memory and its speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from federation.affinity.planner.pool import GB
from federation.affinity.planner.splits import Recompute, Rejected

DIGITS = 9  # decimals in documents, as everywhere in the formats


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the fullest GPU."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    usable: float  #: that a plan may fill

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one optimizer step, by part."""

    compute: float
    tensor: float  #: all-reduces within layers
    pipeline: float  #: sends between stages
    bubble: float  #: the pipeline fills and drains
    data: float  #: exchange of gradients and weights


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is split over the GPUs of a pool, and what that comes to."""

    gpus: int
    gpus_per_node: int
    tensor: int
    pipeline: int
    data: int
    zero: int
    recompute: Recompute
    sequence_parallel: bool
    micro_batch: int
    micro_batches: int  #: of one step, on each data-parallel rank
    memory: Memory
    step: Step
    step_s: float  #: all its parts
    samples_per_s: float
    speed_from: str  #: formula, or believed: scaled to the speed the market believes in

    @property
    def nodes(self) -> int:
        """Machines that it runs on."""
        return math.ceil(self.gpus / self.gpus_per_node)

    def document(self) -> dict[str, Any]:
        """The plan for a file or for the launched command: GB, seconds, samples/s."""
        parts = ("weights", "gradients", "optimizer", "activations", "total", "usable")
        shape = (
            *("gpus", "nodes", "tensor", "pipeline", "data", "zero"),
            *("sequence_parallel", "micro_batch", "micro_batches"),
        )
        steps = ("compute", "tensor", "pipeline", "bubble", "data")
        return {
            **{name: getattr(self, name) for name in shape},
            "recompute": self.recompute.value,
            "memory_gb": {part: round(getattr(self.memory, part) / GB, DIGITS) for part in parts},
            "step_time_s": round(self.step_s, DIGITS),
            "step_parts_s": {part: round(getattr(self.step, part), DIGITS) for part in steps},
            "samples_per_s": round(self.samples_per_s, DIGITS),
            "speed_from": self.speed_from,
        }


@dataclass(frozen=True, slots=True)
class Plans:
    """Every plan that fits, quickest first; and why the rest do not."""

    plans: tuple[Plan, ...]
    rejected: tuple[Rejected, ...]
    considered: int  #: splits that were weighed
    nothing: str | None  #: a sentence that names the tightest part, when no plan fits
