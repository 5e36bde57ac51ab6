"""When a site's figures should be looked at: rules over its settled contracts, oldest first.

A ratio is measured over claimed speed; its logarithm is 0 for a site that is as fast as it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from federation.affinity.belief import COMMON, NOISE

REFERENCE = 0.5  #: deviations that a shift must exceed before it adds up
THRESHOLD = 5.0  #: deviations at which drift is told
CAP = 2 * THRESHOLD  #: so that a site that has mended is clear after ten contracts as claimed
LASTING = 8.0  #: deviations at which old leases are forgotten: an alarm may err more often
LARGEST = 5.0  #: of them, what one lease counts for at most: a shift needs two at least
SLOW = 0.9  #: a contract below this ratio is slow
IN_A_ROW = 10  #: slow contracts
OTHERS = 3  #: pools of other owners before a class's own season is taken out
LEAST = 5  #: leases at another speed before those of before are forgotten
OWNERS = 2  #: that they are of: nobody's jobs alone undo what those of others showed
FAR = 3.0  #: deviations from the median that a lease counts for at most, once several tenants ran
FORGIVEN = 2  #: recent leases of a pool that may fail to start and say nothing
SLACK = 2.0  #: how many times faster than anything seen a report may be before it is a forgery


@dataclass(frozen=True, slots=True)
class Drift:
    """A lasting shift: the larger of two sums of deviations, and which way it points."""

    sums: float
    faster: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """Whose job a lease ran."""

    owner: str  #: who stands behind its tenant
    free: bool = False  #: a probe on the site's own account


def deviations(logs: Sequence[float], control: Sequence[float] = ()) -> list[float]:
    """Logarithms of ratios in units of their own spread.

    `control` holds what the same class showed at pools of other owners: its median is taken out
    when there are OTHERS of them, for a slow data set slows everybody. The spread comes from
    successive differences, which a shift does not widen.
    """
    season = median(control) if len(control) >= OTHERS else 0.0
    unit = _unit(logs)
    return [(value - season) / unit for value in logs]


def _unit(logs: Sequence[float]) -> float:
    """The logarithms' own spread, from successive differences."""
    steps = [abs(b - a) for a, b in pairwise(logs)]
    # of a normal difference the median is 0.6745 times its deviation, which is sqrt(2) sigma
    spread = median(steps) / (0.6745 * math.sqrt(2)) if len(steps) >= OTHERS else NOISE
    return max(spread, COMMON)


def shifted_from(logs: Sequence[float], witnesses: Sequence[Witness]) -> int | None:
    """Place of the first lease that ran at the speed of today; None when nothing has shifted.

    `logs`: logarithms of the speeds of a cell's leases, oldest first; `witnesses`: one for each.
    Page's sum of the deviations
    of each lease from the mean of those before it, which needs no speed known beforehand (Hawkins,
    Self-starting cusum charts for location and scale, The Statistician 36, 1987). One lease alone
    shifts nothing, LARGEST being what it counts for. The shift began where two means fit best. A
    shift that too few speak for (`_lasts`) is none: as long as it may grow nothing is forgotten,
    and once it is over it is passed over.
    """
    left, shift = list(range(len(logs))), None
    unit = _unit(logs)
    while (found := _first_shift([logs[at] for at in left], unit)) is not None:
        before, since = left[:found], left[found:]
        over = _first_shift([logs[at] for at in since], unit)
        if _lasts(logs, witnesses, before, since[:over]):
            left, shift = since, since[0]
        elif over is None:
            return shift
        else:
            left = before + since[over:]
    return shift


def _lasts(
    logs: Sequence[float], witnesses: Sequence[Witness], before: list[int], since: list[int]
) -> bool:
    """Whether enough leases of enough owners ran at the new speed.

    LEAST leases of OWNERS, or fewer with a probe on the site's account among them. Where one owner
    alone ever ran, such a probe will do: nobody else's measurements are at stake. Leases nearer to
    the old speed than to the new say nothing for it.
    """
    old = math.fsum(logs[at] for at in before) / len(before)
    new = median(logs[at] for at in since)
    there = [witnesses[at] for at in since if abs(logs[at] - new) < abs(logs[at] - old)]
    owners, probed = {one.owner for one in there}, any(one.free for one in there)
    alone = {witnesses[at].owner for at in before} <= owners
    return (len(there) >= LEAST or probed) and (len(owners) >= OWNERS or (probed and alone))


def reined_in(logs: Sequence[float]) -> list[float]:
    """Logarithms of speeds, none further than FAR of their own spread from their median.

    Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964):
    one step of it, so that a few jobs that are slow on purpose move a cell's mean a little.
    """
    middle, most = median(logs), FAR * _unit(logs)
    return [max(middle - most, min(middle + most, value)) for value in logs]


def _first_shift(logs: Sequence[float], unit: float) -> int | None:
    up = down = total = 0.0
    for at, value in enumerate(logs):
        if at:
            step = (value - total / at) / (unit * math.sqrt(1.0 + 1.0 / at))
            step = max(-LARGEST, min(LARGEST, step))
            up, down = max(0.0, up + step - REFERENCE), max(0.0, down - step - REFERENCE)
            if max(up, down) > LASTING:
                return _parted(logs[: at + 1])
        total += value
    return None


def _parted(logs: Sequence[float]) -> int:
    """Where two means fit the logarithms best: the place of the first of the second."""

    def kept(at: int) -> float:  # the more is told by two means, the less is left
        return math.fsum(logs[:at]) ** 2 / at + math.fsum(logs[at:]) ** 2 / (len(logs) - at)

    return max(range(1, len(logs)), key=kept)


def cusum(steps: Sequence[float]) -> Drift | None:
    """Page's two-sided cumulative sum of standardised deviations; None below THRESHOLD.

    Page, Continuous inspection schemes, Biometrika 41 (1954).
    """
    up = down = 0.0
    for step in steps:
        up = min(CAP, max(0.0, up + step - REFERENCE))
        down = min(CAP, max(0.0, down - step - REFERENCE))
    if max(up, down) <= THRESHOLD:
        return None
    return Drift(max(up, down), faster=up > down)


def slow_in_a_row(logs: Sequence[float]) -> bool:
    """True when the newest IN_A_ROW contracts all lie below SLOW."""
    newest = logs[-IN_A_ROW:]
    return len(newest) == IN_A_ROW and max(newest) < math.log(SLOW)


def non_start_share(*, leases: int, non_starts: int) -> float:
    """Part of a pool's recent leases that never started; the first FORGIVEN say nothing."""
    return non_starts / leases if non_starts > FORGIVEN and leases else 0.0


def trimmed(*, gpus: int, share: float, busy: int) -> int:
    """GPUs of an offer that are planned on: without the share that never starts.

    Never fewer than are busy, and one at least, for otherwise a site that has mended could not
    show it.
    """
    return min(gpus, max(math.floor(gpus * (1.0 - share)), busy, 1))


def forged(*, samples: int, gpu_seconds: float, fastest: float) -> bool:
    """True when a report says more than the hardware can do.

    `fastest` is the highest speed known of the class on that kind of GPU, in samples/s on one GPU.
    """
    return samples > fastest * gpu_seconds * SLACK
