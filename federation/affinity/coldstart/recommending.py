"""Where a network that never ran should run: cheapest by a deadline, fastest within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federation.affinity.coldstart.operators import Network, OperatorModel, Unpredictable

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Option:
    """One configuration, predicted."""

    device: str
    gpus: int
    seconds: float  #: of the whole run
    credits: float  #: of the whole run

    @property
    def per_hour(self) -> float:
        """Credits per hour of all its GPUs."""
        return self.credits / self.seconds * HOUR


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be computed."""

    network: Network
    samples: float  #: of all epochs
    batch: float  #: per GPU

    def __post_init__(self) -> None:
        for name, value in (("samples", self.samples), ("batch", self.batch)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"The {name} of {self.network.name} is {value}: a positive, finite number."
                )


class NothingFits(ValueError):
    """No configuration meets the limit; the message says by how much the nearest misses."""


def options(
    model: OperatorModel,
    run: Run,
    prices: Mapping[tuple[str, int], float],
    memory: Mapping[str, float] | None = None,
) -> list[Option]:
    """Every configuration that can be predicted and holds the network, in a fixed order.

    `prices` in credits per hour of the whole configuration, `memory` in GB per GPU of a device.
    NothingFits when none is left, with the reason of the last one refused.
    """
    found, refused = [], "no configuration has a price"
    for device, gpus in sorted(prices):
        held = (memory or {}).get(device, math.inf)
        if run.network.memory > held:
            refused = f"{run.network.memory:g} GB are needed and {device} has {held:g}"
            continue
        try:
            step = model.seconds(run.network, device, gpus)
        except Unpredictable as missing:
            refused = str(missing)
            continue
        seconds = math.ceil(run.samples / (run.batch * gpus)) * step
        found.append(Option(device, gpus, seconds, seconds / HOUR * prices[device, gpus]))
    if not found:
        raise NothingFits(f"No configuration can be predicted: {refused}")
    return found


def cheapest_by(offered: Sequence[Option], deadline: float) -> Option:
    """The cheapest that takes at most `deadline` seconds. NothingFits when none does."""
    if math.isnan(deadline):
        raise NothingFits("The deadline is no number: say how many seconds the run may take.")
    in_time = [option for option in offered if option.seconds <= deadline]
    if not in_time:
        nearest = min((option.seconds for option in offered), default=math.inf)
        raise NothingFits(
            f"No configuration ends within {deadline:.0f} s: the fastest takes {nearest:.0f} s."
        )
    return min(in_time, key=lambda one: (one.credits, one.seconds, one.device, one.gpus))


def fastest_within(
    offered: Sequence[Option], *, total: float = math.inf, per_hour: float = math.inf
) -> Option:
    """The fastest that costs at most `total` credits, and so many per hour. NothingFits when none
    does."""
    paid = [one for one in offered if one.credits <= total and one.per_hour <= per_hour]
    if not paid:
        least = min((one.credits for one in offered), default=math.inf)
        rate = min((one.per_hour for one in offered), default=math.inf)
        raise NothingFits(
            f"No configuration fits the budget: the least is {least:.2f} credits in all, "
            f"and {rate:.2f} an hour."
        )
    return min(paid, key=lambda one: (one.seconds, one.credits, one.device, one.gpus))
