"""What is known of a speed, and what of it is planned on: the one interface of the market.

The speed of a class on a pool is taken as log-normal. With x the logarithms of the speeds that
leases showed, c that of the claim, and sigma the spread from lease to lease:

    x_i ~ N(theta, sigma^2),   theta | sigma ~ N(c, sigma^2 / k0),   sigma^2 ~ Inv-chi^2(v0, s0^2)

the conjugate pair of a normal mean and variance. With n leases of mean m and variance s^2:

    mean of theta   = (k0 c + n m) / (k0 + n)                           the blend of `believe`
    variance        = S^2 / (k0 + n) + COMMON^2
    (v0 + n) S^2    = v0 s0^2 + (n - 1) s^2 + k0 n / (k0 + n) (m - c)^2

(Gelman and others, Bayesian Data Analysis, 3rd edition, section 3.3; the t distribution of theta
is taken as normal.) COMMON is what leases of one pool err by together (storage, data set, season),
which no number of leases removes. Where claim and leases disagree the spread is wide, so a
newcomer is planned on with caution; where they go on disagreeing the claim is left aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from statistics import NormalDist

from federation.affinity.believed import SHRINKAGE, Believed, believe

NOISE = 0.1  #: s0: spread of log speed from lease to lease, before any was seen
NOISE_WEIGHT = 2.0  #: v0: observations that NOISE counts for
COMMON = 0.05  #: spread of log speed that leases of a pool share
NEWCOMER = 0.2  #: quantile that a site without contracts is planned on with
SETTLED_IN = 20  #: contracts after which it is planned on with the mean
CLAIM_SDS = 2.0  #: a claim this many deviations above the mean is not planned on
INTERVAL_SDS = NormalDist().inv_cdf(0.95)  #: each way: the interval holds 90 %
UNCONFIRMED = "claim_unconfirmed"


@dataclass(frozen=True, slots=True)
class Belief:
    """Posterior of the logarithm of a speed in samples/s."""

    mean_log: float
    sd_log: float  #: of the mean
    n: int  #: leases behind it
    noise_log: float  #: spread of the logarithm from lease to lease

    def speed(self, sds: float = 0.0) -> float:
        """Samples/s, so many deviations above the median."""
        return math.exp(self.mean_log + sds * self.sd_log)

    def exceeded_by(self, claim: float) -> bool:
        """True when a claim in samples/s lies above the mean by more than CLAIM_SDS deviations."""
        return math.log(claim) > self.mean_log + CLAIM_SDS * self.sd_log

    def confirmed_by(self, speed: float, claim: float) -> bool:
        """True when a lease of this speed reaches the claim, within one deviation of noise."""
        return math.log(speed) >= math.log(claim) - self.noise_log


def observed(*, measured: float | None, log_sd: float, leases: int) -> Belief | None:
    """What leases alone say: their geometric mean in samples/s and the spread of its logarithm."""
    if measured is None or leases == 0:
        return None
    squares = NOISE_WEIGHT * NOISE**2 + (leases - 1) * log_sd**2
    noise = math.sqrt(squares / (NOISE_WEIGHT + leases - 1))
    return Belief(math.log(measured), math.hypot(noise / math.sqrt(leases), COMMON), leases, noise)


def with_claim(belief: Belief, claim: float) -> Belief:
    """The posterior when the claim in samples/s is the prior's mean."""
    n, gap = belief.n, belief.mean_log - math.log(claim)
    squares = belief.noise_log**2 * (NOISE_WEIGHT + n - 1)
    squares += SHRINKAGE * n / (SHRINKAGE + n) * gap**2
    noise = math.sqrt(squares / (NOISE_WEIGHT + n))
    mean = math.log(claim) + n / (SHRINKAGE + n) * gap
    return Belief(mean, math.hypot(noise / math.sqrt(SHRINKAGE + n), COMMON), n, noise)


def planned(
    *,
    declared: float | None,
    belief: Belief | None,
    contracts: int,
    source: str = "declared",
    unconfirmed: bool = False,
    measured_at: datetime | None = None,
) -> Believed | None:
    """What the market plans with; None when nothing is known.

    `belief` is what leases alone say, `contracts` how many the site has settled with others, and
    `unconfirmed` that the claim was raised above the belief and waits for a probe. A claim that
    nothing was measured of is planned on as it stands: the contract, its bond and the alarms bear
    that risk. A speed that nobody claimed is planned on at its mean: there is no claim to doubt.
    """
    if belief is None:
        return believe(declared=declared, measured=None, leases=0, source=source)
    if declared is None:
        return _told(None, belief, belief, belief.speed(), "measured", measured_at)
    joint = with_claim(belief, declared)
    if unconfirmed or joint.exceeded_by(declared):
        return _told(declared, belief, belief, belief.speed(), UNCONFIRMED, measured_at)
    speed = joint.speed(caution(contracts))
    return _told(declared, belief, joint, speed, "blended", measured_at)


@lru_cache(maxsize=SETTLED_IN + 1)
def _caution(contracts: int) -> float:
    return NormalDist().inv_cdf(NEWCOMER + (0.5 - NEWCOMER) * contracts / SETTLED_IN)


def caution(contracts: int) -> float:
    """Deviations from the mean that a site is planned on with: the 20 % quantile for a newcomer,
    rising with its contracts to the mean after SETTLED_IN of them."""
    return _caution(contracts) if contracts < SETTLED_IN else 0.0


def _told(
    declared: float | None,
    belief: Belief,
    posterior: Belief,
    speed: float,
    source: str,
    measured_at: datetime | None,
) -> Believed:
    low, high = posterior.speed(-INTERVAL_SDS), posterior.speed(INTERVAL_SDS)
    return Believed(speed, declared, belief.speed(), belief.n, source, low, high, measured_at)
