"""Where it may run: GPUs of one kind, the links between them, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from economics.errors import Problem
from federation.affinity.planner.checks import (
    MEASURE,
    NOT_NEGATIVE,
    SHARE,
    count,
    refuse_any,
)

USABLE = 0.92  #: share of a GPU's memory that a plan may fill; the rest is context and fragments
EFFICIENCY = 0.5  #: share of peak FLOP/s that large training reaches (llm-analysis)
EVERY_COUNT = 128  #: GPU counts up to here are all looked at; a cheaper one is often odd
EXACT_BITS = 5  #: leading bits of a number of nodes that is looked at
GB = 1e9
GBIT = 1e9 / 8  # bytes/s
DEVICE_RULES = dict.fromkeys(("memory_gb", "peak_tflops", "intra_gbit_s", "inter_gbit_s"), MEASURE)
BELIEF_RULES = {"samples_per_s": MEASURE, "gpus": count(1e6)}
POOL_RULES = {
    "gpus": count(1e6),
    "gpus_per_node": count(1e4),
    "price": NOT_NEGATIVE,
    "efficiency": SHARE,
}


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU and its links. GB are 10⁹ bytes, Gbit 10⁹ bits."""

    memory_gb: float
    peak_tflops: float  #: at half precision
    intra_gbit_s: float  #: of one GPU, one way, to others of its node
    inter_gbit_s: float  #: of one GPU, one way, to other nodes

    def __post_init__(self) -> None:
        refuse_any(
            rule.problem(f"gpu.{name}", getattr(self, name)) for name, rule in DEVICE_RULES.items()
        )

    @property
    def usable(self) -> float:
        """Bytes that a plan may fill."""
        return USABLE * self.memory_gb * GB

    @property
    def intra(self) -> float:
        """Bytes/s within a node."""
        return self.intra_gbit_s * GBIT

    @property
    def inter(self) -> float:
        """Bytes/s between nodes."""
        return self.inter_gbit_s * GBIT


@dataclass(frozen=True, slots=True)
class BelievedSpeed:
    """What the market plans with for this job's class: measured, or blended with claims."""

    samples_per_s: float  #: of all these GPUs together
    gpus: int = 1

    def __post_init__(self) -> None:
        refuse_any(
            rule.problem(f"believed.{name}", getattr(self, name))
            for name, rule in BELIEF_RULES.items()
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """GPUs on offer at one price."""

    id: str
    device: Device
    gpus: int
    gpus_per_node: int
    price: float = 0.0  #: credits per GPU-hour
    efficiency: float = EFFICIENCY  #: share of the peak that is reached, 0 to 1
    believed: BelievedSpeed | None = None

    def __post_init__(self) -> None:
        refuse_any(rule.problem(name, getattr(self, name)) for name, rule in POOL_RULES.items())
        if not isinstance(self.id, str) or not self.id:
            refuse_any([Problem("id", f"must be a name, is {self.id!r:.60}")])

    def sizes(self) -> tuple[int, ...]:
        """GPU counts to look at: every one up to 128, then whole nodes, and the whole pool.

        Every number of nodes up to 32; beyond, 16 evenly spaced between powers of two.
        """
        small = range(1, min(self.gpus, EVERY_COUNT) + 1)
        most = self.gpus // self.gpus_per_node
        nodes = {
            node
            for power in range(max(most.bit_length() - EXACT_BITS, 0) + 1)
            for node in range(2**power, min(most, 2 ** (power + EXACT_BITS)) + 1, 2**power)
        }
        return tuple(sorted({*small, *(node * self.gpus_per_node for node in nodes), self.gpus}))
