"""What every driver keeps, on the real control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.drivers.base import Handle, Task
from agents.drivers.kubernetes.driver import KubernetesDriver
from tests.agents.driver_contract import RealBench, RunsCommands, over, text
from tests.agents.making import a_task, until
from tests.kubernetes.site import Bench, Cluster

T = TypeVar("T")


class Watched(KubernetesDriver):
    """Remembers what it started, so that a wait can look after it as the agent's loop does."""

    handles: dict[str, Handle]

    def start(self, task: Task) -> Handle:
        handle = self.handles[task.attempt] = super().start(task)
        return handle


class LookedAfter(Bench):
    """Waits as the loop does: with a look at every attempt in each round."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.handles: dict[str, Handle] = {}
        super().__init__(cluster, folder)

    def make(self, *, root: str = "attempts") -> KubernetesDriver:
        driver = super().make(root=root)
        driver.__class__ = Watched
        assert isinstance(driver, Watched)
        driver.handles = self.handles
        return driver

    def until(self, found: Callable[[], T], seconds: float = 30.0) -> T:
        def looked() -> T:
            for handle in self.handles.values():
                self.driver.poll(handle)
            return found()

        return until(looked, seconds)


class TestKubernetes(RunsCommands):
    @pytest.fixture
    def bench(self, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
        made = LookedAfter(cluster, tmp_path)
        yield made
        made.close()

    def test_the_environment_is_the_jobs_own(
        self, bench: RealBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Paths are the container's own; the rest is as everywhere."""
        monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
        task = a_task(command="env", env={"EPOCHS": "3"}, gpus=2, samples_wanted=9)
        over(bench, bench.driver.start(task))
        found = text(bench.driver)
        env = dict(line.split("=", 1) for line in found.splitlines() if "=" in line)
        assert "SECRET_OF_THE_AGENT" not in found
        told = {
            "EPOCHS": "3",
            "HOME": "/run/hanse/work",
            "PWD": "/run/hanse/work",
            "HANSE_JOB": "job-a1",
            "HANSE_ATTEMPT": "a1",
            "HANSE_CLASS": "resnet50",
            "HANSE_SAMPLES": "9",
            "HANSE_SAMPLES_DONE": "0",
            "HANSE_GPUS": "2",
            "HANSE_POOL": "a100",
            "HANSE_SITE": "birch",
            "HANSE_CHECKPOINT_DIR": "/run/hanse/work/checkpoint",
            "HANSE_GRACE_S": "5",
            "HANSE_PROGRESS": "/run/hanse/run/progress.jsonl",
        }
        assert {name: env.get(name) for name in told} == told
        assert "HANSE_RUN" not in env
