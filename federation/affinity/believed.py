"""One cell of the affinity matrix, and the mean that the market's belief starts from.

    mean = declared ** (1 - w) * measured ** w,     w = n / (n + SHRINKAGE)

with n the number of leases behind the measurement (geometric, because speeds err by factors). It is
the posterior mean of a log-normal ratio whose prior has the weight of SHRINKAGE observations;
`federation.affinity.belief` adds its spread and decides what is planned on. Units: samples/s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

SHRINKAGE = 2.0  #: leases that the declaration counts for
EXTRAPOLATED = "extrapolated"  #: source: a model, beyond what was measured
GUESSED = ("neighbours", "catalogue", "operators", "roofline")  #: sources that are priors


@dataclass(frozen=True, slots=True)
class Believed:
    """One cell of the affinity matrix, with where it comes from.

    Where leases and a prior speak and nobody claims, `samples_per_s` is what the leases alone say,
    while `with_prior`, `source`, `low` and `high` show what both say together: no prior moves what
    is planned on. So the interval need not hold `samples_per_s`.
    """

    samples_per_s: float  #: what the market plans with: of claims, leases and models alone
    declared: float | None
    measured: float | None
    leases: int  #: behind it; of a forecast measured steps, of a prior observations
    #: declared, probed, measured, blended, claim_unconfirmed, forecast, extrapolated, or whose word
    #: weighs most where nobody claims: neighbours, catalogue, operators, roofline
    source: str
    low: float | None = None  #: ends of the interval that holds the speed with 90 %
    high: float | None = None
    known_at: datetime | None = None  #: of the leases, else of the model, the claim, the prior
    with_prior: float | None = None  #: what leases and prior say together; shown, not planned on

    @property
    def priced(self) -> bool:
        """Whether the market prices on it: what a prior, or a model beyond its samples, says alone
        it shows and measures first."""
        if self.source in GUESSED:
            return self.measured is not None
        return self.source != EXTRAPOLATED

    def times(self, gpus: int) -> Believed:
        """The same for a gang of so many GPUs, taken as so many times as fast as one."""
        return Believed(
            self.samples_per_s * gpus,
            _times(self.declared, gpus),
            _times(self.measured, gpus),
            self.leases,
            self.source,
            _times(self.low, gpus),
            _times(self.high, gpus),
            self.known_at,
            _times(self.with_prior, gpus),
        )


def _times(value: float | None, gpus: int) -> float | None:
    return None if value is None else value * gpus


def believe(
    *, declared: float | None, measured: float | None, leases: int, source: str = "declared"
) -> Believed | None:
    """Blend the two; None when nothing is known."""
    if measured is None or leases == 0:
        return None if declared is None else Believed(declared, declared, None, 0, source)
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
