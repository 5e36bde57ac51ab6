"""What the agent has last seen of a guard, and what follows for its fence and its end. Pure.

The guard's clock is `offset` behind the agent's. A pulse that reads `c` and is read at `a` was
written before `a`, so `a - c` is never less than the offset: a fence told as `fence - (a - c)`
never comes late, and an end told as `end + (a - c)` is never before it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from agents.drivers.ray.folder import Pulse

SLACK_S = 1.0  #: between two pulses
STALE_S = 30.0  #: a guard that was silent for so long is asked after


@dataclass(frozen=True, slots=True)
class Sight:
    """Times are the agent's boottime."""

    pulse: Pulse | None
    changed: float  #: when this pulse was first read
    monotonic: float = 0.0  #: CLOCK_MONOTONIC then
    asked: float = float("-inf")  #: when Ray was last asked about the job

    def offset(self, boot: str) -> float:
        """Seconds to add to the guard's clock, at least."""
        if self.pulse is None or self.pulse.boot == boot:
            return 0.0
        return self.changed - self.pulse.now

    def ahead_s(self, boot: str) -> float:
        """CLOCK_MONOTONIC of the guard's host minus ours; up to `SLACK_S` too much or too little.

        Too much is harmless: a line is stamped before it is read, whatever its clock.
        """
        if self.pulse is None or self.pulse.boot == boot:
            return 0.0
        return self.pulse.monotonic - self.monotonic + SLACK_S

    def silent(self, now: float) -> bool:
        return now - self.changed > STALE_S
