"""`federation.affinity.belief.planned` for whole columns: what is planned on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.affinity.belief import CLAIM_SDS, COMMON, NOISE, NOISE_WEIGHT
from federation.affinity.believed import SHRINKAGE

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What leases showed of each cell, all (n,); `leases` 0 = nothing, whatever the rest says."""

    speed: Array
    log_sd: Array
    leases: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Voices:
    """What priors say of each cell, both (n,); `log_mean` nan = nothing, whatever the rest says."""

    log_mean: Array
    log_sd: Array

    def of(self, rows: NDArray[np.int64]) -> Voices:
        """Those of some rows."""
        return Voices(self.log_mean[rows], self.log_sd[rows])


def planned_speeds(
    claim: Array,
    beliefs: Beliefs,
    cautions: Array,
    doubted: NDArray[np.bool_],
    voices: Voices | None = None,
) -> Array:
    """Samples/s of each cell, (n,); nan where nothing is known.

    `claim` (n,) is nan where nobody claims; `cautions` (n,) are deviations from the mean. `voices`
    speak only where leases do and nobody claims: None = there are none.
    """
    found = claim.copy()
    at = np.flatnonzero(beliefs.leases > 0)  # most cells of a large matrix were never measured
    if at.size:
        shown = Beliefs(beliefs.speed[at], beliefs.log_sd[at], beliefs.leases[at])
        own = None if voices is None else voices.of(at)
        found[at] = _measured(claim[at], shown, cautions[at], doubted[at], own)
    return found


def _measured(
    claim: Array,
    beliefs: Beliefs,
    cautions: Array,
    doubted: NDArray[np.bool_],
    voices: Voices | None,
) -> Array:
    many, mean = beliefs.leases.astype(float), np.log(beliefs.speed)
    seen = NOISE_WEIGHT + many - 1.0
    squares = NOISE_WEIGHT * NOISE**2 + (many - 1.0) * beliefs.log_sd**2  # as `observed`
    said = np.log(claim)  # nan without a claim
    gap, weight = mean - said, many / (SHRINKAGE + many)
    joint = np.sqrt((squares + SHRINKAGE * weight * gap**2) / (seen + 1.0))  # as `with_claim`
    centre = said + weight * gap
    deviation = np.hypot(joint / np.sqrt(SHRINKAGE + many), COMMON)
    aside = np.isnan(said) | doubted | (said > centre + CLAIM_SDS * deviation)
    if voices is not None:
        variance = squares / seen / many + COMMON**2
        alone = np.isnan(said) & ~np.isnan(voices.log_mean)
        mean = np.where(alone, _weighed(mean, variance, voices), mean)
    return np.exp(np.where(aside, mean, centre + cautions * deviation))


def _weighed(mean: Array, variance: Array, voices: Voices) -> Array:
    """Leases and prior by their precisions, as `coldstart.blend`; nan where there is no prior."""
    shown, prior = 1.0 / variance, voices.log_sd**-2.0
    return np.asarray((shown * mean + prior * voices.log_mean) / (shown + prior))
