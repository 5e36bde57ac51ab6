"""The contract of all drivers for those without a scheduler; then what only processes get wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.clock import SystemClock, VirtualClock, boot_id
from agents.drivers import guard, processes
from agents.drivers.base import Driver, Handle
from agents.drivers.environment import refusal
from agents.drivers.fake import FakeDriver
from agents.drivers.process import ProcessDriver
from agents.protocol import EndReason
from tests.agents.driver_contract import DriverContract, RunsCommands, over
from tests.agents.making import a_config, a_task, alive, kill_guard, until

T = TypeVar("T")


class ProcessBench:
    begin_s = 0.0
    late_s = 0.5

    def __init__(self, folder: Path, **driver: Any) -> None:
        self.root = folder / "attempts"
        self.work = folder / "state" / "work"
        self.clock = SystemClock()
        self.settings = a_config(folder, driver=driver).driver
        self.driver: Driver = self.restarted()

    def restarted(self) -> ProcessDriver:
        return ProcessDriver(root=self.root, site="birch", settings=self.settings, clock=self.clock)

    def now(self) -> float:
        return self.clock.boottime()

    def until(self, found: Callable[[], T], seconds: float = 10.0) -> T:
        return until(found, seconds)

    def left(self, attempt: str) -> list[processes.Process]:
        """What still carries the attempt's mark."""
        return processes.marked(f"HANSE_PROGRESS={self.root / attempt / 'progress.jsonl'}")

    def close(self) -> None:
        for folder in self.root.iterdir():
            kill_guard(folder)


class FakeBench:
    begin_s = 0.0
    late_s = 0.5

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.driver: Driver = FakeDriver(clock=self.clock, speeds={("a100", "resnet50"): 1.0})

    def now(self) -> float:
        return self.clock.boottime()

    def until(self, found: Callable[[], T], seconds: float = 10.0) -> T:
        for _ in range(1000):
            value = found()
            if value:
                return value
            self.clock.advance(0.1)
        raise AssertionError("waited in vain")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ProcessBench]:
    made = ProcessBench(tmp_path)
    yield made
    made.close()


class TestFake(DriverContract):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench()


class TestProcess(RunsCommands):
    @pytest.fixture
    def bench(self, real: ProcessBench) -> ProcessBench:
        return real


# -- processes only -------------------------------------------------------------------------------


def test_a_child_that_ignores_sigterm_and_leaves_its_session_is_gone(real: ProcessBench) -> None:
    stubborn = (
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > c1; while :; do sleep 9; done' &"
    )
    stubborn += "(sleep 600 & echo $! > c2); while :; do sleep 9; done"
    handle = real.driver.start(a_task(command=stubborn))
    work = real.work / "job-a1"
    until(lambda: _text(work / "c1") and _text(work / "c2"))
    children = [_text(work / name) for name in ("c1", "c2")]
    real.driver.stop(handle, grace_s=0.3, reason=EndReason.REVOKED, why="")
    end = over(real, handle)
    assert (end.reason, end.exit_code) == (EndReason.REVOKED, 137)
    assert not any(alive(int(child)) for child in children)
    assert real.left("a1") == []


def test_background_children_do_not_outlive_the_command(real: ProcessBench) -> None:
    handle = real.driver.start(a_task(command="sleep 600 & echo $! > child; exit 3"))
    end = over(real, handle)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 3)
    assert not alive(int((real.work / "job-a1" / "child").read_text()))


def test_a_training_child_keeps_its_grace_when_its_shell_dies(real: ProcessBench) -> None:
    child = 'sh -c \'trap "sleep 0.4; echo saved; exit 0" TERM; echo up; '
    child += "while :; do sleep 0.05; done'; true"
    handle = real.driver.start(a_task(command=child))
    until(lambda: b"up" in real.driver.logs("a1", 0, 100).data)
    real.driver.stop(handle, grace_s=5.0, reason=EndReason.REVOKED, why="")
    over(real, handle)
    assert b"saved" in real.driver.logs("a1", 0, 100).data


@pytest.mark.parametrize("whom", ["keeper", "guard", "both"])
def test_nothing_is_left_when_its_guardians_are_killed(real: ProcessBench, whom: str) -> None:
    handle = real.driver.start(a_task(command="setsid sleep 600 & echo $! > c; sleep 600"))
    child = int(until(lambda: _text(real.work / "job-a1" / "c")))
    keeper = json.loads(handle.ref)["pid"]
    inner = next(p.pid for p in processes.everybody() if p.parent == keeper)
    for pid in {"keeper": [keeper], "guard": [inner], "both": [keeper, inner]}[whom]:
        os.kill(pid, signal.SIGKILL)
    if whom != "both":
        until(lambda: not alive(child))  # whoever is left sees to it, without the agent
    end = over(real, handle)
    assert end.reason is EndReason.LOST
    until(lambda: not alive(child))
    until(lambda: real.left("a1") == [])


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def test_a_pid_that_came_round_again_is_another_process(real: ProcessBench) -> None:
    me = processes.look(os.getpid())
    assert me is not None
    (real.root / "a1").mkdir()
    for start, boot in ((me.start - 1, boot_id()), (me.start, "another boot")):
        ref = json.dumps({"pid": me.pid, "start": start, "boot": boot})
        status = real.driver.poll(Handle("a1", ref, 0.0))
        assert status.exit is not None
        assert status.exit.reason is EndReason.LOST  # and this test was not killed


def test_a_guard_that_comes_late_finds_its_folder_taken(real: ProcessBench) -> None:
    folder = real.root / "a1"
    folder.mkdir()
    assert real.driver.readopt("a1") is None
    assert not guard.claim_as({"pid": 0, "start": 0}, str(folder / "guard.json"))
    assert real.driver.readopt("a1") is None


def test_the_environment_is_clean(real: ProcessBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    task = a_task(command="env; ls /proc/self/fd", env={"EPOCHS": "3"}, gpus=2, devices=("0", "2"))
    task = replace(task, samples_wanted=9)
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    over(real, real.driver.start(task))
    os.close(leak)
    text = real.driver.logs("a1", 0, 1 << 16).data.decode()
    env = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert "SECRET_OF_THE_AGENT" not in text
    assert env["EPOCHS"] == "3"
    assert env["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert env["HOME"] == env["PWD"] == str(real.work / "job-a1")
    assert {name for name in env if name.startswith("HANSE_")} == {
        *("HANSE_PROGRESS", "HANSE_JOB", "HANSE_ATTEMPT", "HANSE_CLASS", "HANSE_SAMPLES"),
        *("HANSE_SAMPLES_DONE", "HANSE_GPUS", "HANSE_POOL", "HANSE_SITE", "HANSE_CHECKPOINT_DIR"),
        "HANSE_GRACE_S",
    }
    fds = [line for line in text.splitlines() if line.isdigit()]
    assert set(fds) <= {"0", "1", "2", "3"}  # 3 is ls's own


def test_shell_characters_in_fields_are_inert(real: ProcessBench) -> None:
    evil = '$(touch pwned); `touch pwned` "; touch pwned #'
    task = a_task(command='printf %s "$EVIL$HANSE_POOL"', env={"EVIL": evil}, pool=evil)
    over(real, real.driver.start(task))
    assert real.driver.logs("a1", 0, 1 << 16).data.decode() == evil * 2
    assert not (real.work / "job-a1" / "pwned").exists()


@pytest.mark.parametrize(
    "env", [{"LD_PRELOAD": "x"}, {"PATH": "x"}, {"HANSE_X": "1"}, {"A B": ""}, {"A": "\x00"}]
)
def test_dangerous_variables_are_refused_with_a_reason(env: dict[str, str]) -> None:
    assert refusal(env)
    assert refusal({"EPOCHS": "$(x)"}) is None


def test_memory_is_limited_per_gpu(tmp_path: Path) -> None:
    bench = ProcessBench(tmp_path, memory_mb_per_gpu=100)
    hungry = "python3 -c 'x = bytearray(300 << 20); print(len(x))'"
    over(bench, bench.driver.start(a_task("small", command=hungry)))
    assert b"MemoryError" in bench.driver.logs("small", 0, 10_000).data
    over(bench, bench.driver.start(a_task("large", command=hungry, gpus=4)))
    assert b"314572800" in bench.driver.logs("large", 0, 10_000).data
    bench.close()


def test_threads_and_cores_follow_the_gpus(tmp_path: Path) -> None:
    bench = ProcessBench(tmp_path, threads_per_gpu=1, pin_cpus=True, env={"FROM_SITE": "yes"})
    command = "echo $OMP_NUM_THREADS $FROM_SITE; grep Cpus_allowed_list /proc/self/status"
    over(bench, bench.driver.start(a_task(command=command, gpus=1, slots=(0,))))
    first = min(os.sched_getaffinity(0))
    log = bench.driver.logs("a1", 0, 10_000).data.decode()
    assert log == f"1 yes\nCpus_allowed_list:\t{first}\n"
    bench.close()


def test_a_program_that_is_not_there_says_so(real: ProcessBench) -> None:
    end = over(real, real.driver.start(a_task(command="", argv=("no-such-program", "-x"))))
    assert end.exit_code == 127
    assert b"no-such-program cannot be started" in real.driver.logs("a1", 0, 200).data


def test_a_job_that_puts_a_pipe_in_place_of_its_progress_holds_nobody_up(
    real: ProcessBench,
) -> None:
    handle = real.driver.start(a_task(command='mkfifo "$HANSE_PROGRESS"; echo made; sleep 600'))
    until(lambda: real.driver.logs("a1", 0, 10).data)
    began = time.monotonic()
    assert real.driver.progress("a1", 0, 100) == b""
    assert time.monotonic() - began < 1
    real.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(real, handle)
