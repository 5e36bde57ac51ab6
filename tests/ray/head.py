"""A real Ray head on free ports, from an environment of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agents.clock import SystemClock
from agents.drivers import processes
from agents.drivers.ray.server import RayServer
from agents.errors import DriverFailed
from tests.agents.making import ROOT, until

TARGET = "make test-ray"
GPUS = 4
BOOT_S = 90.0  #: on a machine that is busy with other tests
MARK = "HANSE_TEST_RAY"
ACCELERATOR = "A100"


def program() -> Path | None:
    """Ray's own command, or None where it is not installed."""
    path = Path(os.environ.get("HANSE_RAY_VENV", ROOT / ".venv-ray")) / "bin" / "ray"
    return path if path.exists() else None


class RayHead:
    """`folder` is short, because a socket's path may have 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(7)
        self.address = f"http://127.0.0.1:{self.ports[1]}"
        self.server = RayServer(self.address, clock=SystemClock())
        self._started: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ray = program()
        assert ray is not None
        port, dashboard, agent, grpc, client, metrics, workers = self.ports
        words = [
            str(ray),
            *("start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=true"),
            *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
            *(f"--port={port}", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"),
            *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
            *(f"--min-worker-port={workers}", f"--max-worker-port={workers + 100}"),
            *("--num-cpus=8", f"--num-gpus={GPUS}", "--object-store-memory=80000000"),
            f'--resources={{"accelerator_type:{ACCELERATOR}": 1}}',
            f"--temp-dir={self.folder / 't'}",
        ]
        env = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        env.update(RAY_ENABLE_UV_RUN_RUNTIME_ENV="0", RAY_prestart_worker_first_driver="0")
        env[MARK] = str(self.folder)
        with (self.folder / "head.log").open("ab") as log:
            self._started = subprocess.Popen(
                words, env=env, stdout=log, stderr=log, start_new_session=True
            )
        until(self.ready, BOOT_S)

    def ready(self) -> bool:
        """It tells of a node, and its agent answers about jobs."""
        self.server.quiet_until = 0.0
        try:
            return bool(self.server.nodes()) and self.server.jobs() is not None
        except DriverFailed:
            return False

    def kill(self) -> None:
        """SIGKILL to all of Ray on this host; what guards a job is not Ray's."""

        def rays() -> list[processes.Process]:
            return [p for p in self.processes() if b".pyz" not in words_of(p.pid)]

        for process in rays():
            processes.kill(process)
        until(lambda: not rays())
        self._reap()

    def processes(self) -> list[processes.Process]:
        found = processes.marked(f"{MARK}={self.folder}")
        return [process for process in found if process.state not in "ZX"]

    def close(self) -> None:
        for process in self.processes():
            processes.kill(process)
        until(lambda: not self.processes(), 30)
        self._reap()

    def _reap(self) -> None:
        if self._started is not None:
            self._started.wait(timeout=10)
        self._started = None


@contextmanager
def running(folder: Path) -> Iterator[RayHead]:
    head = RayHead(folder)
    try:
        head.start()
        yield head
    finally:
        head.close()
        shutil.rmtree(folder / "t", ignore_errors=True)


def words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def free_ports(count: int) -> list[int]:
    """Some that nobody listens on now; the last begins a row for Ray's workers."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count - 1)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in held]
    workers = 20000 + ports[0] % 97 * 100
    return [*ports, workers]
