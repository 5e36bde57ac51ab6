"""Daemons and nodes that die under running jobs, on a real Slurm cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agents.drivers.base import Phase
from agents.protocol import EndReason
from tests.agents.driver_contract import over, samples, text
from tests.agents.making import a_task, steps
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SlurmBench

Make = Callable[..., SlurmBench]
RUNNING = ("squeue", "--noheader", "--states=RUNNING", "--format=%A")
WAITS = "echo up; while [ ! -e finish ]; do sleep 0.05; done; echo done; exit 6"


def finish(bench: SlurmBench, attempt: str = "a1") -> None:
    (bench.work / f"job-{attempt}" / "finish").touch()


def both(elm: Cluster, oak: Cluster, make_bench: Make, folder: Path) -> list[SlurmBench]:
    """A site on each cluster."""
    benches = []
    for cluster in (elm, oak):
        bench = make_bench(cluster, shared=str(folder / cluster.name))
        bench.work = folder / cluster.name / "work"
        bench.root = folder / cluster.name / "birch" / "attempts"
        benches.append(bench)
    return benches


def test_slurmctld_is_killed_and_restarted_in_mid_job(bench: SlurmBench, elm: Cluster) -> None:
    handle = bench.driver.start(a_task(command=WAITS))
    bench.until(lambda: "up" in text(bench.driver))
    job = bench.job_of()
    elm.kill_controller()
    asked = bench.now()
    bench.until(lambda: bench.driver.poll(handle).exit is None and bench.now() > asked + 3)
    bench.driver = bench.restarted()  # the agent too, while Slurm is away
    again = bench.driver.readopt("a1")
    assert again is not None
    assert bench.driver.poll(again).phase is Phase.RUNNING
    elm.start_controller()
    bench.until(lambda: elm.ask(*RUNNING, check=False) == job)
    finish(bench)
    assert over(bench, again).exit_code == 6
    assert text(bench.driver) == "up\ndone\n"


def test_a_job_that_ends_while_slurmctld_is_away_is_told_of(
    bench: SlurmBench, elm: Cluster
) -> None:
    handle = bench.driver.start(a_task(command=WAITS))
    bench.until(lambda: "up" in text(bench.driver))
    elm.kill_controller()
    finish(bench)
    assert over(bench, handle).exit_code == 6  # the shared folder tells it
    elm.start_controller()
    bench.until(lambda: elm.states() == {"idle"}, 60)


def test_a_stop_is_heard_while_slurmctld_is_away(bench: SlurmBench, elm: Cluster) -> None:
    handle = bench.driver.start(a_task(command=WAITS))
    bench.until(lambda: "up" in text(bench.driver))
    elm.kill_controller()
    bench.driver.stop(handle, grace_s=0.5, reason=EndReason.REVOKED, why="outbid")
    assert over(bench, handle).reason is EndReason.REVOKED
    elm.start_controller()
    bench.until(lambda: elm.states() == {"idle"}, 60)


def test_a_submission_waits_for_slurmctld(bench: SlurmBench, elm: Cluster) -> None:
    elm.kill_controller()
    bench.driver = bench.with_commands_waiting(1.0)
    handle = bench.driver.start(a_task(command="echo ran"))
    assert bench.driver.poll(handle).phase is Phase.RUNNING
    elm.start_controller()
    assert over(bench, handle).exit_code == 0
    assert text(bench.driver) == "ran\n"


def test_a_submission_that_nobody_takes_ends_at_its_fence(bench: SlurmBench, elm: Cluster) -> None:
    elm.kill_controller()
    bench.driver = bench.with_commands_waiting(1.0)
    handle = bench.driver.start(a_task(command="touch ran", fence_at=bench.now() + 4))
    end = over(bench, handle)
    assert end.reason is EndReason.DRIVER_FAILED
    assert "did not answer" in end.message
    elm.start_controller()
    bench.until(lambda: elm.states() == {"idle"}, 60)
    bench.driver.poll(handle)  # the queue is asked again; nothing is submitted late
    assert not (bench.work / "job-a1" / "ran").exists()


def test_slurmd_is_killed_and_the_job_runs_on(bench: SlurmBench, elm: Cluster) -> None:
    handle = bench.driver.start(a_task(command=WAITS))
    bench.until(lambda: "up" in text(bench.driver))
    node = elm.ask("squeue", "--noheader", "--format=%N")
    elm.kill_node(node)
    finish(bench)
    assert over(bench, handle).exit_code == 6
    elm.start_node(node)
    bench.until(lambda: elm.states() == {"idle"}, 60)


def test_what_a_lost_node_ran_is_told_lost_when_its_fence_has_passed(
    elm: Cluster, oak: Cluster, make_bench: Make, tmp_path: Path
) -> None:
    """Slurm cannot know whether a silent node is dead: it may be cut off, and train on."""
    gang, single = both(elm, oak, make_bench, tmp_path)
    fence = gang.now() + 45
    beat = "echo up $HANSE_NODE_RANK; "
    beat += "while :; do date +%N > beat.$HANSE_NODE_RANK; sleep 0.1; done"
    of_gang = gang.driver.start(a_task(command=beat, gpus=4, fence_at=fence))
    of_single = single.driver.start(a_task(command=steps(10_000), fence_at=fence))
    gang.until(lambda: {"up 0", "up 1"} <= set(text(gang.driver).splitlines()))
    single.until(lambda: samples(single.driver))
    elm.lose_node("elm-n2")
    oak.lose_node(oak.ask("squeue", "--noheader", "--format=%N"))
    for bench, handle in ((gang, of_gang), (single, of_single)):
        doomed = bench.root / "a1" / "doomed"
        bench.until(lambda: bench.driver.poll(handle).exit or doomed.exists(), 60)  # noqa: B023
        assert doomed.exists()
        bench.driver.renew(handle, fence + 1000)  # a lost node gets no more time
    first = gang.work / "job-a1" / "beat.0"
    last = first.read_text()  # Slurm has ended the part on the node that it reaches
    for bench, handle in ((gang, of_gang), (single, of_single)):
        end = over(bench, handle)
        assert end.reason is EndReason.LOST
        assert bench.now() >= fence
    assert first.read_text() == last


def test_two_clusters_know_nothing_of_each_other(
    elm: Cluster, oak: Cluster, make_bench: Make, tmp_path: Path
) -> None:
    benches = both(elm, oak, make_bench, tmp_path)
    handles = [bench.driver.start(a_task(command=WAITS)) for bench in benches]
    for bench in benches:
        bench.until(lambda: "up" in text(bench.driver))  # noqa: B023 - called at once
    elm.kill_controller()
    finish(benches[1])
    assert over(benches[1], handles[1]).exit_code == 6
    assert benches[0].driver.poll(handles[0]).phase is Phase.RUNNING
    elm.start_controller()
    finish(benches[0])
    assert over(benches[0], handles[0]).exit_code == 6
