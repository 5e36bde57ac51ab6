"""Cells of the affinity matrix as values: what a model or a prior says of one."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from federation.affinity.belief import INTERVAL_SDS, NOISE, Belief, planned
from federation.affinity.believed import EXTRAPOLATED, Believed

FORECAST = "forecast"  #: of a model, inside what was measured
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Curve:
    """Forecasts of one class on one pool by GPUs, ascending."""

    sizes: list[int]
    said: list[Believed]

    def at(self, gpus: int) -> Believed:
        """A size that was not forecast by itself: between its neighbours, in logarithms of both.

        Priced on only between two that are.
        """
        place = bisect_left(self.sizes, gpus)
        if place == 0 or place == len(self.sizes):
            end = self.sizes[min(place, len(self.sizes) - 1)]
            said = self.said[min(place, len(self.sizes) - 1)]
            return replace(scaled(said, gpus / end), source=EXTRAPOLATED)
        least, most = self.sizes[place - 1], self.sizes[place]
        low, high = self.said[place - 1], self.said[place]
        share = math.log(gpus / least) / math.log(most / least)
        between = scaled(low, (high.samples_per_s / low.samples_per_s) ** share)
        inside = low.source == high.source == FORECAST
        return replace(between, source=FORECAST if inside else EXTRAPOLATED)


def forecast(
    speed: float, low: float, high: float, extrapolated: bool, samples: int, at: float
) -> Believed:
    """A model's word: planned on at its mean, for nobody claimed it."""
    belief = Belief(math.log(speed), math.log(high / low) / (2 * INTERVAL_SDS), samples, NOISE)
    found = planned(declared=None, belief=belief, contracts=0, known_at=moment(at))
    assert found is not None  # noqa: S101 - there is a belief
    source = EXTRAPOLATED if extrapolated else FORECAST
    return replace(found, samples_per_s=speed, measured=None, source=source)


def scaled(said: Believed, factor: float) -> Believed:
    """The same, so many times as fast."""
    low, high = said.low, said.high
    return replace(
        said,
        samples_per_s=said.samples_per_s * factor,
        declared=None,
        low=None if low is None else low * factor,
        high=None if high is None else high * factor,
        with_prior=None,
    )


def moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)
