"""What a site says of the GPUs of a pool, for the broker's planner. All of it may be left out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from agents.errors import ConfigError
from agents.reading import a_positive, a_whole

MAX_PER_NODE = 10_000


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU and its links; None is left to the broker's data sheets."""

    memory_gb: float | None = None  #: 10⁹ bytes
    peak_tflops: float | None = None  #: at half precision
    intra_gbit_s: float | None = None  #: one way, to others of its node
    inter_gbit_s: float | None = None  #: one way, to other nodes
    gpus_per_node: int | None = None

    def said(self) -> dict[str, Any]:
        """All figures by name, None where nothing is said."""
        return {name: getattr(self, name) for name in KEYS}


UNSAID = Device()
KEYS = tuple(field.name for field in fields(Device))


def read_device(item: dict[str, Any], path: str) -> Device:
    """The keys of a pool that describe its GPUs; raises ConfigError with the path of a bad one."""
    figures: dict[str, Any] = {
        key: a_positive(item[key], f"{path}.{key}")
        for key in KEYS
        if key in item and key != "gpus_per_node"
    }
    if "gpus_per_node" in item:
        here = f"{path}.gpus_per_node"
        node = a_whole(item["gpus_per_node"], here, least=1)
        if node > MAX_PER_NODE:
            raise ConfigError(here, f"at most {MAX_PER_NODE} GPUs in one node")
        figures["gpus_per_node"] = node
    return Device(**figures)
