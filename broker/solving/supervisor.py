"""Watch a child that solves: it is killed when it takes too long, and its death is an answer too.

One child for each process of a worker. It lives from errand to errand, so its imports stay warm;
when it is killed the next errand starts another, cold.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from broker.solving.frames import Closed, receive, send, speaks
from broker.solving.scratch import Scratch

WORKS = "broker.solving.works"
START_S = 60.0  #: for a child to import its solvers
GLANCE_S = 0.05  #: between two looks at parts that others compute
LAST_WORDS = 2000  #: bytes of the child's standard error that are kept
#: what a C++ or Python programme says when an allocation fails
SHORT_OF_MEMORY = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory")


class SolverFailed(Exception):
    """No result: `code` for a machine, `why` for a person. `died` when another try may do."""

    def __init__(self, code: str, why: str, *, died: bool = False, last_words: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.died = died
        self.last_words = last_words


class Patience:
    """How long somebody waits, and what is said when it was too long."""

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds
        self._what = what

    def spent(self) -> str:
        return f"{self._what} after {self.seconds:.4g} s."


class Crew(Protocol):
    """Who computes the parts of an errand besides the child itself."""

    def open(self, name: str, bodies: list[bytes], files: Sequence[Path]) -> None:
        """Offer the parts to others, each with the file that it reads; no files if none does."""

    def take(self) -> int | None:
        """A part that nobody computes now; it is ours. None while others have the rest."""

    def put(self, position: int, result: bytes) -> None:
        """Keep the result of a part that was ours."""

    def results(self) -> list[bytes] | None:
        """All results in order, or None while some are missing."""

    def close(self) -> None:
        """Forget the parts."""


class Solver:
    """A child process and its limits. One errand at a time; safe to use from several threads."""

    def __init__(self, *, memory_mb: int, works: str = WORKS, scratch: Path | None = None) -> None:
        self.memory_mb = memory_mb
        self.works = works
        self._parent = scratch
        self._scratch: Scratch | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._ready = False
        self._lock = threading.RLock()

    @property
    def pid(self) -> int | None:
        """The child's process id, while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    @property
    def scratch(self) -> Scratch:
        """The folder that the child reads from and writes to."""
        if self._scratch is None:
            self._scratch = Scratch(self._parent)
        return self._scratch

    def start(self) -> None:
        """Start the child unless it runs; it imports its solvers meanwhile."""
        with self._lock:
            if self.pid is not None:
                return
            self.stop()
            self._errors = (self.scratch.folder / "stderr").open("w+b")
            # a thread's end would count as its process's: only the main one may ask for that
            main = threading.current_thread() is threading.main_thread()
            self._child = subprocess.Popen(  # noqa: S603 - a fixed list of ours
                [
                    *(sys.executable, "-m", "broker.solving", self.works),
                    *(str(self.memory_mb), str(os.getpid() if main else 0)),
                ],
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
            )

    def ready(self) -> None:
        """Start the child if need be and wait until it has imported. Raises SolverFailed."""
        with self._lock:
            self.start()
            if not self._ready:
                self._hear(Patience(START_S, "The solver's process did not start"))
                self._ready = True

    def ask(
        self,
        work: str,
        *,
        inputs: Mapping[str, bytes | memoryview],
        parameters: Mapping[str, Any],
        limit_s: float,
        crew: Crew | None = None,
    ) -> dict[str, Any]:
        """The result of one work on packed documents. Raises SolverFailed, never half a result."""
        with self._lock:
            self.ready()
            folder = self.scratch.answers()
            target = folder / "answer"
            self.scratch.tidy()
            paths = {name: str(self.scratch.document(body)) for name, body in inputs.items()}
            asked = {
                "work": work,
                "inputs": paths,
                "parameters": dict(parameters),
                "into": str(target),
                "shelf": str(self.scratch.shelf),
            }
            try:
                self._run(asked, limit_s, crew)
                result: dict[str, Any] = json.loads(target.read_bytes())
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return result

    def part(
        self,
        name: str,
        body: bytes | memoryview,
        *,
        limit_s: float,
        files: Mapping[str, Callable[[], bytes]],
    ) -> bytes:
        """The result of one part of another worker's errand. Raises SolverFailed.

        `files`: name -> how to get it, asked only for what is not on the shelf yet.
        """
        with self._lock:
            self.ready()
            folder = self.scratch.answers()
            source, target = folder / "body", folder / "answer"
            asked = {
                "part": name,
                "body": str(source),
                "into": str(target),
                "shelf": str(self.scratch.shelf),
            }
            try:
                self.scratch.tidy()
                for file, read in files.items():
                    self.scratch.shelve(file, read)
                source.write_bytes(body)
                self._run(asked, limit_s, crew=None)
                return target.read_bytes()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """End the child now; nothing of it is left."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child.wait()
                for pipe in (self._child.stdin, self._child.stdout):
                    if pipe is not None:
                        pipe.close()
                self._child = None
            if self._errors is not None:
                self._errors.close()
                self._errors = None
            self._ready = False

    def close(self) -> None:
        """End the child and remove its folder."""
        with self._lock:
            self.stop()
            if self._scratch is not None:
                self._scratch.close()
                self._scratch = None

    def _run(self, asked: dict[str, Any], limit_s: float, crew: Crew | None) -> None:
        patience = Patience(limit_s, "The solver was stopped: it had no answer")
        self._say(asked)
        while "spread" in (told := self._hear(patience)):
            self._share(told, patience, crew or Alone())

    def _share(self, told: dict[str, Any], patience: Patience, crew: Crew) -> None:
        """Have the parts computed by the crew and, while none of it is free, by the child itself.

        Whoever waits also works, so nobody ever waits for a worker that is not there.
        """
        paths = [Path(path) for path in told["parts"]]
        files = [self.scratch.shelf / Path(name).name for name in told["files"]]
        crew.open(told["spread"], [path.read_bytes() for path in paths], files)
        try:
            while (results := crew.results()) is None:
                position = crew.take()
                if position is None:
                    self._pause(patience)
                    continue
                self._say({"run": str(paths[position])})
                self._hear(patience)
                crew.put(position, paths[position].with_suffix(".out").read_bytes())
        finally:
            crew.close()
        for path, result in zip(paths, results, strict=True):
            path.with_suffix(".out").write_bytes(result)
        self._say({"all": True})

    def _say(self, message: dict[str, Any]) -> None:
        try:
            send(self._pipe("stdin"), message)
        except Closed:
            raise self._death() from None

    def _hear(self, patience: Patience) -> dict[str, Any]:
        """The child's next message; raises SolverFailed for its failure, silence or death."""
        try:
            told = receive(self._pipe("stdout"), until=patience.until)
        except Closed:
            raise self._death() from None
        except TimeoutError:
            self.stop()
            raise SolverFailed("solver_timed_out", patience.spent()) from None
        if told.get("failed") == "solver_out_of_memory":
            self.stop()  # what is left of its memory is in pieces
            raise SolverFailed("solver_out_of_memory", self._too_large())
        if "failed" in told:
            raise SolverFailed(str(told["failed"]), str(told["why"]))
        return told

    def _pause(self, patience: Patience) -> None:
        """Wait a moment. The child has nothing to say meanwhile but that it is gone."""
        left = patience.until - time.monotonic()
        if left <= 0 or speaks(self._pipe("stdout"), within_s=min(GLANCE_S, left)):
            self._hear(patience)

    def _pipe(self, name: str) -> int:
        pipe = getattr(self._child, name)
        number: int = pipe.fileno()
        return number

    def _death(self) -> SolverFailed:
        """Reap the child and say what became of it."""
        child, errors = self._child, self._errors
        assert child is not None  # noqa: S101 - somebody was spoken to
        assert errors is not None  # noqa: S101
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)
        code = child.returncode
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - LAST_WORDS))
        words = errors.read()
        self.stop()
        if any(sign in words for sign in SHORT_OF_MEMORY):
            return SolverFailed(
                "solver_out_of_memory", self._too_large(), last_words=words.decode(errors="replace")
            )
        how = f"by signal {_signal(-code)}" if code and code < 0 else f"with code {code}"
        why = f"The solver's process ended {how} before it had an answer."
        return SolverFailed(
            "solver_died", why, died=True, last_words=words.decode(errors="replace")
        )

    def _too_large(self) -> str:
        return f"The solver needed more than its {self.memory_mb} MB of memory."


def _environment() -> dict[str, str]:
    """The child's: without the broker's secrets, and with one thread for each child."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HANSE_", "DJANGO_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


class Alone:
    """A crew of nobody: the child computes every part itself."""

    def __init__(self) -> None:
        self._results: list[bytes | None] = []

    def open(self, name: str, bodies: list[bytes], files: Sequence[Path]) -> None:
        self._results = [None] * len(bodies)

    def take(self) -> int | None:
        return self._results.index(None)

    def put(self, position: int, result: bytes) -> None:
        self._results[position] = result

    def results(self) -> list[bytes] | None:
        found = [result for result in self._results if result is not None]
        return found if len(found) == len(self._results) else None

    def close(self) -> None:
        self._results = []


_owned: dict[int, Solver] = {}


def own_solver(memory_mb: int) -> Solver:
    """This process's solver; a forked process gets one of its own."""
    mine = os.getpid()
    if mine not in _owned:
        _owned.clear()  # what was copied by a fork is its parent's
        _owned[mine] = Solver(memory_mb=memory_mb)
        atexit.register(close_own_solver)
    return _owned[mine]


def close_own_solver() -> None:
    """End this process's solver, if it has one."""
    solver = _owned.pop(os.getpid(), None)
    if solver is not None:
        solver.close()
