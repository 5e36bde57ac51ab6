"""`hanse agent selftest`: what works, what does not and why, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agents import attempt as facts
from agents.attempt import Attempt
from agents.cli import app
from agents.clock import Clock, SystemClock, VirtualClock
from agents.config import Config
from agents.drivers.base import Driver, Handle, Supply, Task
from agents.drivers.fake import FakeDriver
from agents.drivers.process import ProcessDriver
from agents.errors import AgentError
from agents.journal import Journal
from agents.protocol import AttemptState
from agents.selftest import STEPS, UP, Outcome, Selftest, Step
from tests.agents.making import a_config, a_lease, kill_guard, settings

POOLS = [
    {"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20", "devices": ["5", "6"]},
    {"name": "v100", "gpu": "V100", "gpus": 1, "reserve": "0.40"},
]


class NoTrap(ProcessDriver):
    """As a scheduler that kills without asking."""

    def start(self, task: Task) -> Handle:
        line = """printf '{"samples": 1}\\n' >> "$HANSE_PROGRESS";"""
        return super().start(replace(task, command=f"{line} echo {UP}; sleep 600"))


class Forgetful(ProcessDriver):
    """As one that finds nothing again."""

    def readopt(self, attempt: str) -> Handle | None:
        return None


class Left:
    def __init__(self, left: int) -> None:
        self.left = left


class Shared(FakeDriver):
    """Whose local users hold all of one pool."""

    pools = {"v100": Left(0)}

    def supply(self) -> Supply | None:
        return self


def a_test(
    config: Config,
    make: Callable[[], Driver],
    clock: Clock,
    *,
    attempts: tuple[Attempt, ...] = (),
    **more: Any,
) -> Selftest:
    values: dict[str, Any] = {"nonce": "abc", "limit_s": 20.0, **more}
    return Selftest(config=config, make=make, clock=clock, attempts=attempts, **values)


def outcomes(steps: list[Step], pool: str = "a100") -> dict[str, Outcome]:
    return {step.name: step.outcome for step in steps if step.pool == pool}


def holding(pool: str, slots: tuple[int, ...], name: str = "a1") -> Attempt:
    order = a_lease(name, pool=pool, gpus=len(slots))
    taken = facts.received(order, fence_at=5.0, boot="b")
    return replace(taken, state=AttemptState.RUNNING, slots=slots)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for left in tmp_path.glob("**/guard.json"):
        kill_guard(left.parent)


def processes(folder: Path, kind: type[ProcessDriver]) -> tuple[Config, Callable[[], Driver]]:
    config = a_config(folder)
    root = folder / "selftest"
    clock = SystemClock()
    return config, lambda: kind(root=root, site="", settings=config.driver, clock=clock)


def test_all_works_with_processes_and_nothing_is_left(folder: Path) -> None:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(settings(pools=POOLS)))
    words = ["selftest", "--config", str(file), "-o", "json"]
    done = CliRunner().invoke(app, words)
    value = json.loads(done.stdout)
    assert (done.exit_code, value["ok"]) == (0, True)
    found = [(step["pool"], step["name"], step["outcome"]) for step in value["steps"]]
    assert found == [(pool["name"], name, "works") for pool in POOLS for name in STEPS]
    assert all(step["seconds"] < 20 for step in value["steps"])
    assert not (folder / "state" / "selftest").exists()
    assert list((folder / "state" / "work").iterdir()) == []
    shown = CliRunner().invoke(app, words[:-2])
    assert shown.exit_code == 0
    assert "14 steps, all fine" in shown.output


def test_a_rehearsal_says_what_it_cannot_tell(folder: Path) -> None:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(settings(driver={"kind": "fake"})))
    done = CliRunner().invoke(app, ["selftest", "--config", str(file), "-o", "json"])
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    assert done.exit_code == 0
    assert steps["stop"]["outcome"] == steps["progress"]["outcome"] == "works"
    assert steps["exit code"]["outcome"] == "skipped"
    assert "runs no command" in steps["exit code"]["why"]


def test_a_stop_that_the_job_never_hears_of_fails(folder: Path) -> None:
    config, make = processes(folder, NoTrap)
    steps = list(a_test(config, make, SystemClock()).run())
    assert outcomes(steps) == {
        **dict.fromkeys(("start", "progress", "log", "readopt", "clean-up"), Outcome.WORKS),
        "stop": Outcome.FAILS,
        "exit code": Outcome.SKIPPED,
    }
    [stop] = [step for step in steps if step.name == "stop"]
    assert "SIGTERM did not reach the job" in stop.why


def test_a_job_that_is_not_found_again_fails_and_is_put_away(folder: Path) -> None:
    config, make = processes(folder, Forgetful)
    steps = list(a_test(config, make, SystemClock()).run())
    assert outcomes(steps)["readopt"] is Outcome.FAILS
    assert outcomes(steps)["clean-up"] is Outcome.WORKS
    assert make().known() == frozenset()


def test_a_driver_that_starts_nothing_says_why(folder: Path) -> None:
    clock = VirtualClock()
    driver = FakeDriver(clock=clock, speeds={})
    driver.refuse = "the partition is down"
    steps = list(a_test(a_config(folder), lambda: driver, clock).run())
    assert steps[0].why == "the partition is down"
    assert outcomes(steps)["start"] is Outcome.FAILS
    assert [step.why for step in steps[1:-1]] == ["start failed"] * 5


def test_it_is_bounded_in_time_and_the_job_is_ended(folder: Path) -> None:
    """A job that never comes to run, as in a long queue."""
    clock = VirtualClock()
    driver = FakeDriver(clock=clock, speeds={})
    test = a_test(a_config(folder), lambda: driver, clock, sleep=clock.advance)
    began = clock.boottime()
    steps = list(test.run())
    assert steps[0].why == "its first line of log has not come in time"
    assert clock.boottime() - began < 40
    assert driver.known() == frozenset()


def test_an_interrupted_test_leaves_nothing_running(folder: Path) -> None:
    config, make = processes(folder, ProcessDriver)
    run = a_test(config, make, SystemClock()).run()
    next(run)
    [name] = make().known()
    handle = make().readopt(name)
    assert handle is not None
    assert make().poll(handle).exit is None
    run.close()  # as Ctrl-C does
    assert make().poll(handle).exit is not None


def test_it_refuses_when_every_gpu_is_held(folder: Path) -> None:
    clock = VirtualClock()
    driver = FakeDriver(clock=clock, speeds={})
    test = a_test(a_config(folder), lambda: driver, clock, attempts=(holding("a100", (0, 1)),))
    with pytest.raises(AgentError, match="every GPU of every pool is held"):
        list(test.run())
    assert driver.known() == frozenset()


def test_a_busy_pool_is_skipped_and_a_held_gpu_is_not_used(folder: Path) -> None:
    clock = VirtualClock()
    started: list[Task] = []

    class Told(Shared):
        def start(self, task: Task) -> Handle:
            started.append(task)
            return super().start(task)

    driver = Told(clock=clock, speeds={("a100", "resnet50"): 1.0})
    config = a_config(folder, pools=POOLS, driver={"kind": "fake"})
    held = (holding("a100", (0,)),)
    test = a_test(config, lambda: driver, clock, attempts=held, sleep=clock.advance)
    steps = list(test.run())
    assert set(outcomes(steps, "v100").values()) == {Outcome.SKIPPED}
    assert outcomes(steps)["progress"] is Outcome.WORKS
    assert {(task.pool, task.slots, task.devices) for task in started} == {("a100", (1,), ("6",))}


def test_the_journal_of_a_running_agent_is_asked(folder: Path) -> None:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(settings()))
    (folder / "state").mkdir()
    journal = Journal(folder / "state" / "journal.sqlite3")
    journal.record(holding("a100", (0, 1)))
    done = CliRunner().invoke(app, ["selftest", "--config", str(file)])
    journal.close()
    assert done.exit_code == 1
    assert "every GPU" in done.output
