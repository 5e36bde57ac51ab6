"""How often a site looks at its jobs and tells of them: many cost no more of a core than some do.

Up to AT_ONCE running attempts are looked at in every tick. With more the looks go round, those that
waited longest first; and beyond TOLD_TOGETHER the reports of each come further apart. Fences do not
wait for a look, and attempts that are being stopped are looked at always: somebody wants their
GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable

from agents.attempt import Attempt
from agents.protocol import AttemptState

AT_ONCE = 25  #: attempts looked at in one tick
LOOKS_PER_S = 50.0
TOLD_TOGETHER = 100  #: attempts up to which each is told of as often as configured
NEVER = float("-inf")
STEADY_S = 60.0  #: progress is told at least this often, of however many attempts


class Rounds:
    """Whose turn it is to be looked at."""

    def __init__(self) -> None:
        self._looked: dict[str, float] = {}  # boottime of the last look
        self._last: float | None = None

    def due(self, attempts: Iterable[Attempt], now: float) -> list[Attempt]:
        """Of the attempts that the driver has, those to look at now (boottime)."""
        live = [attempt for attempt in attempts if attempt.live and attempt.ref]
        since = 0.0 if self._last is None else now - self._last
        self._last = now
        most = max(AT_ONCE, int(LOOKS_PER_S * since))
        if len(live) > most:
            looked = self._looked
            waits = sorted(live, key=lambda attempt: looked.get(attempt.attempt, NEVER))
            hurry = [one for one in waits[most:] if one.state is AttemptState.STOPPING]
            live = waits[:most] + hurry
        self._looked.update((attempt.attempt, now) for attempt in live)
        return live

    def forget(self, attempt: str) -> None:
        self._looked.pop(attempt, None)


def report_s(configured: float, running: int) -> float:
    """Seconds between two reports of one of `running` attempts, STEADY_S at most unless asked."""
    return max(configured, min(configured * running / TOLD_TOGETHER, STEADY_S))
