"""Who carries messages while the loop goes on: one exchange at a time of each kind.

The loop's thread alone owns the journal; a courier only makes the call and brings back what came of
it. `sent` is taken before the call, so a fence is never counted from too late.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from agents.clock import Clock
from agents.errors import AgentError


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: str
    sent: float  #: boottime
    request: Any
    reply: Any = None
    error: AgentError | None = None
    crash: Exception | None = None  #: a mistake of ours, raised again in the loop


class Courier(Protocol):
    def busy(self, kind: str) -> bool: ...

    def send(self, kind: str, call: Callable[[Any], Any], request: Any) -> None: ...

    def outcomes(self, wait_s: float) -> list[Outcome]:
        """What came back; waits up to `wait_s` for the first."""
        ...

    def wake(self) -> None:
        """End a wait at once; may be called from a signal handler."""
        ...


class ThreadCourier:
    """A thread for each kind: a long-poll does not hold up reports."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inbox: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._errands: dict[str, queue.SimpleQueue[Callable[[], Outcome]]] = {}
        self._away: set[str] = set()

    def busy(self, kind: str) -> bool:
        return kind in self._away

    def send(self, kind: str, call: Callable[[Any], Any], request: Any) -> None:
        sent = self._clock.boottime()
        self._away.add(kind)
        if kind not in self._errands:
            self._errands[kind] = queue.SimpleQueue()
            thread = threading.Thread(target=self._walk, args=(kind,), name=kind, daemon=True)
            thread.start()
        self._errands[kind].put(lambda: carry(kind, call, request, sent))

    def outcomes(self, wait_s: float) -> list[Outcome]:
        found: list[Outcome] = []
        try:
            item = self._inbox.get(timeout=wait_s)
            while True:
                if item is not None:
                    self._away.discard(item.kind)
                    found.append(item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            return found

    def wake(self) -> None:
        self._inbox.put(None)

    def _walk(self, kind: str) -> None:
        while True:
            self._inbox.put(self._errands[kind].get()())


class InlineCourier:
    """Carries at once, in the caller's thread: for virtual time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._back: list[Outcome] = []

    def busy(self, kind: str) -> bool:
        return False

    def send(self, kind: str, call: Callable[[Any], Any], request: Any) -> None:
        self._back.append(carry(kind, call, request, self._clock.boottime()))

    def outcomes(self, wait_s: float) -> list[Outcome]:
        found, self._back = self._back, []
        return found

    def wake(self) -> None:
        """Nothing waits here."""


def carry(kind: str, call: Callable[[Any], Any], request: Any, sent: float) -> Outcome:
    try:
        return Outcome(kind, sent, request, reply=call(request))
    except AgentError as error:
        return Outcome(kind, sent, request, error=error)
    except Exception as crash:  # noqa: BLE001 - a thread has nobody else to tell
        return Outcome(kind, sent, request, crash=crash)
