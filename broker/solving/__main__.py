"""The process that solves: `python -m broker.solving WORKS MEMORY_MB PARENT`.

It reads errands from standard input and answers on standard output, one at a time, until its
parent closes the pipe or dies. It knows no database, no queue and no settings.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.solving.errand import Errand, PartWork, Work
from broker.solving.frames import Closed, receive, send
from economics.errors import EconomicsError
from federation.decision import LONGEST, refusal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
REQUESTS = 0  #: standard input


def main(works: str, memory_mb: int, parent: int) -> int:
    """Answer errands with the works of a module until the pipe ends; returns the exit code."""
    _limit_memory(memory_mb)
    _die_with(parent)
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a solver prints must not be taken for an answer
    module = importlib.import_module(works)
    worker = Worker(answers, module.WORKS, module.PARTS)
    try:
        send(answers, {"ready": True})
        while True:
            send(answers, worker.answer(receive(REQUESTS)))
    except Closed:
        return 0


class Worker:
    """Runs the works of one module."""

    def __init__(
        self, answers: int, works: Mapping[str, Work], parts: Mapping[str, PartWork]
    ) -> None:
        self._answers = answers
        self._works = works
        self._parts = parts
        self._folder = self._shelf = Path()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked. Whatever fails becomes a code and a sentence, never a result."""
        target = Path(asked["into"])
        self._folder, self._shelf = target.parent, Path(asked["shelf"])
        try:
            self._do(asked, target)
        except MemoryError:
            return {"failed": "solver_out_of_memory"}
        except Closed:
            raise
        except EconomicsError as error:
            code, why = refusal(error)
            return {"failed": code, "why": why[:LONGEST]}
        except Exception as error:  # noqa: BLE001 - a round must end whatever the engine does
            return {"failed": "solver_failed", "why": f"{type(error).__name__}: {error}"[:LONGEST]}
        return {"done": True}

    def _do(self, asked: dict[str, Any], target: Path) -> None:
        if "part" in asked:
            body = Path(asked["body"]).read_bytes()
            target.write_bytes(self._parts[asked["part"]](body, self._shelf))
            return
        inputs = {name: Path(path) for name, path in asked["inputs"].items()}
        errand = Errand(inputs, asked["parameters"], self._spread, self._shelf)
        target.write_text(json.dumps(self._works[asked["work"]](errand), allow_nan=False))

    def _spread(self, name: str, bodies: Sequence[bytes], files: Sequence[str] = ()) -> list[bytes]:
        """Hand parts to the parent, and compute here those that it hands back."""
        paths = [self._folder / f"part-{at}" for at in range(len(bodies))]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
        parts = [str(path) for path in paths]
        send(self._answers, {"spread": name, "parts": parts, "files": list(files)})
        while "run" in (told := receive(REQUESTS)):
            path = Path(told["run"])
            result = self._parts[name](path.read_bytes(), self._shelf)
            path.with_suffix(".out").write_bytes(result)
            send(self._answers, {"ran": True})
        return [path.with_suffix(".out").read_bytes() for path in paths]


def _limit_memory(memory_mb: int) -> None:
    """Private memory, in the kernel's own count: an allocation beyond it fails."""
    limit = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with(parent: int) -> None:
    """End when the parent ends, be it in the middle of a solve.

    A shutdown of the worker signals its whole group: the round in hand is finished first, and the
    end of the pipe says when to go.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was asked


def _watch() -> None:
    """Wait for the end of the pipe beside the work: a solver may hold the main thread for long."""
    poll = select.poll()
    poll.register(REQUESTS, 0)  # no event but the hang-up, which is always told
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
