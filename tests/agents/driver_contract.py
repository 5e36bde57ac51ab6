"""What every driver keeps, whatever schedules the jobs. A driver's tests inherit from it:

    class TestMine(RunsCommands):
        @pytest.fixture
        def bench(self) -> Iterator[Bench]: ...

`DriverContract` holds for rehearsals too, `RunsCommands` for drivers that run real commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from agents.drivers import guard
from agents.drivers.base import Driver, Exit, Handle, Phase
from agents.errors import DriverFailed
from agents.protocol import EndReason
from tests.agents.making import a_task, steps

T = TypeVar("T")


class Bench(Protocol):
    """A driver, its time, and how to wait in it."""

    driver: Driver
    begin_s: float  #: a job is under way this long after its start, on a machine at work
    late_s: float  #: an end may be this much after its time

    def now(self) -> float: ...

    def until(self, found: Callable[[], T], seconds: float = 30.0) -> T: ...


class RealBench(Bench, Protocol):
    work: Path  #: folders of jobs

    def restarted(self) -> Driver:
        """Another driver on the same folder, as after a restart of the agent."""
        ...


def over(bench: Bench, handle: Handle) -> Exit:
    found = bench.until(lambda: bench.driver.poll(handle).exit)
    assert found is not None
    return found


def samples(driver: Driver, attempt: str = "a1") -> list[int]:
    data = driver.progress(attempt, 0, 1 << 20)
    return [json.loads(line)["samples"] for line in data.splitlines()]


def text(driver: Driver, attempt: str = "a1") -> str:
    return driver.logs(attempt, 0, 1 << 20).data.decode()


class DriverContract:
    def test_it_runs_to_its_end_with_progress_and_log(self, bench: Bench) -> None:
        handle = bench.driver.start(a_task(command=steps(3), samples_wanted=3))
        assert bench.driver.poll(handle).phase is Phase.RUNNING
        end = over(bench, handle)
        assert (end.reason, end.exit_code) == (EndReason.EXITED, 0)
        assert end.ended is not None
        assert handle.started <= end.ended <= bench.now()
        assert samples(bench.driver)[-1] == 3
        log = bench.driver.logs("a1", 0, 1 << 20).data
        assert bench.driver.logs("a1", 3, 4).data == log[3:7]
        assert bench.driver.logs("a1", len(log), 10).data == b""

    def test_it_stops_when_asked_and_says_why(self, bench: Bench) -> None:
        handle = bench.driver.start(a_task(command=steps(10_000)))
        bench.until(lambda: samples(bench.driver))
        for _ in range(2):
            bench.driver.stop(handle, grace_s=2.0, reason=EndReason.REVOKED, why="outbid")
        end = over(bench, handle)
        assert (end.reason, end.message, end.exit_code) == (EndReason.REVOKED, "outbid", 143)

    def test_it_keeps_the_fence_and_moves_it_when_renewed(self, bench: Bench) -> None:
        fence = bench.now() + bench.begin_s + 1.0
        handle = bench.driver.start(a_task(command=steps(10_000), fence_at=fence, fence_lead_s=0.2))
        bench.driver.renew(handle, fence + 0.5)
        end = over(bench, handle)
        assert end.reason is EndReason.FENCED
        assert end.ended is not None
        assert fence < end.ended < fence + 0.5 + bench.late_s

    def test_it_keeps_the_runtime_limit(self, bench: Bench) -> None:
        handle = bench.driver.start(a_task(command=steps(10_000), max_runtime_s=0.5))
        end = over(bench, handle)
        assert end.reason is EndReason.RUNTIME_LIMIT
        assert end.ended is not None
        assert end.ended - handle.started >= 0.5

    def test_an_attempt_starts_once(self, bench: Bench) -> None:
        handle = bench.driver.start(a_task(command=steps(1), samples_wanted=1))
        over(bench, handle)
        with pytest.raises(DriverFailed, match="before"):
            bench.driver.start(a_task())

    def test_readopting_finds_what_was_started(self, bench: Bench) -> None:
        handle = bench.driver.start(a_task(command=steps(3), samples_wanted=3))
        bench.until(lambda: samples(bench.driver))
        again = bench.driver.readopt("a1")
        assert again is not None
        assert bench.driver.poll(again).phase in (Phase.RUNNING, Phase.OVER)
        assert over(bench, again).reason is EndReason.EXITED
        assert bench.driver.readopt("never") is None
        assert bench.driver.known() == {"a1"}
        bench.driver.cleanup("a1")
        bench.driver.cleanup("a1")
        assert bench.driver.known() == frozenset()
        assert handle.attempt == again.attempt

    def test_a_log_ends_at_its_cap_with_a_mark(self, bench: Bench) -> None:
        handle = bench.driver.start(
            a_task(command="while echo 0123456789; do :; done", log_cap_bytes=500, max_runtime_s=60)
        )
        bench.until(lambda: bench.driver.logs("a1", 0, 10_000).truncated)
        bench.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
        over(bench, handle)
        part = bench.driver.logs("a1", 0, 10_000)
        assert len(part.data) == 500
        assert part.data.endswith(guard.log_mark(500))
        assert not bench.driver.logs("a1", 0, 100).truncated
        assert bench.driver.logs("a1", 400, 100).truncated


STUBBORN = """trap 'echo heard' TERM
echo up
while :; do sleep 0.1; done"""


class RunsCommands(DriverContract):
    def test_the_exit_code_is_the_commands(self, bench: RealBench) -> None:
        end = over(bench, bench.driver.start(a_task(command="echo out; echo err >&2; exit 3")))
        assert (end.reason, end.exit_code) == (EndReason.EXITED, 3)
        assert sorted(text(bench.driver).split()) == ["err", "out"]

    def test_sigterm_comes_first_and_sigkill_after_the_grace(self, bench: RealBench) -> None:
        handle = bench.driver.start(a_task(command=STUBBORN))
        bench.until(lambda: "up" in text(bench.driver))
        asked = bench.now()
        bench.driver.stop(handle, grace_s=1.0, reason=EndReason.REVOKED, why="")
        end = over(bench, handle)
        assert "heard" in text(bench.driver)
        assert (end.reason, end.exit_code) == (EndReason.REVOKED, 137)
        assert end.ended is not None
        assert end.ended >= asked + 1.0

    def test_the_fence_kills_without_the_agent(self, bench: RealBench) -> None:
        fence = bench.now() + bench.begin_s + 1.0
        beat = "while :; do date +%s.%N > beat; sleep 0.05; done"
        handle = bench.driver.start(a_task(command=beat, fence_at=fence))
        file = bench.work / "job-a1" / "beat"
        bench.until(file.exists)
        bench.until(lambda: bench.now() > fence + bench.late_s)  # nobody looks at it meanwhile
        last = file.stat().st_mtime_ns
        bench.until(lambda: bench.now() > fence + bench.late_s + 0.5)
        assert file.stat().st_mtime_ns == last
        assert over(bench, handle).reason is EndReason.FENCED

    def test_a_new_driver_goes_on_where_the_old_one_was(self, bench: RealBench) -> None:
        command = "echo started; while [ ! -e finish ]; do sleep 0.05; done; exit 4"
        bench.driver.start(a_task(command=command))
        bench.until(lambda: "started" in text(bench.driver))
        bench.driver = bench.restarted()
        assert bench.driver.known() == {"a1"}
        handle = bench.driver.readopt("a1")
        assert handle is not None
        assert bench.driver.poll(handle).phase is Phase.RUNNING
        (bench.work / "job-a1" / "finish").touch()
        assert over(bench, handle).exit_code == 4
        assert text(bench.driver).count("started") == 1

    def test_the_environment_is_the_jobs_own(
        self, bench: RealBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
        plan = {"PET_NPROC_PER_NODE": "2", "HANSE_PLAN": '{"stages": 1}'}
        task = a_task(command="env", env={"EPOCHS": "3"}, gpus=2, samples_wanted=9, plan=plan)
        over(bench, bench.driver.start(task))
        found = text(bench.driver)
        env = dict(line.split("=", 1) for line in found.splitlines() if "=" in line)
        assert "SECRET_OF_THE_AGENT" not in found
        assert env["EPOCHS"] == "3"
        assert env["HOME"] == env["PWD"] == str(bench.work / "job-a1")
        assert {name: env[name] for name in plan} == plan
        told = {
            "HANSE_JOB": "job-a1",
            "HANSE_ATTEMPT": "a1",
            "HANSE_CLASS": "resnet50",
            "HANSE_SAMPLES": "9",
            "HANSE_SAMPLES_DONE": "0",
            "HANSE_GPUS": "2",
            "HANSE_POOL": "a100",
            "HANSE_SITE": "birch",
            "HANSE_CHECKPOINT_DIR": str(bench.work / "job-a1" / "checkpoint"),
            "HANSE_GRACE_S": "5",
        }
        assert {name: env.get(name) for name in told} == told
        assert "HANSE_PROGRESS" in env

    def test_shell_characters_in_fields_are_inert(self, bench: RealBench) -> None:
        evil = '$(touch pwned); `touch pwned` "; touch pwned #'
        task = a_task(command='printf %s "$EVIL"', env={"EVIL": evil})
        over(bench, bench.driver.start(task))
        assert text(bench.driver) == evil
        assert not (bench.work / "job-a1" / "pwned").exists()

    @pytest.mark.parametrize("name", ["../out", "a/b", "", ".", "-x", "a b", "a\n"])
    def test_names_that_are_no_label_are_refused(self, bench: RealBench, name: str) -> None:
        with pytest.raises(DriverFailed):
            bench.driver.start(a_task(name))
        with pytest.raises(DriverFailed):
            bench.driver.start(a_task("fine", job=name))

    def test_a_setup_that_fails_ends_the_attempt(self, bench: RealBench) -> None:
        task = a_task(setup="echo set; false", command="echo ran")
        end = over(bench, bench.driver.start(task))
        assert end.exit_code == 1
        assert text(bench.driver) == "set\n"

    def test_a_stop_before_it_is_up_is_kept(self, bench: RealBench) -> None:
        handle = bench.driver.start(a_task(command="touch ran; sleep 600"))
        bench.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="at once")
        end = over(bench, handle)
        assert (end.reason, end.message) == (EndReason.REVOKED, "at once")
