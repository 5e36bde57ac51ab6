"""Throughput of asynchronous training with a parameter server, from a profile of two points.

A worker's step is a round of a closed network: compute (a delay Z, each worker has its GPU), the
parameters down the server's link (D = bytes / bandwidth), the gradients up the other way (as
many), and the server's update. Links and server are shared. One worker alone gives the sum of the
four; two workers together give how much of the rest is the server's: more queueing, more of it
shared. (Lin, Paolieri, Chou and Golubchik, A model-based approach to streamlining distributed
training for asynchronous SGD, MASCOTS 2018, describe a queueing model with such a profile; this
form is ours.)

The forecast is the exact mean of the network. Real stages vary less than exponential ones, so the
truth lies between it and the bound that no network passes: that is the band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from federation.affinity.mva import Network, bound, rounds_per_s
from federation.affinity.samples import BadSamples
from federation.affinity.throughput import Forecast

PROFILED = 2  #: workers in the larger of the two points
HALVINGS = 80
REPEATS = 0.05  #: by which two measurements of the same differ
BITS = 8.0
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured: steps per second of one worker, and of two together."""

    one: float  # steps/s
    two: float  # steps/s of both
    local_batch: float  # samples in a step
    parameter_bytes: float
    link_gbit_s: float  # of the server, each way


@dataclass(frozen=True, slots=True)
class ServerModel:
    """A calibrated network; stations are downlink, server, uplink."""

    network: Network
    local_batch: float

    def forecast(self, workers: int) -> Forecast:
        """Of `workers` workers; `step_s` is from one worker's step to its next."""
        rate = rounds_per_s(self.network, workers)[-1]
        most = bound(self.network, workers)
        beyond = workers > PROFILED
        return Forecast(
            step_s=workers / rate,
            samples_per_s=rate * self.local_batch,
            lower_s=workers / most,
            upper_s=workers / rate,
            extrapolated=beyond,
            why=_why(self.network, workers),
        )


def transfer_s(parameter_bytes: float, link_gbit_s: float) -> float:
    """Seconds of one copy of the parameters over the server's link."""
    return parameter_bytes * BITS / (link_gbit_s * GIGA)


def calibrate(profile: Profile) -> ServerModel:
    """Z and the server's time that give both measured points.

    Raises `BadSamples` when the points contradict the link or each other.
    """
    values = (profile.one, profile.two, profile.local_batch, profile.parameter_bytes)
    if not all(math.isfinite(value) and value > 0 for value in (*values, profile.link_gbit_s)):
        raise BadSamples(("a profile needs rates, batch, bytes and bandwidth above 0",))
    transfer = transfer_s(profile.parameter_bytes, profile.link_gbit_s)
    rest = 1.0 / profile.one - 2.0 * transfer
    if rest < 0:
        raise BadSamples(
            (
                f"one worker's step of {1.0 / profile.one:.3g} s is shorter than its two transfers "
                f"of {transfer:.3g} s: the link is faster, or the parameters fewer, than stated",
            )
        )
    if profile.two < _with(transfer, rest, rest)[PROFILED - 1] * (1.0 - 1e-6):
        raise BadSamples(
            (
                f"two workers at {profile.two:.3g} steps/s lose more than any one shared server "
                "explains: something else slows the second",
            )
        )
    if profile.two > PROFILED * profile.one * (1.0 + REPEATS):
        raise BadSamples(
            (
                f"two workers at {profile.two:.3g} steps/s are faster than twice the "
                f"{profile.one:.3g} of one worker alone: one of the two rates is wrong",
            )
        )
    server = _shared(transfer, rest, profile.two)
    return ServerModel(Network(rest - server, (transfer, server, transfer)), profile.local_batch)


def _shared(transfer: float, rest: float, two: float) -> float:
    """The server's part of `rest` at which two workers make `two` steps/s; 0 if none is needed."""
    low, high = 0.0, rest
    if _with(transfer, rest, 0.0)[PROFILED - 1] <= two:
        return 0.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if _with(transfer, rest, middle)[PROFILED - 1] > two:
            low = middle
        else:
            high = middle
    return high


def _with(transfer: float, rest: float, server: float) -> tuple[float, ...]:
    return rounds_per_s(Network(rest - server, (transfer, server, transfer)), PROFILED)


def _why(network: Network, workers: int) -> str:
    limit = ("the downlink", "the server's update", "the uplink")
    slowest = max(range(len(limit)), key=lambda station: network.demands_s[station])
    tight = f"{limit[slowest]} is full from {network.knee:.3g} workers"
    if workers > PROFILED:
        return f"extrapolated: {workers} workers where 1 to {PROFILED} were measured; {tight}"
    return f"profiled; {tight}"
