"""The two-dimensional Gittins index of jobs whose length is known only in distribution.

With S the total service of a job and a what it has attained, both in GPU-seconds, and one service
quantum D,

    G(a) = P(S - a <= D | S > a) / E[min(S - a, D) | S > a]

is the chance to finish within the next quantum over the service that quantum is expected to take:
the larger, the sooner the job should run. Over sorted samples s_1 .. s_n of total services, with
lo the number of them up to a and hi the number up to a + D,

    G(a) = (hi - lo) / ( sum over lo < i <= hi of (s_i - a)  +  D (n - hi) )

and G(a) = 0 when no sample exceeds a. The service still to come is s_i - a, not s_i: the latter
makes every job that has run look longer than it is.

Source: Gu and others, "Tiresias: a GPU cluster manager for distributed deep learning" (NSDI 2019),
after Gittins, "Bandit processes and dynamic allocation indices" (1979).
Shapes: J jobs, n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from economics.market import Array

REACHED = 1e-9  # relative; attained service this close to a step has reached it


@dataclass(frozen=True, slots=True)
class Experience:
    """What past jobs needed in total, ready to be looked up."""

    services: Array  # (n,) GPU-seconds, ascending
    below: Array  # (n + 1,) sum of the first services
    quantum: float  # GPU-seconds

    @classmethod
    def of(cls, samples: Sequence[float] | Array, quantum: float) -> Experience:
        """Sort the samples; raises ValueError for none, or for one or a quantum not positive."""
        services = np.sort(np.asarray(samples, dtype=float))
        if not services.size:
            raise ValueError("there are no total services to learn from")
        if not (np.isfinite(quantum) and quantum > 0):
            raise ValueError(f"a quantum of {quantum} GPU-seconds is not a positive number")
        if not (np.isfinite(services).all() and (services > 0).all()):
            raise ValueError("a total service is a positive number of GPU-seconds")
        return cls(services, np.append(0.0, np.cumsum(services)), float(quantum))

    def index(self, attained: Array) -> Array:
        """G of each attained service, (J,), per GPU-second."""
        low = np.searchsorted(self.services, attained, side="right")
        high = np.searchsorted(self.services, attained + self.quantum, side="right")
        finish = (high - low).astype(float)
        next_above = np.append(self.services, self.services[-1:])[low]
        least = (next_above - attained) * finish  # whatever the difference of sums rounds to
        served = np.maximum(self.below[high] - self.below[low] - attained * finish, least)
        expected = served + self.quantum * (self.services.size - high)
        index: Array = np.divide(finish, expected, out=np.zeros(finish.shape), where=finish > 0)
        return index

    def priority(self, attained: Array) -> Array:
        """The index as it stands while a job is served a quantum, (J,) per GPU-second.

        It is looked up at the last whole quantum, and is nothing past the largest sample.
        """
        steps = np.floor(attained / self.quantum * (1 + REACHED)) * self.quantum
        past = attained * (1 + REACHED) >= self.services.max(initial=0.0)
        priority: Array = np.where(past, 0.0, self.index(steps))
        return priority

    def until_change(self, attained: Array) -> Array:
        """GPU-seconds after which the priority of a job is another, (J,); inf = never."""
        whole = np.floor(attained / self.quantum * (1 + REACHED)) + 1
        last = self.services.max(initial=0.0)
        until = np.minimum(whole * self.quantum, last) - attained
        return np.where(attained * (1 + REACHED) >= last, np.inf, until)
