"""What /proc says of processes. Standard library only: the guard imports it.

A process is named by pid *and* start time, because pids come round again.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NamedTuple


class Process(NamedTuple):
    pid: int
    parent: int
    session: int
    start: int  #: clock ticks since boot
    state: str  #: one letter, Z = only its exit status is left


def look(pid: int) -> Process | None:
    """One process, or None when there is none of this number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    fields = text[text.rfind(")") + 2 :].split()  # the name before may hold spaces and brackets
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0])


def alive(pid: int, start: int) -> bool:
    """True while this very process runs; a zombie and a newcomer of the same number do not."""
    process = look(pid)
    return process is not None and process.start == start and process.state not in "ZX"


def everybody() -> list[Process]:
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def descendants(root: int) -> list[Process]:
    """Children, their children and so on; not `root` itself."""
    children: dict[int, list[Process]] = {}
    for process in everybody():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.append(child)
            queue.append(child.pid)
    return found


def marked(mark: str) -> list[Process]:
    """Processes started with this `NAME=value` in their environment."""
    wanted = mark.encode()
    return [process for process in everybody() if wanted in _environment(process.pid)]


def kill(process: Process) -> None:
    """SIGKILL, if it is still the same process; never to pid 1."""
    if process.pid > 1 and alive(process.pid, process.start):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\x00")
    except OSError:
        return []
