"""What is believed of a speed before and while it is measured: priors and their blend.

Every source says a log-normal speed. Independent ones are blended by their precisions (inverse
variances), which is Bayes' rule for normals. Where they disagree by more than their deviations
allow, the result is widened by the Birge ratio (R. T. Birge, Physical Review 40, 1932: the root of
chi squared over its degrees of freedom), so that two confident strangers do not make a certainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from federation.affinity.posterior import INTERVAL_SDS, NOISE, Belief

MEASURED = "measured"  #: source: leases of the very pair


@dataclass(frozen=True, slots=True)
class Prior:
    """A log-normal speed of one (class, pool, GPUs), and who says so."""

    log_mean: float  #: of the rate in the caller's unit, samples/s or steps/s
    log_sd: float  #: of a lease's rate around it
    source: str  #: "roofline", "catalogue", "neighbours", "operators", "measured"
    n: int  #: observations behind it
    extrapolated: bool = False  #: whether it leaves the sizes that its source was shown

    def __post_init__(self) -> None:
        if not (math.isfinite(self.log_mean) and math.isfinite(self.log_sd) and self.log_sd > 0):
            raise ValueError(
                f"A prior needs a finite mean and a positive spread, "
                f"not {self.log_mean} and {self.log_sd}."
            )

    @property
    def rate(self) -> float:
        """The median, in the unit of the rate."""
        return math.exp(self.log_mean)

    def interval(self) -> tuple[float, float]:
        """The rates that hold 90 % of what is believed."""
        reach = INTERVAL_SDS * self.log_sd
        return math.exp(self.log_mean - reach), math.exp(self.log_mean + reach)

    def belief(self) -> Belief:
        """The same for the market's interface, with the usual spread from lease to lease; only
        what was measured counts as leases."""
        leases = self.n if self.source == MEASURED else 0
        return Belief(self.log_mean, self.log_sd, leases, NOISE)


def measured(belief: Belief) -> Prior:
    """What leases of the pool itself say, as one voice of a blend."""
    return Prior(belief.mean_log, belief.sd_log, MEASURED, belief.n)


def blend(priors: Sequence[Prior]) -> Prior:
    """All voices by their precisions; source, n and mark are those of the heaviest.

    ValueError when there is no voice at all: nothing is known, and nothing is made up.
    """
    if not priors:
        raise ValueError("Nothing is known of this speed: no prior to blend.")
    precisions = [prior.log_sd**-2 for prior in priors]
    total = math.fsum(precisions)
    means = [prior.log_mean for prior in priors]
    mean = math.fsum(p * m for p, m in zip(precisions, means, strict=True)) / total
    squares = math.fsum(p * (m - mean) ** 2 for p, m in zip(precisions, means, strict=True))
    ratio = math.sqrt(squares / (len(priors) - 1)) if len(priors) > 1 else 1.0
    heaviest = min(priors, key=lambda prior: (prior.log_sd, prior.source, prior.n))
    widened = max(1.0, ratio) / math.sqrt(total)
    return Prior(mean, widened, heaviest.source, heaviest.n, heaviest.extrapolated)


def blend_known(*priors: Prior | None) -> Prior | None:
    """The blend of those that exist; None when none does."""
    known = [prior for prior in priors if prior is not None]
    return blend(known) if known else None
