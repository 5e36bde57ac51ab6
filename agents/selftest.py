"""Two tiny jobs in each pool, through the driver that the site has configured, step by step.

    start > progress > log > readopt > stop (with SIGTERM and grace) > exit code > clean-up

No broker is spoken to. The attempts have names and a folder of their own, a runtime limit and a
fence, so that whatever happens to the test, nothing of it stays.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from agents.attempt import Attempt
from agents.clock import Clock
from agents.config import Config, Pool
from agents.drivers import loading
from agents.drivers.base import Driver, Exit, Handle, Phase, Task
from agents.drivers.meter import MAX_READ, Meter
from agents.errors import AgentError
from agents.protocol import EndReason
from agents.slots import free_slots

T = TypeVar("T")
STEPS = ("start", "progress", "log", "readopt", "stop", "exit code", "clean-up")
GRACE_S = 10.0
LEEWAY_S = 30.0  #: beyond its limit before the fence ends a job, half of it its own runtime limit
LOOK_S = 0.05
LATE_S = 5.0  #: by which the last line of a log may come after the end
LOG_BYTES = 64 * 1024
TAIL = 300  #: characters of a job's last words worth telling
CODE = 7  #: with which the second job ends
UP, HEARD = "hanse selftest: up", "hanse selftest: SIGTERM seen"
STAYS = f"""trap 'echo "{HEARD}"; exit 0' TERM
printf '{{"samples": 1}}\\n' >> "$HANSE_PROGRESS"
echo "{UP}"
while :; do sleep 0.1; done"""
ENDS = f"exit {CODE}"


class Outcome(StrEnum):
    WORKS = "works"
    FAILS = "fails"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """What one line says."""

    pool: str
    name: str
    outcome: Outcome
    seconds: float
    why: str = ""


class Failed(Exception):
    """A step did not work, and why."""


class Selftest:
    """One run over all pools. `make` gives a driver on the test's own folder."""

    def __init__(
        self,
        *,
        config: Config,
        make: Callable[[], Driver],
        clock: Clock,
        attempts: Sequence[Attempt],
        nonce: str,
        limit_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._make = make
        self._clock = clock
        self._attempts = attempts  # that hold GPUs here now
        self._nonce = nonce  # of letters and digits: names this run's attempts
        self._limit_s = limit_s  # for each of the two jobs, its time in a queue included
        self._sleep = sleep
        self._made: list[Driver] = []  # to be closed at the end

    def run(self) -> Iterator[Step]:
        """Steps as they come; raises AgentError when no pool has a free GPU."""
        try:
            yield from self._steps(self._another())
        finally:
            for driver in self._made:
                loading.close(driver)

    def _another(self) -> Driver:
        self._made.append(self._make())
        return self._made[-1]

    def _steps(self, driver: Driver) -> Iterator[Step]:
        free = self._free(driver)
        if not any(free.values()):
            raise AgentError(
                "every GPU of every pool is held by jobs or by local users: "
                "run the selftest when a lease has ended, or drain the site first"
            )
        for number, (pool, slots) in enumerate(free.items()):
            if slots:
                yield from self._trial(driver, pool, slots[0], number).steps()
            else:
                why = f"all {pool.gpus} GPUs are held by jobs or by local users"
                yield from (Step(pool.name, name, Outcome.SKIPPED, 0.0, why) for name in STEPS)

    def _free(self, driver: Driver) -> dict[Pool, tuple[int, ...]]:
        """GPUs of each pool that neither leases nor local users hold."""
        supply = driver.supply()
        free = {}
        for pool in self._config.pools:
            left = None if supply is None else supply.pools.get(pool.name)
            room = pool.gpus if left is None else min(pool.gpus, left.left)
            free[pool] = free_slots(self._attempts, pool, room=room)
        return free

    def _trial(self, driver: Driver, pool: Pool, slot: int, number: int) -> Trial:
        return Trial(
            config=self._config,
            pool=pool,
            slot=slot,
            driver=driver,
            again=self._another,
            clock=self._clock,
            name=f"selftest-{self._nonce}-{number}",
            limit_s=self._limit_s,
            sleep=self._sleep,
        )


class Trial:
    """The two jobs of one pool, each on one GPU."""

    def __init__(
        self,
        *,
        config: Config,
        pool: Pool,
        slot: int,
        driver: Driver,
        again: Callable[[], Driver],
        clock: Clock,
        name: str,
        limit_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        self._config = config
        self._pool = pool
        self._slot = slot  # within the pool
        self._driver = driver
        self._again = again
        self._clock = clock
        self._name = name
        self._limit_s = limit_s
        self._sleep = sleep
        self._rehearsal = config.driver.kind == "fake"
        self._started: list[Handle] = []
        self._deadline = 0.0  # boottime

    def steps(self) -> Iterator[Step]:
        actions = (self._start, self._progress, self._log, self._readopt, self._stop, self._code)
        broken = ""
        try:
            for name, action in zip(STEPS, actions, strict=False):
                step = self._step(name, action, broken)
                if step.outcome is Outcome.FAILS and not broken:
                    broken = f"{name} failed"
                yield step
        finally:
            self._put_away()
        yield self._step(STEPS[-1], self._clean, "")

    def _step(self, name: str, action: Callable[[], str], broken: str) -> Step:
        """`action` returns "" when it works, or why it means nothing here."""
        if broken:
            return Step(self._pool.name, name, Outcome.SKIPPED, 0.0, broken)
        began = self._clock.monotonic()
        try:
            why = action()
            outcome = Outcome.SKIPPED if why else Outcome.WORKS
        except (Failed, AgentError, OSError) as error:
            outcome, why = Outcome.FAILS, str(error)
        return Step(self._pool.name, name, outcome, self._clock.monotonic() - began, why)

    # -- the steps --------------------------------------------------------------------------------

    def _start(self) -> str:
        """Until it runs: time in a scheduler's queue counts."""
        self._begin("stays", STAYS)
        if not self._rehearsal:
            self._until(lambda: UP in self._text(), "its first line of log has not come")
        return ""

    def _progress(self) -> str:
        if self._rehearsal and not self._job_class():
            return "no class has a declared speed here, so a rehearsal trains nothing"
        self._until(lambda: self._meter().lines, "no progress line has come")
        return ""

    def _log(self) -> str:
        whole = self._until(self._text, "no log has come").encode()
        part = self._driver.logs(self._handle.attempt, 1, 4).data
        if part != whole[1:5]:
            raise Failed("a part of the log is not what the whole log has there")
        return ""

    def _readopt(self) -> str:
        """As after a restart: another driver on the same folder goes on."""
        if self._rehearsal:
            return "a rehearsal's jobs live in the agent's memory"
        self._driver = self._again()
        found = self._driver.readopt(self._handle.attempt)
        if found is None:
            raise Failed("a restarted agent does not find the running job")
        self._started[-1] = found
        if self._driver.poll(found).phase is not Phase.RUNNING:
            raise Failed("a restarted agent takes the running job for ended")
        return ""

    def _stop(self) -> str:
        why = "the selftest asked it to"
        self._driver.stop(self._handle, grace_s=GRACE_S, reason=EndReason.REVOKED, why=why)
        over = self._over()
        if over.reason is not EndReason.REVOKED:
            raise Failed(f"it ended as {over.reason}, not as revoked: {over.message}")
        self._deadline = self._clock.boottime() + LATE_S
        why = "it ended, but SIGTERM did not reach the job first: no such line of log came"
        if not self._rehearsal:
            self._until(lambda: HEARD in self._text(), why, alive=False)
        return ""

    def _code(self) -> str:
        if self._rehearsal:
            return "a rehearsal runs no command"
        self._begin("ends", ENDS)
        over = self._over()
        if (over.reason, over.exit_code) != (EndReason.EXITED, CODE):
            found = f"{over.reason} with {over.exit_code}"
            raise Failed(f"a command that ends with {CODE} was told as {found}: {over.message}")
        return ""

    def _clean(self) -> str:
        """What was kept of the attempts and their work is gone, as another driver sees it too."""
        ours = {handle.attempt for handle in self._started}
        other = self._driver if self._rehearsal else self._again()

        def gone() -> bool:
            for name in ours:
                self._driver.cleanup(name)  # a scheduler's own list may need a second asking
            return not ours & other.known()

        self._deadline = self._clock.boottime() + self._limit_s
        self._until(gone, "something is kept of it", alive=False)
        for name in ours:
            shutil.rmtree(self._config.driver.work / name, ignore_errors=True)
        return ""

    # -- their means ------------------------------------------------------------------------------

    @property
    def _handle(self) -> Handle:
        return self._started[-1]

    def _begin(self, what: str, command: str) -> None:
        now = self._clock.boottime()
        self._deadline = now + self._limit_s
        first = self._config.first_slot(self._pool.name)
        devices = self._pool.devices
        name = f"{self._name}-{what}"
        task = Task(
            attempt=name,
            job=name,
            pool=self._pool.name,
            gpus=1,
            job_class=self._job_class(),
            command=command,
            max_runtime_s=self._limit_s + LEEWAY_S / 2,
            grace_s=GRACE_S,
            log_cap_bytes=LOG_BYTES,
            fence_at=self._deadline + LEEWAY_S,
            probe=True,
            slots=(first + self._slot,),
            devices=(devices[self._slot],) if devices else (),
        )
        self._started.append(self._driver.start(task))

    def _job_class(self) -> str:
        """One that the site has declared a speed for in this pool."""
        found = (
            c.name for c in self._config.classes for s in c.speeds if s.pool == self._pool.name
        )
        return next(found, "")

    def _text(self) -> str:
        found = self._driver.logs(self._handle.attempt, 0, LOG_BYTES).data
        return found.decode(errors="replace")

    def _meter(self) -> Meter:
        data = self._driver.progress(self._handle.attempt, 0, MAX_READ)
        return Meter().read(data, now=self._clock.monotonic(), since=0.0)

    def _over(self) -> Exit:
        found = self._until(self._exit, "it has not ended", alive=False)
        assert found is not None  # noqa: S101 - `_until` returns what is true
        return found

    def _exit(self) -> Exit | None:
        return self._driver.poll(self._handle).exit

    def _until(self, found: Callable[[], T], else_why: str, *, alive: bool = True) -> T:
        """The first true value; raises Failed after the limit, or when the job is over too soon."""
        while True:
            over = self._exit() if alive else None
            value = found()
            if value:
                return value
            if over is not None:
                words = " ".join(self._text()[-TAIL:].split())
                raise Failed(f"the job ended at once: {over.reason} {over.message} {words}".strip())
            if self._clock.boottime() >= self._deadline:
                raise Failed(f"{else_why} in time")
            self._sleep(LOOK_S)

    def _put_away(self) -> None:
        """End whatever runs, also when the operator interrupts the test."""
        until = self._clock.boottime() + GRACE_S
        for handle in self._started:
            with suppress(AgentError):
                if self._driver.poll(handle).phase is Phase.OVER:
                    continue
                why = "the selftest is over"
                self._driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why=why)
                while not self._driver.poll(handle).exit and self._clock.boottime() < until:
                    self._sleep(LOOK_S)
