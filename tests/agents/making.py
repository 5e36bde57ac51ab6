"""Builders with good defaults, and the one way to wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agents.config import Config, parse
from agents.drivers import processes
from agents.drivers.base import Task
from agents.protocol import JobSpec, LeaseOrder
from agents.state import Membership, StateFolder

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
FAST = {"wait_s": 0.3, "gap_s": 0.05, "report_s": 0.1, "tick_s": 0.02}


def until(found: Callable[[], T], seconds: float = 15.0) -> T:
    """Poll until `found` gives something true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def a_lease(attempt: str = "a1", **changes: Any) -> LeaseOrder:
    """Fields of the lease and of its spec alike."""
    spec = JobSpec(
        job=changes.pop("job", f"job-{attempt}"),
        name="resnet",
        job_class="resnet50",
        command="true",
        setup="",
        env={},
        samples_done=0,
        samples_wanted=0,
        probe=False,
        max_runtime_s=3600.0,
        grace_s=5.0,
        log_cap_bytes=1 << 20,
    )
    order = LeaseOrder(
        attempt, "a100", 1, contract="c1", contract_samples=10**6, fence_s=600.0, spec=spec
    )
    for name, value in changes.items():
        if name in LeaseOrder.__dataclass_fields__:
            order = replace(order, **{name: value})
        else:
            order = replace(order, spec=replace(order.spec, **{name: value}))
    return order


def a_task(attempt: str = "a1", **changes: Any) -> Task:
    values: dict[str, Any] = {
        "attempt": attempt,
        "job": f"job-{attempt}",
        "pool": "a100",
        "gpus": 1,
        "command": "true",
        "max_runtime_s": 3600.0,
        "grace_s": 5.0,
        "log_cap_bytes": 1 << 20,
        "fence_at": 1e12,
        "job_class": "resnet50",
    }
    return Task(**{**values, **changes})


def settings(broker: str = "https://broker.test", **changes: Any) -> dict[str, Any]:
    """A configuration file's value."""
    value = {
        "broker": broker,
        "state": "state",
        "pools": [{"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20"}],
        "classes": {"resnet50": {"samples_per_s": {"a100": 100}}},
        "sync": dict(FAST),
        "grace_s": 10,
    }
    return {**value, **changes}


def a_config(folder: Path, **changes: Any) -> Config:
    return parse(settings(**changes), folder=folder)


STEPS = """
i=0
while [ $i -lt {n} ]; do
  i=$((i+1)); read t rest < /proc/uptime
  echo "{{\\"samples\\": $i, \\"t\\": $t}}" >> "$HANSE_PROGRESS"
  echo step $i; sleep {pause}
done"""


def steps(n: int, pause: float = 0.05) -> str:
    """A job that trains `n` samples."""
    return STEPS.format(n=n, pause=pause)


UNTIL = STEPS.replace("$i -lt {n}", "! -e finish")


def steps_until_told(pause: float = 0.05) -> str:
    """A job that trains until its folder has a file `finish`."""
    return UNTIL.format(pause=pause)


class AgentProcess:
    """A real agent: `python -m agents run`."""

    def __init__(self, folder: Path, broker_url: str, **changes: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / "agent.yaml"
        self.file.write_text(yaml.safe_dump(settings(broker_url, **changes)))
        StateFolder(self.state).save(Membership(broker_url, "birch", "site-1", "hs_first"))
        self.env: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agents", "run", "--config", str(self.file), *words],
                cwd=ROOT,
                env={**os.environ, **self.env},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=15)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=15)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for guard in (self.state / "attempts").glob("*/guard.json"):
            kill_guard(guard.parent)

    def finish(self, job: str) -> None:
        (self.state / "work" / job / "finish").touch()

    def guard(self, attempt: str) -> dict[str, Any]:
        return dict(json.loads((self.state / "attempts" / attempt / "guard.json").read_text()))

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()


def kill_guard(folder: Path) -> None:
    """End what a test left running: only what carries the mark of this very folder."""
    mark = f"HANSE_PROGRESS={folder.resolve() / 'progress.jsonl'}"
    for process in processes.marked(mark):
        processes.kill(process)
    try:
        identity = json.loads((folder / "guard.json").read_text())
    except (OSError, ValueError):
        return
    keeper = processes.look(int(identity["pid"]))
    if keeper is not None and keeper.start == identity["start"] and _guards(keeper.pid, folder):
        os.kill(keeper.pid, signal.SIGKILL)


def _guards(pid: int, folder: Path) -> bool:
    """True for a process whose command line names this folder as the one it guards."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\x00")
    except OSError:
        return False
    return str(folder.resolve()).encode() in words


def alive(pid: int) -> bool:
    process = processes.look(pid)
    return process is not None and process.state not in "ZX"
