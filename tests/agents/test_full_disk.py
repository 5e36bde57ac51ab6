"""A full disk at the agent: jobs keep their fences, ends are kept, nothing told is taken back.

The file systems are real: a small tmpfs, which needs root, filled to its last byte.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import attempt as facts
from agents.attempt import Attempt
from agents.clock import SystemClock
from agents.drivers import jsonfile
from agents.drivers.base import LogPart, Phase
from agents.errors import JournalFull
from agents.patience import MAX_WAITING, PatientJournal
from agents.protocol import AttemptState, EndReason, Receipt, ReportKind
from tests.agents.driver_contract import over
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import AgentProcess, a_lease, a_task, kill_guard, until
from tests.agents.test_drivers import ProcessBench

SIZE = 4 * 1024 * 1024


class SmallDisk:
    """A file system of its own that can be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """To the last byte, whatever frees something meanwhile."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root and is not allowed here")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def bench(disk: SmallDisk) -> Iterator[ProcessBench]:
    made = ProcessBench(disk.path)
    yield made
    for folder in made.root.iterdir():
        kill_guard(folder)


# -- driver and guard -----------------------------------------------------------------------------


def test_fence_stop_and_end_need_no_room(disk: SmallDisk, bench: ProcessBench) -> None:
    saves = "trap 'echo saving; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    fence = bench.now() + 2.0
    handle = bench.driver.start(a_task(command=saves, fence_at=fence))
    until(lambda: b"up" in bench.driver.logs("a1", 0, 10).data)
    disk.fill()
    bench.driver.renew(handle, fence + 3600.0)
    until(lambda: bench.now() > fence + 0.5)
    assert bench.driver.poll(handle).phase is Phase.RUNNING  # the first fence would have ended it
    bench.driver.stop(handle, grace_s=5.0, reason=EndReason.REVOKED, why="outbid " * 600)
    end = over(bench, handle)
    assert (end.reason, end.exit_code) == (EndReason.REVOKED, 5)
    assert end.message.startswith("outbid outbid")


def test_a_job_that_ends_well_on_a_full_disk_has_ended_well(
    disk: SmallDisk, bench: ProcessBench
) -> None:
    waits = "echo up; while [ ! -e go ]; do sleep 0.05; done; exit 7"
    handle = bench.driver.start(a_task(command=waits))
    until(lambda: b"up" in bench.driver.logs("a1", 0, 10).data)
    (bench.work / "job-a1" / "go").touch()
    disk.fill()
    end = over(bench, handle)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 7)


def test_without_any_room_laid_down_the_guard_is_told_by_a_signal(
    disk: SmallDisk, bench: ProcessBench
) -> None:
    """An attempt that an older agent started."""
    handle = bench.driver.start(a_task(command="echo up; sleep 600", grace_s=0.2))
    until(lambda: b"up" in bench.driver.logs("a1", 0, 10).data)
    (bench.root / "a1" / "stop.json.room").unlink()
    disk.fill()
    bench.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="outbid")
    assert over(bench, handle).reason is EndReason.DRIVER_FAILED


def test_half_of_two_renewals_is_no_fence(tmp_path: Path) -> None:
    old, new = (json.dumps(jsonfile.renewal(at)) for at in (1999.5, 2000.5))
    for cut in range(len(new) + 1):
        try:
            torn = json.loads(new[:cut] + old[cut:])
        except ValueError:
            continue
        assert jsonfile.fence_of(torn) in (None, 1999.5, 2000.5)
    assert jsonfile.fence_of({"fence_at": 3.0}) == 3.0  # as an older agent wrote it
    with pytest.raises(FileNotFoundError):
        jsonfile.rewrite(str(tmp_path / "gone"), {})


# -- the journal ----------------------------------------------------------------------------------


def received(name: str = "a1") -> Attempt:
    return facts.received(a_lease(name), fence_at=5.0, boot="b")


def logged(attempt: Attempt, size: int) -> LogPart:
    return LogPart(b"x" * size)


@pytest.fixture
def journal(disk: SmallDisk) -> Iterator[PatientJournal]:
    made = PatientJournal(disk.path / "j.sqlite3")
    yield made
    made.close()


def test_what_cannot_be_written_waits_without_a_number(
    disk: SmallDisk, journal: PatientJournal
) -> None:
    one = journal.record(received(), [facts.fact_started(received(), "t")])
    disk.fill()
    for _ in range(200):  # what room the journal's own files have is used up first
        one = journal.record(one, [facts.fact_progress(one, "t")])
        if journal.full:
            break
    assert journal.full
    last, count = one.last_seq, journal.unsent()
    one = journal.record(one, [facts.fact_progress(one, "t")])
    assert (one.last_seq, journal.unsent()) == (last, count + 1)
    assert journal.unsent_of("a1", ReportKind.PROGRESS)[0] == count  # one of all is `started`
    assert [r.seq for r in journal.pending(limit=999, max_bytes=1 << 20)] == [*range(1, last + 1)]
    with pytest.raises(JournalFull):
        journal.record(received("a2"), durable=True)
    assert journal.get("a2") is None
    journal.note("orders", "x")
    assert journal.noted("orders") == "x"
    disk.free()
    found = journal.pending(limit=999, max_bytes=1 << 20)
    assert [r.seq for r in found] == [*range(1, count + 2)]
    assert not journal.full
    assert journal.record(received("a2"), durable=True).attempt == "a2"


def test_answers_on_a_full_disk_count_at_once(disk: SmallDisk, journal: PatientJournal) -> None:
    one = journal.record(received())
    for _ in range(3):
        part = logged(one, 60_000)
        one = journal.record(one, [facts.fact_log(one, part, "t")])
    journal.record(received("gone"), [facts.fact_started(received("gone"), "t")])
    disk.fill()
    while not journal.full:
        one = journal.record(one, [facts.fact_log(one, logged(one, 20_000), "t")])
    journal.receive([Receipt("a1", seq, True) for seq in (1, 2)])
    journal.forget("gone")
    assert journal.get("gone") is None
    found = journal.pending(limit=2, max_bytes=1000)
    assert found
    assert min(r.seq for r in found) == 3
    assert {r.attempt for r in found} == {"a1"}
    disk.free()
    found = journal.pending(limit=999, max_bytes=1 << 24)
    journal.close()
    again = PatientJournal(disk.path / "j.sqlite3")
    assert [r.seq for r in again.pending(limit=999, max_bytes=1 << 24)] == [r.seq for r in found]
    assert again.get("gone") is None
    again.close()


def test_log_in_memory_has_a_bound(disk: SmallDisk, journal: PatientJournal) -> None:
    one = journal.record(received())
    disk.fill()
    for _ in range(400):
        if journal.unsent_of("other", ReportKind.LOG)[1]:
            break
        one = journal.record(one, [facts.fact_log(one, logged(one, 48_000), "t")])
    _, waiting = journal.unsent_of("other", ReportKind.LOG)
    assert waiting > MAX_WAITING  # no attempt is let add to it


def test_a_start_on_a_full_disk_has_a_number(disk: SmallDisk, journal: PatientJournal) -> None:
    first = journal.begin("one")
    disk.fill()
    starts = [journal.begin("two") for _ in range(200)]
    assert journal.full
    assert first == "one.1"
    assert starts[-1].startswith("one.")
    assert starts[-1] == starts[-2]


# -- the agent ------------------------------------------------------------------------------------


def test_the_agent_lives_through_it_and_loses_nothing(disk: SmallDisk, broker: FakeBroker) -> None:
    agent = AgentProcess(disk.path, broker.url)
    agent.file.write_text(agent.file.read_text().replace("state: state", f"state: {agent.state}"))
    outside = AgentProcessOutside(agent, disk.path.parent)
    outside.start()
    try:
        ends = "echo up; trap 'exit 0' TERM; while [ ! -e finish ]; do sleep 0.05; done; exit 3"
        broker.lease(a_lease(command=ends, fence_s=6.0))
        until(lambda: broker.log("a1") == b"up\n")
        disk.fill()
        seen = len(broker.syncs)
        broker.lease(a_lease("a2", command="true"))
        until(lambda: "journal.full" in outside.log(), 20.0)
        until(lambda: len(broker.syncs) > seen + 30, 30.0)
        began = SystemClock().boottime()
        until(lambda: SystemClock().boottime() > began + 7.0)  # beyond the fence it had
        assert broker.end("a1") is None
        assert [s.state for s in broker.syncs[-1].attempts] == [AttemptState.STARTING]
        disk.free()
        until(lambda: broker.end("a2"))
        agent.finish("job-a1")
        end = until(lambda: broker.end("a1"))
        assert end is not None
        assert end.end is not None
        assert (end.end.reason, end.end.exit_code) == (EndReason.EXITED, 3)
        for name in ("a1", "a2"):
            found = broker.of(name)
            assert [report.seq for report in found] == list(range(1, len(found) + 1))
        assert "journal.room" in outside.log()
    finally:
        agent.close()


class AgentProcessOutside:
    """An agent whose own log does not lie on the full disk."""

    def __init__(self, agent: AgentProcess, folder: Path) -> None:
        self._agent, self._log = agent, folder / "agent.log"
        self._log.touch()
        (agent.folder / "agent.log").symlink_to(self._log)

    def start(self) -> None:
        self._agent.start()

    def log(self) -> str:
        return self._log.read_text()
