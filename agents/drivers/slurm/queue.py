"""Slurm's queue as it was a moment ago, asked in the background.

The agent's loop never waits for slurmctld: it reads the newest snapshot. One question in `period_s`
covers all jobs. A question without an answer changes nothing: of a controller that is away nothing
is concluded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agents.clock import Clock
from agents.drivers.slurm import answers
from agents.drivers.slurm.answers import JobSeen
from agents.drivers.slurm.command import Commands, SlurmRefused, SlurmSilent
from agents.drivers.slurm.states import Silence
from agents.log import event, trouble

HURRY_S = 1.0  #: between two questions when an end waits for Slurm's word


@dataclass(frozen=True, slots=True)
class Snapshot:
    asked_at: float  #: boottime
    jobs: dict[int, JobSeen]


class Questions:
    """Blocking questions to slurmctld; JSON where the commands have it, text where not."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self._json = True
        self._accounting = True

    def jobs(self) -> list[JobSeen]:
        if self._json:
            try:
                return answers.jobs(self.commands.ask("squeue", "--all", "--states=all", "--json"))
            except (ValueError, SlurmRefused):
                self._json = False  # older than 21.08, or built without a JSON library
        words = ("--all", "--states=all", "--noheader", f"--format={answers.QUEUE_FORMAT}")
        return answers.jobs_of_text(self.commands.ask("squeue", *words))

    def named(self, name: str) -> int | None:
        """The newest job of this name that is not over."""
        words = ("--all", "--noheader", "--format=%A", f"--name={name}")
        found = [int(word) for word in self.commands.ask("squeue", *words).split()]
        return max(found, default=None)

    def longest(self, partition: str) -> float | None:
        """Seconds that a job may ask for there ("" is the default partition); None: no limit."""
        return answers.partition_limits(
            self.commands.ask("scontrol", "--oneliner", "show", "partition")
        ).get(partition)

    def accounted(self, job: int) -> JobSeen | None:
        """What accounting remembers of a job that the controller has forgotten, if there is one."""
        if not self._accounting:
            return None
        words = ("--noheader", "--allocations", "--parsable2", "--format=State", f"--jobs={job}")
        try:
            states = answers.states_of_accounting(self.commands.ask("sacct", *words))
        except SlurmRefused:
            self._accounting = False
            return None
        return JobSeen(job, "", states) if states else None


class Queue:
    def __init__(self, *, questions: Questions, clock: Clock, period_s: float) -> None:
        self.questions = questions
        self._clock = clock
        self._period_s = period_s
        self._snapshot: Snapshot | None = None
        self._accounted: dict[int, JobSeen] = {}
        self._missed: set[int] = set()  # accounting is to be asked about these
        self._errands: deque[Callable[[], None]] = deque()
        self._next = 0.0
        self.away = False  #: the last question had no answer
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    def look(self, job: int, *, since: float, name: str) -> JobSeen | Silence:
        """The newest word on a job that was submitted at `since` (boottime). Never waits.

        Under its number there may be another's job when the controller has lost its state.
        """
        snapshot = self._snapshot
        if snapshot is None or snapshot.asked_at <= since:
            return Silence.UNKNOWN
        seen = snapshot.jobs.get(job)
        if seen is not None and seen.name == name:
            return seen
        if job in self._accounted:
            return self._accounted[job]
        self._missed.add(job)
        return Silence.ABSENT

    def hurry(self) -> None:
        """Somebody waits for the next answer."""
        with self._lock:
            self._next = min(self._next, self._clock.boottime() + HURRY_S)

    def errand(self, work: Callable[[], None]) -> None:
        """Something that may take its time, done in the background, at once if Slurm answers."""
        self._errands.append(work)
        with self._lock:
            self._next = 0.0
        self.tend()

    def later(self, work: Callable[[], None]) -> None:
        """The same with the next question."""
        self._errands.append(work)

    def jobs(self) -> list[JobSeen]:
        """All jobs of the newest snapshot, the local users' too."""
        snapshot = self._snapshot
        return [] if snapshot is None else list(snapshot.jobs.values())

    def tend(self) -> None:
        """Ask in the background when it is time to; called with every look."""
        now = self._clock.boottime()
        with self._lock:
            busy = self._worker is not None and self._worker.is_alive()
            if busy or now < self._next:
                return
            self._next = now + self._period_s
            self._worker = threading.Thread(target=self._round, name="slurm", daemon=True)
            self._worker.start()

    def _round(self) -> None:
        """Errands first, so that the answer after them knows of them."""
        try:
            while self._errands:
                self._run(self._errands[0])
                self._errands.popleft()  # what met silence stays for the next time
            asked_at = self._clock.boottime()
            found = {seen.job: seen for seen in self.questions.jobs()}
            self._snapshot = Snapshot(asked_at, found)
            for job in list(self._missed):
                self._missed.discard(job)
                seen = self.questions.accounted(job)
                if seen is not None:
                    self._accounted[job] = seen
        except (SlurmSilent, SlurmRefused) as error:
            if not self.away:
                trouble("slurm.away", why=str(error))
            self.away = True
            return
        if self.away:
            event("slurm.back")
        self.away = False

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (SlurmRefused, OSError) as error:
            trouble("slurm.refused", why=str(error))
