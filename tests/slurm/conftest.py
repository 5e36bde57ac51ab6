"""Two real Slurm clusters, started once for all tests of this folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.clock import Clock, SystemClock, boot_id
from agents.config import Config
from agents.drivers.base import Driver
from agents.drivers.slurm.driver import SlurmDriver
from tests.agents.making import a_config, until
from tests.slurm.cluster import TARGET, Cluster, missing, running

T = TypeVar("T")


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    absent = missing()
    if absent:
        pytest.skip(f"{', '.join(absent)} not on this machine: {TARGET} installs them")


@pytest.fixture(scope="session")
def folder(programs: None) -> Iterator[Path]:
    """Short: a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hs-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def elm(folder: Path) -> Iterator[Cluster]:
    yield from running("elm", folder / "elm")


@pytest.fixture(scope="session")
def oak(folder: Path) -> Iterator[Cluster]:
    yield from running("oak", folder / "oak")


def slurm_config(cluster: Cluster, folder: Path, **changes: Any) -> Config:
    """Four GPUs on two nodes; the shared folder is one of this machine's."""
    driver = {
        "kind": "slurm",
        "shared": str(folder / "shared"),
        "conf": str(cluster.conf),
        "memory_mb_per_gpu": 500,
        "look_s": 1.0,
        "pools": {"a100": {"gres": "gpu:a100", "gpus_per_node": 2}},
    }
    pools = [{"name": "a100", "gpu": "A100", "gpus": 4, "reserve": "1.20"}]
    return a_config(folder, driver={**driver, **changes}, pools=pools)


class SlurmBench:
    begin_s = 4.0
    late_s = 0.5

    def __init__(self, cluster: Cluster, folder: Path, **changes: Any) -> None:
        self.cluster = cluster
        self.folder = folder
        self.work = folder / "shared" / "work"
        self.root = folder / "shared" / "birch" / "attempts"
        self.clock: Clock = SystemClock()
        self.boot = boot_id()
        self.config = slurm_config(cluster, folder, **changes)
        self.driver: Driver = self.restarted()

    def restarted(self) -> SlurmDriver:
        return SlurmDriver(
            root=self.folder / "state" / "attempts",
            site="birch",
            settings=self.config.driver,
            clock=self.clock,
            boot=self.boot,
        )

    def with_commands_waiting(self, seconds: float) -> SlurmDriver:
        """A driver that gives Slurm's commands so much time."""
        driver = self.restarted()
        driver.commands = replace(driver.commands, timeout_s=seconds)
        return driver

    def now(self) -> float:
        return self.clock.boottime()

    def until(self, found: Callable[[], T], seconds: float = 40.0) -> T:
        return until(found, seconds)

    def job_of(self, attempt: str = "a1") -> str:
        """Slurm's number of it: other tests' attempts have the same name."""
        return str(json.loads((self.root / attempt / "job.json").read_text())["job"])

    def seen(self, what: str, attempt: str = "a1") -> str:
        """What squeue says of it, in its own format's letters."""
        words = ("squeue", "--noheader", "--states=all", f"--format={what}")
        return self.cluster.ask(*words, f"--jobs={self.job_of(attempt)}")


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., SlurmBench]]:
    made: list[SlurmBench] = []

    def make(cluster: Cluster, **changes: Any) -> SlurmBench:
        made.append(SlurmBench(cluster, tmp_path, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.cluster.heal()


@pytest.fixture
def bench(elm: Cluster, make_bench: Callable[..., SlurmBench]) -> SlurmBench:
    return make_bench(elm)
