"""Submissions that are over for us and that Ray still lists: deleted a little later.

Later, because Ray itself looks after a job once a second: of one that was deleted too early it
writes a new, empty record (seen in Ray 2.60).
"""

from __future__ import annotations

from contextlib import suppress

from agents.clock import Clock
from agents.drivers.ray.server import RayServer
from agents.drivers.ray.supply import OWNER
from agents.errors import DriverFailed

SETTLE_S = 3.0


class Leftovers:
    def __init__(self, *, server: RayServer, clock: Clock, owner: str) -> None:
        self._server = server
        self._clock = clock
        self._owner = owner
        self._due: dict[str, float] = {}  # boottime of the next try, by submission

    def __contains__(self, submission: str) -> bool:
        return submission in self._due

    def add(self, submission: str) -> None:
        self._due.setdefault(submission, self._clock.boottime() + SETTLE_S)

    def tidy(self) -> None:
        """Try what is due; an unreachable head is tried again."""
        now = self._clock.boottime()
        for submission in [name for name, due in self._due.items() if due <= now]:
            self._due[submission] = now + SETTLE_S
            with suppress(DriverFailed):
                if self._gone(submission):
                    del self._due[submission]

    def _gone(self, submission: str) -> bool:
        """False while Ray has not ended it; another owner's job of this name is not ours to end."""
        job = self._server.job(submission)
        if job is None or job.metadata.get(OWNER) != self._owner:
            return True
        if not job.over:
            self._server.stop(submission)
            return False
        self._server.delete(submission)
        return True
