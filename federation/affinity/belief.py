"""What is known of a speed, and what of it is planned on: the one interface of the market.

A speed is taken as log-normal. Four things may be known of it: a claim, leases, a throughput model,
and a prior (kin, public results, operators, data sheets: `federation.affinity.coldstart`). A claim
is the prior of its leases (`federation.affinity.posterior`). A prior in the sense of `coldstart` is
shown and never planned on: where nobody claims, leases alone are planned on, and what they and the
prior say by their variances (`coldstart.blend`) is shown beside them.

Every answer has its source, the observations behind it, when it was known and an interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from statistics import NormalDist

from federation.affinity.believed import Believed
from federation.affinity.coldstart.blend import MEASURED, Prior, blend_known, measured
from federation.affinity.posterior import CLAIM_SDS as CLAIM_SDS
from federation.affinity.posterior import COMMON as COMMON
from federation.affinity.posterior import INTERVAL_SDS as INTERVAL_SDS
from federation.affinity.posterior import NOISE as NOISE
from federation.affinity.posterior import NOISE_WEIGHT as NOISE_WEIGHT
from federation.affinity.posterior import UNSEEN as UNSEEN
from federation.affinity.posterior import Belief as Belief
from federation.affinity.posterior import observed as observed
from federation.affinity.posterior import with_claim as with_claim

NEWCOMER = 0.2  #: quantile that a site without contracts is planned on with
SETTLED_IN = 20  #: contracts after which it is planned on with the mean
UNCONFIRMED = "claim_unconfirmed"
ENOUGH = 20  #: measured claims before their own spread stands for that of an unmeasured one


def claims_spread(log_ratios: Sequence[float]) -> float:
    """Deviation of the logarithm of a speed around a claim that nothing was measured of.

    `log_ratios`: logarithms of measured over claimed speed, one for each cell of the federation
    that has both. From ENOUGH of them their root mean square (around the claim, so that a habit of
    claiming too much widens it too), never less than COMMON; else UNSEEN.
    """
    if len(log_ratios) < ENOUGH:
        return UNSEEN
    return max(COMMON, math.sqrt(math.fsum(x * x for x in log_ratios) / len(log_ratios)))


def planned(
    *,
    declared: float | None,
    belief: Belief | None,
    contracts: int,
    source: str = "declared",
    unconfirmed: bool = False,
    known_at: datetime | None = None,
    prior: Prior | None = None,
    unseen: float = UNSEEN,
) -> Believed | None:
    """What the market plans with; None when nothing is known.

    `belief` is what leases alone say, `contracts` how many the site has settled with others, and
    `unconfirmed` that the claim was raised above the belief and waits for a probe. `known_at` is
    the time of the newest thing behind it: of the leases, else of the claim, else of the prior.
    A claim that nothing was measured of is planned on as it stands, `unseen` being the deviation
    of its logarithm: the contract, its bond and the alarms bear that risk. A speed that nobody
    claimed is planned on at the mean of its leases: there is no claim to doubt. No `prior` moves
    what is planned on; what one alone says is not priced on at all (`Believed.priced`).
    """
    if declared is None:
        return _unclaimed(belief, prior, known_at)
    if belief is None:
        alone = Belief(math.log(declared), unseen, 0, NOISE)
        return _told(declared, None, alone, declared, source, known_at)
    joint = with_claim(belief, declared)
    if unconfirmed or joint.exceeded_by(declared):
        return _told(declared, belief, belief, belief.speed(), UNCONFIRMED, known_at)
    speed = joint.speed(caution(contracts))
    return _told(declared, belief, joint, speed, "blended", known_at)


def _unclaimed(
    belief: Belief | None, prior: Prior | None, known_at: datetime | None
) -> Believed | None:
    """Leases as they are, and beside them what they and the prior say by their variances."""
    if belief is None:
        return None if prior is None else supposed(prior, known_at)
    voice = blend_known(prior, measured(belief))
    if prior is None or voice is None:
        return _told(None, belief, belief, belief.speed(), MEASURED, known_at)
    joint = Belief(voice.log_mean, voice.log_sd, belief.n, NOISE)
    shown = _told(None, belief, joint, belief.speed(), voice.source, known_at)
    return replace(shown, with_prior=joint.speed())


def supposed(prior: Prior, known_at: datetime | None) -> Believed:
    """What a prior alone says: shown, and not priced on."""
    alone = Belief(prior.log_mean, prior.log_sd, prior.n, NOISE)
    return _told(None, None, alone, alone.speed(), prior.source, known_at)


@lru_cache(maxsize=SETTLED_IN + 1)
def _caution(contracts: int) -> float:
    return NormalDist().inv_cdf(NEWCOMER + (0.5 - NEWCOMER) * contracts / SETTLED_IN)


def caution(contracts: int) -> float:
    """Deviations from the mean that a site is planned on with: the 20 % quantile for a newcomer,
    rising with its contracts to the mean after SETTLED_IN of them."""
    return _caution(contracts) if contracts < SETTLED_IN else 0.0


def _told(
    declared: float | None,
    belief: Belief | None,
    posterior: Belief,
    speed: float,
    source: str,
    known_at: datetime | None,
) -> Believed:
    shown = None if belief is None else belief.speed()
    low, high = posterior.speed(-INTERVAL_SDS), posterior.speed(INTERVAL_SDS)
    return Believed(speed, declared, shown, posterior.n, source, low, high, known_at)
