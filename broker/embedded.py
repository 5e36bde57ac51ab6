"""A whole federation on one machine: the web process and the worker, started and stopped together.

No server is needed: SQLite and Celery's file-system transport in one folder. The processes are the
same that production runs, only their settings differ.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

START_PATIENCE_S = 60.0
STOP_PATIENCE_S = 15.0


class NotStarted(RuntimeError):
    """A process ended, or did not answer, while it was being started."""


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def port_is_free(port: int) -> bool:
    """Nobody listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Child:
    """One process of ours, in its own session, with its own log."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - a fixed list of ours
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """To the whole session: a worker's children must not outlive it."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def stop(self) -> None:
        """TERM, patience, KILL."""
        if self.process is None:
            return
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self.process.wait()
        self.signal(signal.SIGKILL)

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, for a message about what went wrong."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except OSError:
            return ""


def wait_until(
    condition: Callable[[], bool], *, what: str, patience_s: float, children: list[Child]
) -> None:
    """Look until `condition` holds. Raises NotStarted when a child ends first or patience does."""
    deadline = time.monotonic() + patience_s
    while not condition():
        for child in children:
            if not child.running():
                raise NotStarted(
                    f"{child.name} ended while waiting for {what}:\n{child.last_lines()}"
                )
        if time.monotonic() > deadline:
            tails = "\n".join(f"--- {c.name}\n{c.last_lines()}" for c in children)
            raise NotStarted(f"{what} took over {patience_s:g} s\n{tails}")
        time.sleep(0.1)


@dataclass
class Federation:
    """Web and worker of one HANSE_HOME."""

    home: Path
    port: int
    settings: str = "broker.settings.dev"
    extra_env: dict[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    _lock: IO[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "HANSE_HOME": str(self.home),
            "DJANGO_SETTINGS_MODULE": self.settings,
            **self.extra_env,
        }

    def __enter__(self) -> Self:
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (self.home / "lock").open("w")
        except OSError as error:
            raise NotStarted(f"{self.home} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotStarted(f"another broker runs on {self.home}") from None
        if not port_is_free(self.port):
            raise NotStarted(f"port {self.port} of this machine is in use; choose another --port")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._lock is not None:
            self._lock.close()

    def migrate(self) -> None:
        """Bring the database to this version's tables."""
        self.manage("migrate", "--verbosity", "0")

    def manage(self, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603 - a fixed list of ours
            [sys.executable, "-m", "django", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # a Ctrl-C is for us; a migration is not left half-done
        )
        if done.returncode:
            raise NotStarted(f"manage {arguments[0]} failed:\n{done.stderr[-3000:]}")

    def start(self) -> None:
        """Start both processes and wait until the broker says that it is ready."""
        logs = self.home / "logs"
        self.children = [
            Child("web", self.web_command(), self.env, logs / "web.log"),
            Child("worker", self.worker_command(), self.env, logs / "worker.log"),
        ]
        for child in self.children:
            child.start()
        wait_until(
            self.ready, what="the broker", patience_s=START_PATIENCE_S, children=self.children
        )

    def web_command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "uvicorn",
            "broker.asgi:application",
            "--host=127.0.0.1",
            f"--port={self.port}",
            "--log-level=warning",
            "--no-access-log",
            "--timeout-graceful-shutdown=2",
        ]

    def worker_command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "celery",
            "--app=broker.celery",
            "--quiet",
            "worker",
            "--beat",
            f"--schedule={self.home / 'beat-schedule'}",
            "--concurrency=2",
            "--loglevel=WARNING",
            "--without-gossip",
            "--without-mingle",
        ]

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        for child in reversed(self.children):
            child.stop()
        self.children = []
