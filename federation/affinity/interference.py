"""What two jobs on one GPU lose to each other.

With r(a|b) the rate of a beside b over its rate alone,

    log r(a|b) = mean + sensitivity_a + pressure_b + meeting_ab + noise

Sensitivity and pressure are random effects, shrunk (a ridge), and shared by classes that are kin:
of one family, near in batch. The meeting of two families is a third effect: what exceeds the sum.
All variances are learnt (`coldstart.components`). The additive form is that of interference models
for shared clusters (Mars and others, Bubble-Up, MICRO 2011; Delimitrou and Kozyrakis, Paragon,
ASPLOS 2013). Admission looks at a lower bound, not at the mean. One model is of one kind of GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from federation.affinity.coldstart.components import Array, Effects, Kernel, learn
from federation.affinity.coldstart.kinship import Kind, near_size, same

FEWEST = 3  #: pairings below which nothing is told apart
CONFIDENCE = 0.95  #: of the bound that admission looks at
LEARNT_FROM = 800  #: pairings the variances are learnt from


@dataclass(frozen=True, slots=True)
class Pairing:
    """How fast `own` ran beside `other`, over its rate alone; a pair gives two of these."""

    own: Kind
    other: Kind
    rate: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(
                f"The rate of {self.own.family} beside {self.other.family} is {self.rate}: a rate "
                "is a positive, finite number. A pair that does not fit together has none."
            )


@dataclass(frozen=True, slots=True)
class Shared:
    """Predicted rate of one job beside another, over its rate alone; at most 1."""

    rate: float  #: median
    low: float  #: exceeded with the asked confidence
    n: int  #: pairings of either family that were seen


@dataclass(frozen=True, slots=True)
class Interference:
    """What was learnt of one kind of GPU."""

    effects: Effects[Pairing]

    def predict(self, own: Kind, other: Kind, *, confidence: float = CONFIDENCE) -> Shared | None:
        """The rate of one beside the other; None when neither family was ever seen sharing."""
        asked = Pairing(own, other, 1.0)
        seen = sum(_akin(asked, pairing) for pairing in self.effects.items)
        if seen == 0:
            return None
        mean, spread = self.effects.predict([asked])
        low = mean[0] - NormalDist().inv_cdf(confidence) * spread[0]
        return Shared(min(1.0, math.exp(mean[0])), min(1.0, math.exp(low)), seen)

    def rates(self, pairs: Sequence[tuple[Kind, Kind]]) -> tuple[Array, Array]:
        """Medians and lower bounds of many pairs at once, capped at 1: (m,) and (m,)."""
        means, spreads = self.effects.predict([Pairing(a, b, 1.0) for a, b in pairs])
        lows = means - NormalDist().inv_cdf(CONFIDENCE) * spreads
        return np.minimum(np.exp(means), 1.0), np.minimum(np.exp(lows), 1.0)

    def families(self) -> frozenset[str]:
        """Families that were seen sharing, on either side."""
        return frozenset(
            kind.family for pairing in self.effects.items for kind in (pairing.own, pairing.other)
        )

    def admits(self, guest: Kind, host: Kind, *, slowdown: float) -> bool:
        """True when the host keeps 1/slowdown of its rate beside the guest, by the lower bound.

        What nothing is known of is not admitted: the families of both must have been seen sharing.
        ValueError for a slowdown below 1, which nobody keeps, or none.
        """
        if not (math.isfinite(slowdown) and slowdown >= 1):
            raise ValueError(
                f"A slowdown of {slowdown} is none: it is at least 1, the rate alone over the rate "
                "beside a guest."
            )
        if not {guest.family, host.family} <= self.families():
            return False
        host_beside_guest = self.predict(host, guest)
        return host_beside_guest is not None and host_beside_guest.low >= 1 / slowdown


def study(pairings: Sequence[Pairing], *, kin: bool = True) -> Interference:
    """Learn from pairings seen on one kind of GPU; equal whatever their order.

    Without `kin`, sensitivity and pressure alone, each class for itself. ValueError for fewer
    than FEWEST pairings.
    """
    if len(pairings) < FEWEST:
        raise ValueError(
            f"{len(pairings)} pairings were measured on this GPU: at least {FEWEST} are needed."
        )
    ordered = sorted(pairings, key=_order)
    values = np.log([pairing.rate for pairing in ordered])
    sample = list(range(0, len(ordered), math.ceil(len(ordered) / LEARNT_FROM)))
    kernels = _OWN + _KIN if kin else _OWN
    pairs = [frozenset((pairing.own, pairing.other)) for pairing in ordered]
    return Interference(learn(kernels, ordered, values, groups=pairs, sample=sample))


def _akin(asked: Pairing, seen: Pairing) -> bool:
    return asked.own.family in (seen.own.family, seen.other.family) or asked.other.family in (
        seen.own.family,
        seen.other.family,
    )


def _order(pairing: Pairing) -> tuple[str, str, float]:
    return str(pairing.own), str(pairing.other), pairing.rate


def _sides(pairings: Sequence[Pairing]) -> tuple[list[Kind], list[Kind]]:
    return [pairing.own for pairing in pairings], [pairing.other for pairing in pairings]


def _sensitivity(own: Sequence[Pairing], other: Sequence[Pairing]) -> Array:
    return same(_sides(own)[0], _sides(other)[0])


def _pressure(own: Sequence[Pairing], other: Sequence[Pairing]) -> Array:
    return same(_sides(own)[1], _sides(other)[1])


def _kin_sensitivity(own: Sequence[Pairing], other: Sequence[Pairing]) -> Array:
    return near_size(_sides(own)[0], _sides(other)[0])


def _kin_pressure(own: Sequence[Pairing], other: Sequence[Pairing]) -> Array:
    return near_size(_sides(own)[1], _sides(other)[1])


def _meeting(own: Sequence[Pairing], other: Sequence[Pairing]) -> Array:
    return np.asarray(_kin_sensitivity(own, other) * _kin_pressure(own, other))


_OWN: tuple[Kernel[Pairing], ...] = (_sensitivity, _pressure)
_KIN: tuple[Kernel[Pairing], ...] = (_kin_sensitivity, _kin_pressure, _meeting)
