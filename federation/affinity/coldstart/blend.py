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
SURE_SDS = 4.0  #: deviations either side of a mean that a rate must be a sensible number at
REACH = 60.0  #: furthest of a logarithm that is one: a factor of 10^26 either way


def believable(log_mean: float, log_sd: float) -> bool:
    """Whether a log-normal rate is one that can be shown and reckoned with at all."""
    return log_sd > 0 and abs(log_mean) + SURE_SDS * log_sd < REACH


@dataclass(frozen=True, slots=True)
class Prior:
    """A log-normal speed of one (class, pool, GPUs), and who says so."""

    log_mean: float  #: of the rate in the caller's unit, samples/s or steps/s
    log_sd: float  #: of a lease's rate around it
    source: str  #: "roofline", "catalogue", "neighbours", "operators", "measured"
    n: int  #: observations behind it
    extrapolated: bool = False  #: whether it leaves the sizes that its source was shown

    def __post_init__(self) -> None:
        if not believable(self.log_mean, self.log_sd):
            raise ValueError(
                f"A prior needs a finite mean and a positive spread, {SURE_SDS:g} of it within "
                f"{REACH:g} of 0, not {self.log_mean} and {self.log_sd}."
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


def prior_or_none(
    log_mean: float, log_sd: float, source: str, n: int, *, extrapolated: bool = False
) -> Prior | None:
    """A prior; None where it is not believable, so that one strange input silences itself alone."""
    if not believable(log_mean, log_sd):
        return None
    return Prior(log_mean, log_sd, source, n, extrapolated)


def measured(belief: Belief) -> Prior | None:
    """What leases of the pool itself say, as one voice of a blend."""
    return prior_or_none(belief.mean_log, belief.sd_log, MEASURED, belief.n)


def blend(priors: Sequence[Prior]) -> Prior:
    """All voices by their precisions; source, n and mark are those of the heaviest.

    ValueError when there is no voice at all (nothing is known, and nothing is made up), and when
    they disagree so far that no believable band holds them.
    """
    if not priors:
        raise ValueError("Nothing is known of this speed: no prior to blend.")
    return Prior(*_blended(priors))


def blend_known(*priors: Prior | None) -> Prior | None:
    """The blend of those that exist; None when none does, or their blend is not believable."""
    known = [prior for prior in priors if prior is not None]
    if not known:
        return None
    mean, spread, source, n, extrapolated = _blended(known)
    return prior_or_none(mean, spread, source, n, extrapolated=extrapolated)


def _blended(priors: Sequence[Prior]) -> tuple[float, float, str, int, bool]:
    """Mean, spread, source, n and mark of the blend."""
    precisions = [prior.log_sd**-2 for prior in priors]
    total = math.fsum(precisions)
    means = [prior.log_mean for prior in priors]
    mean = math.fsum(p * m for p, m in zip(precisions, means, strict=True)) / total
    squares = math.fsum(p * (m - mean) ** 2 for p, m in zip(precisions, means, strict=True))
    ratio = math.sqrt(squares / (len(priors) - 1)) if len(priors) > 1 else 1.0
    heaviest = min(priors, key=lambda prior: (prior.log_sd, prior.source, prior.n))
    widened = max(1.0, ratio) / math.sqrt(total)
    return mean, widened, heaviest.source, heaviest.n, heaviest.extrapolated
