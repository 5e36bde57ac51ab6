"""The columns of the affinity matrix, each sorted by code, and how two of them are matched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.affinity.coldstart.blend import REACH, SURE_SDS
from federation.selectors.cell_codes import Codes

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stated:
    """What sites say; all (n,), sorted by code."""

    codes: Codes
    speed: Array
    probed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shown:
    """What leases showed; all (n,), sorted by code."""

    codes: Codes
    speed: Array
    log_sd: Array
    leases: Codes
    at: Array  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What models say; all (n,), sorted by code."""

    codes: Codes
    speed: Array
    low: Array
    high: Array
    extrapolated: NDArray[np.bool_]
    samples: Codes
    at: Array


@dataclass(frozen=True, slots=True)
class Guessed:
    """What priors say; all (n,), sorted by code."""

    codes: Codes
    log_mean: Array  # of samples/s of the gang
    log_sd: Array
    source: Codes  # place in `federation.affinity.believed.GUESSED`
    n: Codes
    at: Array

    def believable(self) -> Guessed:
        """Those that can be shown: no number that was ever stored may stop a reader."""
        reach = np.abs(self.log_mean) + SURE_SDS * np.minimum(self.log_sd, REACH)
        kept = (self.log_sd > 0) & (reach < REACH)  # what is no number is not below it
        if bool(kept.all()):
            return self
        means, spreads, at = self.log_mean[kept], self.log_sd[kept], self.at[kept]
        return Guessed(self.codes[kept], means, spreads, self.source[kept], self.n[kept], at)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells that are claimed, leased or forecast with what is planned on; all (n,).

    0 where a forecast is not priced on.
    """

    codes: Codes
    speed: Array


def joined(codes: Codes, more: Codes) -> Codes:
    """The codes that are in either, sorted as both are."""
    return np.sort(np.concatenate([codes, more[~among(codes, more)]]), kind="stable")


def among(codes: Codes, asked: Codes) -> NDArray[np.bool_]:
    """Which of those asked for are among the sorted codes, (n,)."""
    if not codes.size:
        return np.zeros(asked.size, dtype=bool)
    place = np.minimum(np.searchsorted(codes, asked), codes.size - 1)
    return np.asarray(codes[place] == asked)


def taken(codes: Codes, values: Array, asked: Codes) -> tuple[Array, NDArray[np.bool_]]:
    """The values of the codes asked for, and where there is one."""
    if not codes.size:
        return np.full(asked.size, np.nan), np.zeros(asked.size, dtype=bool)
    place = np.minimum(np.searchsorted(codes, asked), codes.size - 1)
    return values[place], codes[place] == asked
