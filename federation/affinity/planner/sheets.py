"""A pool's GPU for the planner: what its site says, and from data sheets what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.affinity.coldstart.devices import Device as Sheet
from federation.affinity.coldstart.devices import recognise
from federation.affinity.planner.checks import Rule
from federation.affinity.planner.pool import DEVICE_RULES, POOL_RULES, Device

NODE_RULE = POOL_RULES["gpus_per_node"]
SAID_RULES: dict[str, Rule] = {**DEVICE_RULES, "gpus_per_node": NODE_RULE}  #: what a site may say
INTER_GBIT_S = 12.5  #: of one GPU: a port of 100 Gbit/s that eight of them share
BOARD_LINK = 300.0  #: GB/s, both directions: from here on GPUs share a board of eight
ON_A_BOARD = 8
ON_A_BUS = 4
GBIT_IN_GB = 8.0


@dataclass(frozen=True, slots=True)
class Described:
    """A GPU, its links, and how many of them share a node."""

    device: Device
    gpus_per_node: int


def described(gpu: str, said: Mapping[str, float]) -> Described | str:
    """The GPUs of a pool: `gpu` is their kind in free text, `said` what the site says of them.

    A sentence when it says too little and no data sheet knows the kind. Data sheets give the sum of
    both directions of a link; half of it is one way. BadDescription for figures that cannot be.
    """
    sheet = recognise(gpu)
    figures = {**_from_sheet(sheet), "inter_gbit_s": INTER_GBIT_S, **said}
    lacking = [name for name in DEVICE_RULES if name not in figures]
    if lacking:
        return f"GPU {gpu!r} is in no data sheet here, and its site says no {', '.join(lacking)}"
    node = int(figures.get("gpus_per_node", _node(sheet)))
    return Described(Device(**{name: float(figures[name]) for name in DEVICE_RULES}), node)


def _from_sheet(sheet: Sheet | None) -> dict[str, float]:
    if sheet is None:
        return {}
    return {
        "memory_gb": sheet.memory,
        "peak_tflops": sheet.half,
        "intra_gbit_s": sheet.link / 2 * GBIT_IN_GB,
    }


def _node(sheet: Sheet | None) -> int:
    return ON_A_BOARD if sheet is not None and sheet.link >= BOARD_LINK else ON_A_BUS
