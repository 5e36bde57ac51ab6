"""A journal that outlives a full disk: what cannot be written waits in memory, within a bound.

Nothing that waits has a number and nothing of it is sent, so the broker never hears what a crash
could take back: state and facts go to disk together, later. After a crash the agent is where the
disk has it, and reads the rest again from the jobs' own files. What must be on disk first
(`durable`: a lease taken on, a start) raises JournalFull instead, and its turn comes again.
Fences need no journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agents.attempt import Attempt
from agents.errors import JournalFull
from agents.journal import Journal
from agents.log import event, trouble
from agents.protocol import Receipt, Report, ReportKind

MAX_WAITING = 8 * 1024 * 1024  #: bytes of log in memory, of all attempts together
ENOUGH = 1 << 40  #: bytes unsent, for callers that ask whether there is room for more


class PatientJournal(Journal):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._waiting: dict[str, list[Report]] = {}  # by attempt; empty: only its state waits
        self._log_bytes = 0  # of log among them
        self._receipts: dict[tuple[str, int], Receipt] = {}
        self._forgotten: set[str] = set()
        self._notes: dict[str, str] = {}
        self.full = False

    def record(
        self, attempt: Attempt, facts: Iterable[Report] = (), *, at: str = "", durable: bool = False
    ) -> Attempt:
        name, facts = attempt.attempt, list(facts)
        try:
            written = super().record(attempt, [*self._waiting.get(name, ()), *facts], at=at)
        except JournalFull as error:
            self._tell_full(error)
            if durable:
                raise
            self._waiting.setdefault(name, []).extend(facts)
            self._log_bytes += _log_bytes(facts)
            return self.keep(attempt)
        self._written(name)
        return written

    def forget(self, attempt: str) -> None:
        """Forgotten at once, on disk later: a restart before then is told again to forget it."""
        self._written(attempt)
        try:
            super().forget(attempt)
        except JournalFull as error:
            self._tell_full(error)
            self._forgotten.add(attempt)
            self._attempts.pop(attempt, None)

    def receive(self, receipts: Iterable[Receipt]) -> list[Receipt]:
        receipts = list(receipts)
        try:
            return super().receive(receipts)
        except JournalFull as error:
            self._tell_full(error)
            self._receipts.update({(one.attempt, one.seq): one for one in receipts})
            return [one for one in receipts if not one.accepted]

    def note(self, name: str, value: str) -> None:
        try:
            super().note(name, value)
            self._notes.pop(name, None)
        except JournalFull as error:
            self._tell_full(error)
            self._notes[name] = value

    def noted(self, name: str) -> str:
        return self._notes[name] if name in self._notes else super().noted(name)

    def begin(self, new_id: str) -> str:
        """Without room this start has the number that the next will have too: still one agent."""
        try:
            return super().begin(new_id)
        except JournalFull as error:
            journal = self.noted("journal_id")
            if not journal:
                raise
            self._tell_full(error)
            return f"{journal}.{int(self.noted('starts') or '0') + 1}"

    def pending(self, *, limit: int, max_bytes: int) -> list[Report]:
        """Written reports that have no receipt, and are not of an attempt that is forgotten."""
        self.settle()
        written = super().unsent() if self._receipts or self._forgotten else 0
        while True:
            found = super().pending(limit=max(limit, written), max_bytes=max_bytes)
            open_ones = [report for report in found if not self._is_answered(report)]
            if open_ones or len(found) >= written:
                return open_ones[:limit]
            max_bytes *= 2  # all that fitted is answered; the answers could not be written

    def _is_answered(self, report: Report) -> bool:
        key = (report.attempt, report.seq)
        return key in self._receipts or report.attempt in self._forgotten

    def unsent(self, attempt: str | None = None) -> int:
        names = self._waiting if attempt is None else (attempt,)
        waiting = sum(len(self._waiting.get(name, ())) for name in names)
        return super().unsent(attempt) + waiting

    def unsent_of(self, attempt: str, kind: ReportKind) -> tuple[int, int]:
        """A memory that is full of log has no room for more of it."""
        count, size = super().unsent_of(attempt, kind)
        waiting = [one for one in self._waiting.get(attempt, ()) if one.kind is kind]
        if kind is ReportKind.LOG and self._log_bytes >= MAX_WAITING:
            size = ENOUGH
        return count + len(waiting), size + _log_bytes(waiting)

    def settle(self) -> None:
        """Write what waits, as far as there is room now."""
        if not (self.full or self._waiting or self._receipts or self._forgotten or self._notes):
            return
        try:
            self._settle()
        except JournalFull:
            return
        self.full = False
        event("journal.room", why="what waited in memory is written")

    def _settle(self) -> None:
        for name in list(self._forgotten):
            super().forget(name)
            self._forgotten.discard(name)
        if self._receipts:
            super().receive(self._receipts.values())
            self._receipts.clear()
        for name, facts in list(self._waiting.items()):
            super().record(self._attempts[name], facts)
            self._written(name)
        for name, value in list(self._notes.items()):
            super().note(name, value)
            del self._notes[name]

    def _written(self, attempt: str) -> None:
        self._log_bytes -= _log_bytes(self._waiting.pop(attempt, ()))

    def _tell_full(self, error: JournalFull) -> None:
        """Once, until there is room again."""
        if not self.full:
            self.full = True
            trouble("journal.full", why=f"{error}; reports wait in memory, nothing new is started")


def _log_bytes(facts: Iterable[Report]) -> int:
    """As the journal counts them, about: the base64 text."""
    return sum(len(fact.log.data) for fact in facts if fact.log is not None)
