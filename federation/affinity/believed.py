"""What the market plans with: the declared speed, moved towards what was measured.

    believed = declared ** (1 - w) * measured ** w,     w = n / (n + SHRINKAGE)

with n the number of leases behind the measurement (geometric, because speeds err by factors). It is
the posterior mean of a log-normal ratio whose prior has the weight of SHRINKAGE observations.
Units: samples/s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHRINKAGE = 2.0  #: leases that the declaration counts for


@dataclass(frozen=True, slots=True)
class Believed:
    """One cell of the affinity matrix, with where it comes from."""

    samples_per_s: float
    declared: float | None
    measured: float | None
    leases: int
    source: str  #: declared, probed, measured, or blended


def believe(
    *, declared: float | None, measured: float | None, leases: int, source: str = "declared"
) -> Believed | None:
    """Blend the two; None when nothing is known."""
    if declared is None and (measured is None or leases == 0):
        return None
    if measured is None or leases == 0:
        assert declared is not None  # noqa: S101 - narrows the type after the test above
        return Believed(declared, declared, None, 0, source)
    if declared is None:
        return Believed(measured, None, measured, leases, "measured")
    weight = leases / (leases + SHRINKAGE)
    speed = math.exp((1 - weight) * math.log(declared) + weight * math.log(measured))
    return Believed(speed, declared, measured, leases, "blended")


def geometric_mean(speeds: list[float]) -> tuple[float, float]:
    """(mean, standard deviation of the logarithm) of positive speeds."""
    logs = [math.log(s) for s in speeds]
    mean = sum(logs) / len(logs)
    variance = sum((x - mean) ** 2 for x in logs) / max(len(logs) - 1, 1)
    return math.exp(mean), math.sqrt(variance)
