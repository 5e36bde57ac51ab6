"""One real Ray head for the tests of this folder."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.clock import Clock, SystemClock, boot_id
from agents.config import Config
from agents.drivers.base import Driver
from agents.drivers.ray.driver import RayDriver
from agents.drivers.ray.server import RayServer
from tests.agents.fake_broker import FakeBroker, serving
from tests.agents.making import AgentProcess, a_config, kill_guard, until
from tests.ray.head import ACCELERATOR, GPUS, TARGET, RayHead, program, running

T = TypeVar("T")
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def software() -> None:
    if program() is None:
        pytest.skip(f"Ray is not on this machine: {TARGET} installs it")


@pytest.fixture(scope="session")
def head(software: None) -> Iterator[RayHead]:
    with tempfile.TemporaryDirectory(prefix="hr-") as name, running(Path(name)) as found:
        yield found


def ray_settings(head: RayHead, **changes: Any) -> dict[str, Any]:
    """Values of a configuration file."""
    driver = {
        "kind": "ray",
        "address": head.address,
        "work": "shared/work",
        "pools": {"a100": {"accelerator": ACCELERATOR}},
        "look_s": 0.5,
        "prefix": f"test-{next(NUMBERS)}",  # Ray mistakes a new job for an old one of its name
    }
    pools = [{"name": "a100", "gpu": "A100", "gpus": GPUS, "reserve": "1.20"}]
    return {"driver": {**driver, **changes}, "pools": pools}


class RayBench:
    begin_s = 15.0
    late_s = 1.0

    def __init__(self, head: RayHead, folder: Path, **changes: Any) -> None:
        self.head = head
        self.work = folder / "shared" / "work"
        self.root = folder / "shared" / "work.attempts" / "birch"
        self.clock: Clock = SystemClock()
        self.boot = boot_id()
        self.config: Config = a_config(folder, **ray_settings(head, **changes))
        self.driver: Driver = self.restarted()

    def restarted(self) -> RayDriver:
        ray = self.config.driver.own
        return RayDriver(
            root=self.root,
            site="birch",
            settings=self.config.driver,
            ray=ray,
            server=RayServer(ray.address, clock=self.clock),
            clock=self.clock,
            pools=("a100",),
            boot=self.boot,
        )

    def now(self) -> float:
        return self.clock.boottime()

    def until(self, found: Callable[[], T], seconds: float = 60.0) -> T:
        return until(found, seconds)

    def close(self) -> None:
        """End what is left, and wait until its GPUs are free."""
        for name in self.driver.known():
            kill_guard(self.root / name)
        until(lambda: all(job.over for job in self.head.server.jobs()), 60)


@pytest.fixture
def make_bench(head: RayHead, tmp_path: Path) -> Iterator[Callable[..., RayBench]]:
    made: list[RayBench] = []

    def make(**changes: Any) -> RayBench:
        made.append(RayBench(head, tmp_path, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., RayBench]) -> RayBench:
    return make_bench()


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with serving(FakeBroker()) as found:
        yield found


@pytest.fixture
def agent(head: RayHead, broker: FakeBroker, tmp_path: Path) -> Iterator[AgentProcess]:
    """A real agent on the real head; not started yet."""
    made = AgentProcess(tmp_path, broker.url, **ray_settings(head))
    yield made
    made.close()
    for folder in (tmp_path / "shared").glob("work.attempts/*/attempts/*"):
        kill_guard(folder)
