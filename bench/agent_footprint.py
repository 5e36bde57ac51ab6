"""What the site agent costs its host: disk, memory, processor, bytes to the broker.

Everything is real but the broker and the jobs: a base install made for the purpose, `hanse agent
run` in it, and a broker on loopback that answers as the protocol says. The jobs exist on the clock
only (`kind: fake`): each writes a progress line and a log line a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agents.protocol import SYNC_PATH, JobSpec, LeaseOrder, canonical, encode
from agents.state import Membership, StateFolder
from bench.support import report
from tests.agents.fake_broker import FakeBroker, serving

ROOT = Path(__file__).resolve().parents[1]
DISK_MB, MEMORY_MB, CPU_PERCENT, SYNC_KB = 40.0, 60.0, 1.0, 4.0  #: what is asked for
SETTLE_S = 5.0  #: after the last start
POLL_S = 30.0


def installed(folder: Path) -> Path:
    """A base install of this checkout, compiled; returns its Python."""
    home, wheels = folder / "install", folder / "wheels"
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    into = [*pip, "--python", str(python), "install", "--quiet"]
    pinned = str(ROOT / "requirements" / "base.txt")
    built = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    steps = (
        [sys.executable, "-m", "venv", "--without-pip", str(home)],
        [*pip, "wheel", "--quiet", *built, str(ROOT)],
        [*into, "--require-hashes", "-r", pinned],
        [*into, "--no-deps", "--no-index", "--find-links", str(wheels), "hanse"],
    )
    for step in steps:
        subprocess.run(step, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - our own words
    return python


def size_mb(python: Path) -> float:
    """10⁶ bytes of all files beside this Python's own standard library."""
    [packages] = (python.parent.parent / "lib").glob("python*/site-packages")
    return sum(path.lstat().st_size for path in packages.rglob("*") if path.is_file()) / 1e6


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    broker: FakeBroker

    def rss_mb(self) -> float:
        return self._kb("VmRSS") * 1024 / 1e6

    def peak_mb(self) -> float:
        return self._kb("VmHWM") * 1024 / 1e6

    def cpu_s(self) -> float:
        """Of all its threads, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _kb(self, key: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@contextmanager
def running(python: Path, folder: Path, *, gpus: int, renew_s: float) -> Iterator[Running]:
    """An agent with the configuration's defaults but a long-poll of POLL_S."""
    broker = FakeBroker()
    broker.renew_s = renew_s
    folder.mkdir()
    with serving(broker):
        file = folder / "agent.yaml"
        file.write_text(yaml.safe_dump(configuration(broker.url, gpus)))
        state = StateFolder(folder / "state")
        state.save(Membership(broker.url, "birch", "site-1", broker.credential))
        with (folder / "agent.log").open("wb") as log:
            words = [str(python), "-m", "agents", "run", "--config", str(file)]
            process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)  # noqa: S603
        try:
            yield Running(process.pid, broker)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def configuration(broker: str, gpus: int) -> dict[str, Any]:
    return {
        "broker": broker,
        "state": "state",
        "pools": [{"name": "a100", "gpu": "A100-80", "gpus": gpus, "reserve": "1.20"}],
        "classes": {"resnet50": {"samples_per_s": {"a100": 1000}}},
        "driver": {"kind": "fake"},
        "sync": {"wait_s": POLL_S},
    }


def lease(number: int) -> LeaseOrder:
    spec = JobSpec(
        job=f"job-{number}",
        name="resnet",
        job_class="resnet50",
        command="true",
        setup="",
        env={},
        samples_done=0,
        samples_wanted=0,
        probe=False,
        max_runtime_s=86400.0,
        grace_s=30.0,
        log_cap_bytes=1 << 24,
    )
    return LeaseOrder(
        f"attempt-{number}",
        "a100",
        1,
        contract="c",
        contract_samples=10**12,
        fence_s=900,
        spec=spec,
    )


def wait_for(found: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not found():
        if time.monotonic() > until:
            raise TimeoutError("the agent did not get there; see its log")
        time.sleep(0.1)


def idle(python: Path, folder: Path, seconds: float) -> dict[str, float]:
    """Memory and bytes of a site without jobs."""
    with running(python, folder, gpus=8, renew_s=3 * POLL_S) as agent:
        wait_for(lambda: len(agent.broker.syncs) > 2, 60.0)
        bodies: list[int] = []

        def weigh(path: str, request: Any, reply: Any) -> Any:
            if path == SYNC_PATH:
                bodies.append(len(canonical(request)) + len(json.dumps(encode(reply))))
            return reply

        agent.broker.answer_with = weigh
        began = agent.cpu_s()
        time.sleep(seconds)  # the window that is measured
        spent = agent.cpu_s() - began
        return {
            "idle_rss_mb": agent.rss_mb(),
            "idle_peak_mb": agent.peak_mb(),
            "idle_cpu_percent": 100 * spent / seconds,
            "idle_syncs_per_min": 60 * len(bodies) / seconds,
            "idle_sync_kb_per_min": 60 * sum(bodies) / seconds / 1000,
        }


def busy(python: Path, folder: Path, attempts: int, seconds: float) -> dict[str, float]:
    """Processor and memory with many running attempts, each told to the broker as configured."""
    with running(python, folder, gpus=attempts, renew_s=3 * POLL_S) as agent:
        for number in range(attempts):
            agent.broker.leases[f"attempt-{number}"] = lease(number)
        wait_for(lambda: len({name for name, _ in list(agent.broker.reports)}) >= attempts, 180.0)
        time.sleep(SETTLE_S)  # starting is not what is measured
        began, told = agent.cpu_s(), len(agent.broker.reports)
        time.sleep(seconds)  # the window that is measured
        spent = agent.cpu_s() - began
        return {
            "attempts": float(attempts),
            "cpu_percent": 100 * spent / seconds,
            "cpu_us_per_attempt_s": 1e6 * spent / seconds / attempts,
            "reports_per_s": (len(agent.broker.reports) - told) / seconds,
            "busy_rss_mb": agent.rss_mb(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=500, help="that run at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="each part is watched for")
    parser.add_argument("--python", default="", help="of a base install that is there already")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hanse-footprint-") as name:
        folder = Path(name)
        python = Path(asked.python) if asked.python else installed(folder)
        figures: dict[str, Any] = {"install_mb": size_mb(python)}
        figures |= idle(python, folder / "idle", asked.seconds)
        figures |= busy(python, folder / "busy", asked.attempts, asked.seconds)
    wanted = {
        "install_mb": DISK_MB,
        "idle_rss_mb": MEMORY_MB,
        "cpu_percent": CPU_PERCENT,
        "idle_sync_kb_per_min": SYNC_KB,
    }
    figures["seconds"] = asked.seconds
    figures["missed"] = [key for key, most in wanted.items() if figures[key] > most]
    report("agent_footprint", figures, as_json=asked.json)


if __name__ == "__main__":
    main()
