"""Finds a driver by the name that the configuration gives: our own, and those of other packages.

Another package adds a kind with an entry point in the group `hanse.drivers` that names a `Kind`.
The names below are taken: a package that is merely installed cannot put itself in their place.
A driver's module is imported only for the site that uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.clock import Clock
    from agents.config import Config, Pool
    from agents.drivers.base import Driver

GROUP = "hanse.drivers"
OWN = {
    "process": "agents.drivers.process:KIND",
    "fake": "agents.drivers.fake:KIND",
    "slurm": "agents.drivers.slurm.driver:KIND",
    "ray": "agents.drivers.ray.driver:KIND",
    "kubernetes": "agents.drivers.kubernetes.driver:KIND",
}


def nothing_more(item: dict[str, Any], folder: Path, pools: tuple[Pool, ...]) -> None:
    """For a kind that has no keys of its own."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an entry point names: how the driver is configured and how it is made."""

    #: configuration, folder of this agent's attempts, the site's name, clock
    make: Callable[[Config, Path, str, Clock], Driver]
    keys: str = ""  #: its own keys in `driver`, apart by spaces
    #: reads them strictly (relative paths start at the folder) for `DriverSettings.own`
    read: Callable[[dict[str, Any], Path, tuple[Pool, ...]], Any] = nothing_more
    #: its own settings -> where jobs' folders are kept by default; None: in the state folder
    work: Callable[[Any], Path] | None = None


def names() -> list[str]:
    """Kinds that can be asked for, our own first."""
    others = (point.name for point in metadata.entry_points(group=GROUP))
    return [*OWN, *sorted(set(others) - OWN.keys())]


def find(name: str) -> Kind | None:
    """The kind of this name, imported; None when there is none."""
    if name in OWN:
        found = EntryPoint(name, OWN[name], GROUP).load()
    else:
        points = metadata.entry_points(group=GROUP, name=name)
        found = next((point.load() for point in points), None)
    return found if isinstance(found, Kind) else None


def close(driver: object) -> None:
    """End the connections of a driver that keeps some; its jobs go on."""
    ending = getattr(driver, "close", None)
    if ending is not None:
        ending()
