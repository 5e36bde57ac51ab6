"""Single-device jobs that can run on either of several device types, each at its own speed.

Shapes: J jobs · T device types. Units: seconds from the start of the trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array, Index

TOGETHER = 0.5  # chance that a job arrives at the moment of the one before


@dataclass(frozen=True, slots=True)
class HybridTrace:
    """Jobs in the order they arrive."""

    arrival: Array  # (J,) s
    seconds: Array  # (J, T) s on each type
    believed: Array  # (J, T) s the scheduler expects
    user: Index  # (J,)

    @property
    def jobs(self) -> int:
        return int(self.arrival.size)

    @property
    def users(self) -> int:
        return int(self.user.max(initial=-1)) + 1


def draw(jobs: int, *, seed: int, users: int = 10, gap_s: float = 2.2) -> HybridTrace:
    """A made-up trace in the shape of those AlloX was simulated on; `gap_s` between arrivals.

    Two device types and users in turn. Most jobs take some 200 s on the first type and far less on
    the second; some take a minute or so on either. The users differ in kind: half of the first
    user's jobs are of the second sort and his others gain least, while the last user's jobs are
    ten times as fast on the second type. Arrivals come in bursts. On average a job takes some 175 s
    on the first type and 45 s on the second. Beliefs are exact.
    """
    draws = np.random.default_rng(seed)
    user = np.arange(jobs) % users
    kind = 1.0 - user / max(users - 1, 1)  # from 1, gains little, to 0, gains most
    level = draws.random(jobs) < 0.5 * kind**2
    first = np.where(level, draws.uniform(41, 125, jobs), draws.normal(199, 21, jobs))
    gains = (18 + 55 * kind**1.5) * draws.gamma(4.0, 1 / 4.0, jobs)
    second = np.where(level, draws.gamma(5.0, 63 / 5.0, jobs), gains)
    seconds: Array = np.maximum(np.round(np.column_stack([first, second])), 4.0)
    alone = draws.random(jobs) >= TOGETHER
    gaps = np.where(alone, draws.exponential(gap_s / (1 - TOGETHER), jobs), 0.0)
    arrival: Array = np.cumsum(np.round(gaps)).astype(np.float64)
    return HybridTrace(arrival - arrival[:1], seconds, seconds, user)
