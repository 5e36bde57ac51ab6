"""Exact mean value analysis of a closed network with one class and a delay station.

W customers go round: a delay Z without queueing, then stations k with one server each and service
demand D_k seconds. For w = 1 .. W, from Q_k(0) = 0:

    R_k(w) = D_k (1 + Q_k(w - 1)),   X(w) = w / (Z + sum_k R_k(w)),   Q_k(w) = X(w) R_k(w)

(Reiser and Lavenberg, Mean-Value Analysis of Closed Multichain Queuing Networks, 1980.) Exact for
exponential service or processor sharing. Whatever the distributions,

    X(W) <= min(W / (Z + sum_k D_k), 1 / max_k D_k).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from federation.affinity.samples import BadSamples


@dataclass(frozen=True, slots=True)
class Network:
    """Seconds that one customer needs on each round: Z, and D_k at each station."""

    delay_s: float
    demands_s: tuple[float, ...]

    def __post_init__(self) -> None:
        values = (self.delay_s, *self.demands_s)
        if not all(math.isfinite(value) and value >= 0 for value in values) or sum(values) <= 0:
            raise BadSamples(("times of a network must be finite, not negative and not all 0",))

    @property
    def round_s(self) -> float:
        """A round without any queue."""
        return self.delay_s + sum(self.demands_s)

    @property
    def knee(self) -> float:
        """Customers from which the slowest station is the limit; infinite without stations."""
        slowest = max(self.demands_s, default=0.0)
        return math.inf if slowest == 0 else self.round_s / slowest


def rounds_per_s(network: Network, most: int) -> tuple[float, ...]:
    """X(1), ..., X(most) in rounds of any customer per second."""
    if most < 1:
        raise BadSamples((f"{most} customers: at least 1 is needed",))
    queues = [0.0] * len(network.demands_s)
    rates = []
    for customers in range(1, most + 1):
        waits = _waits(network.demands_s, queues)
        rate = customers / (network.delay_s + sum(waits))
        queues = [rate * wait for wait in waits]
        rates.append(rate)
    return tuple(rates)


def bound(network: Network, customers: int) -> float:
    """The asymptotic bound on rounds per second."""
    slowest = max(network.demands_s, default=0.0)
    unqueued = customers / network.round_s
    return unqueued if slowest == 0 else min(unqueued, 1.0 / slowest)


def _waits(demands: Sequence[float], queues: Sequence[float]) -> list[float]:
    return [demand * (1.0 + queue) for demand, queue in zip(demands, queues, strict=True)]
