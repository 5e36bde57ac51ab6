"""Progress per second: throughput times how much each sample of a large batch still teaches.

With phi the gradient noise scale (samples), M0 the batch that the tenant chose and M the batch of a
step,

    efficiency = (phi + M0) / (phi + M),     phi = M0 variance / square,

1 at M0 and falling with M; `variance` and `square` are those of the gradient at M0. The learning
rate grows by gain = (variance + square) / (variance M0 / M + square); efficiency is gain M0 / M.
(Johnson and others, AdaScale SGD, 2020; Qiao and others, Pollux, OSDI 2021; McCandlish and others,
An Empirical Model of Large-Batch Training, 2018.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from federation.affinity.samples import BadSamples, Configuration
from federation.affinity.throughput import Forecast, ThroughputModel

SIZES = 50  #: batches that are tried, in geometric steps


@dataclass(frozen=True, slots=True)
class Noise:
    """Gradient noise at the batch that the tenant chose."""

    batch: float  # M0, samples
    variance: float  # of the gradient of a step of M0 samples
    square: float  # of the true gradient's norm

    def __post_init__(self) -> None:
        values = (self.batch, self.variance, self.square)
        if not all(math.isfinite(value) and value >= 0 for value in values) or self.batch == 0:
            raise BadSamples(
                ("gradient noise needs a batch above 0, and a variance and a square not below 0",)
            )

    def efficiency(self, batch: float) -> float:
        """Progress of one sample in a step of `batch` samples, 1 at M0."""
        return self.gain(batch) * self.batch / batch

    def gain(self, batch: float) -> float:
        """What the learning rate is multiplied by; progress of one step in steps of M0.

        Raises `BadSamples` where neither noise nor gradient was seen: nothing says it then.
        """
        if not (math.isfinite(batch) and batch > 0):
            raise BadSamples((f"a batch of {batch:g}: it must be above 0 and finite",))
        noise = self.variance + self.square
        if noise == 0:
            raise BadSamples(
                ("variance and square of the gradient are both 0: report gradients first",)
            )
        return noise / (self.variance * self.batch / batch + self.square)

    def at(self, batch: float) -> Noise:
        """The same gradient noise, seen from another first batch."""
        return Noise(batch, self.variance * self.batch / batch, self.square)

    def scale(self) -> float:
        """phi, in samples."""
        return math.inf if self.square == 0 else self.batch * self.variance / self.square


@dataclass(frozen=True, slots=True)
class Limits:
    """Batches that a job accepts: on one GPU at once, and of a whole step."""

    least_local: float
    most_local: float
    most_batch: float
    accumulates: bool = True


@dataclass(frozen=True, slots=True)
class Goodput:
    """The best batch and accumulation for some replicas."""

    configuration: Configuration
    forecast: Forecast
    efficiency: float
    goodput: float  # efficient samples/s: what the same progress needs at M0


def noise_of(replica_squares: Sequence[float], averaged_square: float, batch: float) -> Noise:
    """Noise from one step of n gradients that were averaged.

    `replica_squares`: squared norms of each replica's gradient; `averaged_square` that of their
    average; `batch` the samples of the whole step. With L the mean of the first and A the second:
    square = (n A - L)/(n - 1), variance of the average = (L - A)/(n - 1). Both are unbiased and
    may come out negative; negative ones count as 0. Raises `BadSamples` for fewer than two.
    """
    many = len(replica_squares)
    values = [*replica_squares, averaged_square, batch]
    if many < 2 or not all(math.isfinite(value) and value >= 0 for value in values) or batch <= 0:
        raise BadSamples(("noise needs at least two finite squared gradients and a batch",))
    mean = math.fsum(replica_squares) / many
    square = max((many * averaged_square - mean) / (many - 1), 0.0)
    return Noise(batch, max((mean - averaged_square) / (many - 1), 0.0), square)


def best(
    model: ThroughputModel, nodes: int, replicas: int, noise: Noise, limits: Limits
) -> Goodput:
    """The local batch and accumulation of greatest goodput on these nodes and replicas.

    Fifty steps of batches between max(M0, least_local K) and most_batch in geometric steps; each is
    split by the memory limit. Ties go to the smaller batch. Raises `BadSamples` when none fits.
    """
    tried = candidates(nodes, replicas, noise.batch, limits)
    forecasts = model.forecasts(tried)
    efficiency = [min(noise.efficiency(one.samples_per_step), 1.0) for one in tried]
    rates = [
        forecast.samples_per_s * share
        for forecast, share in zip(forecasts, efficiency, strict=True)
    ]
    place = int(np.argmax(rates))
    return Goodput(tried[place], forecasts[place], efficiency[place], rates[place])


def candidates(
    nodes: int, replicas: int, start_batch: float, limits: Limits
) -> list[Configuration]:
    """The batches that are tried, as configurations; local batches are whole numbers.

    One replica alone sees the noise of its gradient only between passes, so beyond M0 it takes two.
    """
    least = max(start_batch, limits.least_local * replicas)
    if least > limits.most_batch or limits.most_local < 1:
        raise BadSamples(
            (f"no batch of {replicas} replicas lies in {least:g} to {limits.most_batch:g}",)
        )
    found = set()
    for batch in np.geomspace(least, limits.most_batch, SIZES):
        passes = math.ceil(batch / replicas / limits.most_local - 1e-9)
        if replicas == 1 and batch > start_batch and limits.accumulates:
            passes = max(passes, 2)
        local = math.ceil(batch / replicas / passes - 1e-9)
        fits = limits.least_local <= local <= limits.most_local
        if fits and (passes == 1 or limits.accumulates):
            found.add(Configuration(nodes, replicas, local, passes - 1))
    if not found:
        raise BadSamples(
            (f"{replicas} replicas of at most {limits.most_local:g} samples hold no such batch",)
        )
    return sorted(found, key=lambda one: (one.samples_per_step, one.accumulation))


def speedup(
    model: ThroughputModel, nodes: int, replicas: int, noise: Noise, limits: Limits
) -> float:
    """Best goodput on these nodes and replicas over the best on one GPU."""
    alone = best(model, 1, 1, noise, limits)
    return best(model, nodes, replicas, noise, limits).goodput / alone.goodput
