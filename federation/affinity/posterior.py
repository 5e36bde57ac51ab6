"""Posterior of the logarithm of a speed: what leases say, alone and with a claim.

With x the logarithms of the speeds that leases showed, c that of the claim, and sigma the spread
from lease to lease:

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
from statistics import NormalDist

from federation.affinity.believed import SHRINKAGE

NOISE = 0.1  #: s0: spread of log speed from lease to lease, before any was seen
NOISE_WEIGHT = 2.0  #: v0: observations that NOISE counts for
COMMON = 0.05  #: spread of log speed that leases of a pool share
CLAIM_SDS = 2.0  #: a claim this many deviations above the mean is not planned on
INTERVAL_SDS = NormalDist().inv_cdf(0.95)  #: each way: the interval holds 90 %
FURTHEST = 700.0  #: of a logarithm: its exponential is a number of 64 bits still
UNSEEN = math.hypot(NOISE / math.sqrt(SHRINKAGE), COMMON)  #: the same with no lease: n = 0


@dataclass(frozen=True, slots=True)
class Belief:
    """Posterior of the logarithm of a speed in samples/s."""

    mean_log: float
    sd_log: float  #: of the mean
    n: int  #: leases behind it
    noise_log: float  #: spread of the logarithm from lease to lease

    def speed(self, sds: float = 0.0) -> float:
        """Samples/s, so many deviations above the median; a finite number above 0, whatever the
        belief is."""
        return math.exp(max(-FURTHEST, min(FURTHEST, self.mean_log + sds * self.sd_log)))

    def exceeded_by(self, claim: float) -> bool:
        """True when a claim in samples/s lies above the mean by more than CLAIM_SDS deviations."""
        return math.log(claim) > self.mean_log + CLAIM_SDS * self.sd_log

    def confirmed_by(self, speed: float, claim: float) -> bool:
        """True when a lease of this speed reaches the claim, within one deviation of noise."""
        return math.log(speed) >= math.log(claim) - self.noise_log


def observed(*, measured: float | None, log_sd: float, leases: int) -> Belief | None:
    """What leases alone say: their geometric mean in samples/s and the spread of its logarithm."""
    if measured is None or not measured > 0 or leases == 0:
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
