"""Regions and fringes of one round, computed by whatever workers are free.

`economics` takes something like `map` for these; here is the one that shares the calls out. What
travels is small: rents, or the choices of a fringe. A region's jobs are a file on the shelf, named
by its content, which reaches a worker once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from broker.solving.errand import Errand
from economics.clearing.tiers import fringes, regions
from economics.clearing.tiers.demand import Demand

REGION, FRINGE = "region", "fringe"  #: names of the parts


class Regions:
    """For `coordinate`: its `apply`, and its `kept`."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    @property
    def kept(self) -> Callable[[Demand], str]:
        """Puts a region's jobs on the shelf."""
        return regions.keeper(self._errand.shelf)

    def apply(
        self, function: Callable[[regions.Ask], regions.Answer], asks: list[regions.Ask], /
    ) -> list[regions.Answer]:
        """The answers of regions, in order. `function` is `respond`: its name travels."""
        names = [Path(str(kept)).name for kept, _ in asks]
        bodies = [
            json.dumps({"kept": name, "rents": rents}).encode()
            for name, (_, rents) in zip(names, asks, strict=True)
        ]
        found = self._errand.spread(REGION, bodies, names)
        return [(used, value) for used, value in map(json.loads, found)]


def region(body: bytes, shelf: Path) -> bytes:
    """One region's answer to posted rents."""
    asked = json.loads(body)
    path = shelf / Path(asked["kept"]).name
    return json.dumps(regions.respond((str(path), asked["rents"]))).encode()


class Fringes:
    """For `place_gangs_by_region`: its `apply`."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    def apply(
        self,
        function: Callable[[fringes.Fringe], fringes.Decision],
        asks: list[fringes.Fringe],
        /,
    ) -> list[fringes.Decision]:
        """The decisions of fringes, in order. `function` is `decide`: its name travels."""
        found = self._errand.spread(FRINGE, [json.dumps(asdict(ask)).encode() for ask in asks])
        return [(taken, proved) for taken, proved in map(json.loads, found)]


def fringe(body: bytes, shelf: Path) -> bytes:
    """The gangs that one programme serves."""
    return json.dumps(fringes.decide(fringes.Fringe(**json.loads(body)))).encode()
