"""What stops a job when nobody renews it: with the agent, the API server or the node away."""

from __future__ import annotations

import json
import os
import signal

import pytest

from agents.drivers import processes
from agents.drivers.base import Handle
from agents.drivers.kubernetes import teller
from agents.protocol import EndReason
from tests.agents.making import steps_until_told, until
from tests.kubernetes.control_plane import NAMESPACE
from tests.kubernetes.site import Bench

JOB = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/hanse-a1"
BEATS = """
echo "{\\"samples\\": 1}" >> "$HANSE_PROGRESS"
while :; do
  read -r up rest < /proc/uptime; echo "$up" > beat.new; mv beat.new beat; sleep 0.05
done"""


def last_beat(bench: Bench) -> float:
    """Boottime at which the job last did something."""
    return float((bench.work / "job-a1" / "beat").read_text())


def is_silent(bench: Bench, seconds: float = 1.0) -> bool:
    """It has done nothing for so long."""
    return bench.clock.boottime() - last_beat(bench) > seconds


def begun(bench: Bench, *, fence_s: float, **task: object) -> tuple[Handle, float]:
    fence = bench.clock.boottime() + fence_s
    handle = bench.start("a1", command=BEATS, fence_at=fence, fence_lead_s=0.5, **task)
    bench.until(lambda: bench.samples(handle))
    bench.until((bench.work / "job-a1" / "beat").exists)
    return handle, fence


def test_the_fence_holds_with_the_agent_dead(bench: Bench) -> None:
    _, fence = begun(bench, fence_s=12.0)
    bench.close()  # nobody looks after it any more
    bench.until(lambda: is_silent(bench))
    assert fence - 3.0 < last_beat(bench) <= fence
    bench.make()
    handle = bench.driver.readopt("a1")
    assert handle is not None
    end = bench.over(handle)
    assert end.reason is EndReason.FENCED
    assert end.ended is not None
    assert end.ended <= fence + 1.0


def test_the_fence_holds_with_the_api_server_dead(bench: Bench) -> None:
    handle, fence = begun(bench, fence_s=12.0)
    bench.cluster.plane.kill("kube-apiserver")
    try:
        bench.until(lambda: is_silent(bench))
        assert last_beat(bench) <= fence
        assert bench.driver.poll(handle).exit is None  # not known yet, so not concluded
    finally:
        bench.cluster.plane.run("kube-apiserver")
        bench.cluster.plane.wait_ready()
    assert bench.over(handle).reason is EndReason.FENCED


def test_a_renewal_moves_the_fence(bench: Bench) -> None:
    handle, fence = begun(bench, fence_s=8.0)
    bench.driver.renew(handle, fence + 5.0)
    bench.until(lambda: bench.driver.poll(handle) and bench.clock.boottime() > fence + 1.0)
    assert last_beat(bench) > fence
    assert bench.over(handle).reason is EndReason.FENCED
    assert fence + 2.0 < last_beat(bench) <= fence + 5.0


def test_it_does_not_begin_when_nobody_is_there_to_confirm_it(bench: Bench) -> None:
    bench.start("a1", command=BEATS, fence_at=bench.clock.boottime() + 600.0)
    bench.close()
    bench.until(lambda: is_waiting(bench))
    assert not (bench.work / "job-a1" / "beat").exists()
    bench.make()
    handle = bench.driver.readopt("a1")
    assert handle is not None
    bench.driver.renew(handle, bench.clock.boottime() + 600.0)
    bench.until(lambda: bench.samples(handle))


def is_waiting(bench: Bench) -> bool:
    """The guard's container runs, so its clock is told."""
    [pod] = bench.cluster.pods("a1") or [{}]
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any(one["name"] == "job" and "running" in one["state"] for one in statuses)


def test_a_fence_that_passes_first_begins_nothing(bench: Bench) -> None:
    handle = bench.start("a1", command=BEATS, fence_at=bench.clock.boottime())
    end = bench.over(handle)
    assert end.reason is EndReason.FENCED
    assert not (bench.work / "job-a1" / "beat").exists()


def test_the_jobs_own_deadline_is_raised_at_renewals(bench: Bench) -> None:
    handle, fence = begun(bench, fence_s=20.0)
    before = bench.admin.get(JOB)["spec"]["activeDeadlineSeconds"]
    bench.driver.renew(handle, fence + 300.0)
    bench.until(
        lambda: (
            bench.driver.poll(handle)
            and bench.admin.get(JOB)["spec"]["activeDeadlineSeconds"] >= before + 299
        )
    )


def test_the_control_plane_ends_what_a_hung_guard_does_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "SLACK_S", 2.0)
    handle, fence = begun(bench, fence_s=12.0, grace_s=0.0)
    bench.until(
        lambda: (
            bench.driver.poll(handle) and bench.admin.get(JOB)["spec"]["activeDeadlineSeconds"] < 60
        )
    )
    [guard] = [
        one
        for one in processes.everybody()
        if b"guard\x00" in command_of(one.pid) and b"HANSE_ATTEMPT=a1" in environment_of(one.pid)
        if one.parent in {unshared(file) for file in running(bench)}
    ]
    os.kill(guard.pid, signal.SIGSTOP)
    bench.until(lambda: is_silent(bench), 40.0)
    assert last_beat(bench) > fence
    end = bench.over(handle)
    assert (end.reason, end.message) == (EndReason.FENCED, "its Job's deadline passed")


def running(bench: Bench) -> list[str]:
    return [file.read_text() for file in bench.cluster.folder.glob("n*/pods/*/job/running.json")]


def unshared(text: str) -> int:
    return int(json.loads(text)["unshare"])


def command_of(pid: int) -> bytes:
    return read(f"/proc/{pid}/cmdline")


def environment_of(pid: int) -> bytes:
    return read(f"/proc/{pid}/environ")


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_a_new_agent_finds_its_attempt_by_label(bench: Bench) -> None:
    handle = bench.start("a1", command=steps_until_told())
    bench.until(lambda: len(bench.samples(handle)) >= 3)
    bench.driver.logs("a1", 0, 100)
    found: Handle | None = None
    for root in ("attempts", "a-lost-disk"):
        bench.make(root=root)
        assert bench.driver.known() >= {"a1"}
        found = bench.driver.readopt("a1")
        assert found is not None
        bench.driver.renew(found, bench.clock.boottime() + 600.0)
        goes_on(bench, found)
    assert found is not None
    (bench.work / "job-a1" / "finish").touch()
    end = bench.over(found)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 0)
    samples = bench.samples(found)
    assert samples == list(range(1, len(samples) + 1))
    assert bench.log("a1") == "".join(f"step {i}\n" for i in samples)
    assert bench.driver.readopt("a2") is None


def goes_on(bench: Bench, handle: Handle) -> None:
    seen = len(bench.until(lambda: bench.samples(handle)))
    bench.until(lambda: len(bench.samples(handle)) > seen)


def test_a_stop_is_remembered_by_a_new_agent(bench: Bench) -> None:
    handle, _ = begun(bench, fence_s=600.0)
    bench.driver.stop(handle, grace_s=5.0, reason=EndReason.REVOKED, why="outbid")
    bench.make(root="a-lost-disk")
    found = bench.driver.readopt("a1")
    assert found is not None
    end = bench.over(found)
    assert (end.reason, end.message) == (EndReason.REVOKED, "outbid")
    assert until(lambda: is_silent(bench))
