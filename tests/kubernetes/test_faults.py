"""Parts of the control plane die under running jobs; no job is lost, doubled or ended for it."""

from __future__ import annotations

import pytest

from agents.drivers.base import Handle, Phase
from agents.protocol import EndReason
from tests.agents.making import steps_until_told
from tests.kubernetes.site import Bench

ONCE = f"echo began >> began; {steps_until_told()}"


def finish(bench: Bench, handle: Handle) -> None:
    """The job ends by itself, having begun once."""
    (bench.work / f"job-{handle.attempt}" / "finish").touch()
    end = bench.over(handle)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 0)
    assert (bench.work / f"job-{handle.attempt}" / "began").read_text() == "began\n"
    samples = bench.samples(handle)
    assert samples == list(range(1, len(samples) + 1))


def test_the_api_server_dies_in_mid_job(bench: Bench) -> None:
    handle = bench.start("a1", command=ONCE)
    bench.until(lambda: bench.samples(handle))
    seen = len(bench.samples(handle))
    bench.cluster.plane.kill("kube-apiserver")
    bench.driver._cluster.forget_view()
    assert bench.driver.poll(handle).phase is Phase.RUNNING
    assert len(bench.samples(handle)) >= seen
    bench.cluster.plane.run("kube-apiserver")
    bench.cluster.plane.wait_ready()
    bench.until(lambda: len(bench.samples(handle)) > seen)
    finish(bench, handle)


def test_a_start_while_the_api_server_is_away_is_made_later_and_once(bench: Bench) -> None:
    bench.cluster.plane.kill("kube-apiserver")
    handle = bench.start("a1", command=ONCE)
    assert bench.driver.poll(handle).phase is Phase.RUNNING
    bench.cluster.plane.run("kube-apiserver")
    bench.cluster.plane.wait_ready()
    bench.until(lambda: bench.samples(handle))
    assert len(bench.cluster.jobs("a1")) == 1
    finish(bench, handle)


def test_a_start_that_meets_its_fence_before_the_api_server_is_fenced(bench: Bench) -> None:
    bench.cluster.plane.kill("kube-apiserver")
    handle = bench.start("a1", command=ONCE, fence_at=bench.clock.boottime() + 1.0)
    end = bench.over(handle)
    assert end.reason is EndReason.FENCED
    assert "API server was away" in end.message
    bench.cluster.plane.run("kube-apiserver")
    bench.cluster.plane.wait_ready()
    assert bench.cluster.jobs("a1") == []


@pytest.mark.parametrize("program", ["kube-scheduler", "kube-controller-manager", "etcd"])
def test_another_part_dies_in_mid_job_and_before_the_next(bench: Bench, program: str) -> None:
    handle = bench.start("a1", command=ONCE)
    bench.until(lambda: bench.samples(handle))
    bench.cluster.plane.kill(program)
    later = bench.start("a2", command=ONCE)
    bench.driver.poll(handle)
    bench.cluster.plane.run(program)
    bench.cluster.plane.wait_ready()
    bench.until(lambda: bench.samples(later), 60.0)
    finish(bench, later)
    finish(bench, handle)


def test_a_kubelet_that_comes_back_finds_its_job_running(bench: Bench) -> None:
    handle = bench.start("a1", command=ONCE)
    bench.until(lambda: bench.samples(handle))
    [pod] = bench.cluster.pods("a1")
    bench.cluster.kill_node(pod["spec"]["nodeName"])
    assert bench.driver.poll(handle).phase is Phase.RUNNING
    bench.cluster.start_node(pod["spec"]["nodeName"])
    seen = len(bench.samples(handle))
    bench.until(lambda: len(bench.samples(handle)) > seen)
    finish(bench, handle)


def test_a_lost_node_is_told_after_its_fence_and_not_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.drivers.kubernetes.follower.SLACK_S", 2.0)
    fence = bench.clock.boottime() + 8.0
    handle = bench.start("a1", command=ONCE, fence_at=fence)
    bench.until(lambda: bench.samples(handle))
    [pod] = bench.cluster.pods("a1")
    bench.cluster.kill_node(pod["spec"]["nodeName"])
    end = bench.over(handle, 40.0)
    assert end.reason is EndReason.LOST
    assert end.ended is not None
    assert end.ended > fence
    assert (bench.work / "job-a1" / "began").read_text() == "began\n"


def test_a_full_cluster_runs_all_that_it_holds_at_once(bench: Bench) -> None:
    handles = [bench.start(f"a{i}", command="sleep 0.2") for i in range(8)]
    ends = [bench.over(handle, 60.0) for handle in handles]
    assert {(end.reason, end.exit_code) for end in ends} == {(EndReason.EXITED, 0)}
