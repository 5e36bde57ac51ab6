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


def planned_speeds(
    claim: Array,
    beliefs: Beliefs,
    cautions: Array,
    doubted: NDArray[np.bool_],
) -> Array:
    """Samples/s of each cell, (n,); nan where nothing is known.

    `claim` (n,) is nan where nobody claims; `cautions` (n,) are deviations from the mean. No prior
    has a say in it.
    """
    found = claim.copy()
    at = np.flatnonzero(beliefs.leases > 0)  # most cells of a large matrix were never measured
    if at.size:
        shown = Beliefs(beliefs.speed[at], beliefs.log_sd[at], beliefs.leases[at])
        found[at] = _measured(claim[at], shown, cautions[at], doubted[at])
    return found


def _measured(claim: Array, beliefs: Beliefs, cautions: Array, doubted: NDArray[np.bool_]) -> Array:
    many, mean = beliefs.leases.astype(float), np.log(beliefs.speed)
    seen = NOISE_WEIGHT + many - 1.0
    squares = NOISE_WEIGHT * NOISE**2 + (many - 1.0) * beliefs.log_sd**2  # as `observed`
    said = np.log(claim)  # nan without a claim
    gap, weight = mean - said, many / (SHRINKAGE + many)
    joint = np.sqrt((squares + SHRINKAGE * weight * gap**2) / (seen + 1.0))  # as `with_claim`
    centre = said + weight * gap
    deviation = np.hypot(joint / np.sqrt(SHRINKAGE + many), COMMON)
    aside = np.isnan(said) | doubted | (said > centre + CLAIM_SDS * deviation)
    return np.exp(np.where(aside, mean, centre + cautions * deviation))
