"""What only Slurm can get wrong, on a real cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

import pytest

from agents.clock import Clock, SystemClock
from agents.drivers.base import Phase
from agents.drivers.slurm.driver import SlurmDriver
from agents.errors import DriverFailed
from agents.protocol import EndReason
from tests.agents.driver_contract import over, samples, text
from tests.agents.making import a_task, steps
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SlurmBench

Make = Callable[..., SlurmBench]


ALL_GPUS = ("--partition=local", "--gres=gpu:2", "--nodes=2", "--mem=10M")


def test_a_gang_runs_on_two_nodes(bench: SlurmBench) -> None:
    command = """
place="at $MASTER_ADDR gpus $CUDA_VISIBLE_DEVICES $SLURMD_NODENAME"
echo "rank $HANSE_NODE_RANK of $HANSE_NODES $place"
echo '{"samples": 7}' >> "$HANSE_PROGRESS"; exit $((HANSE_NODE_RANK * 5))"""
    end = over(bench, bench.driver.start(a_task(command=command, gpus=4)))
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 5)  # the worst of the nodes
    lines = sorted(text(bench.driver).splitlines())
    gpus = "0,1" if os.geteuid() == 0 else ""  # plain files are counted, but no devices
    assert [line for line in lines if line.startswith("rank")] == [
        f"rank 0 of 2 at 127.0.0.1 gpus {gpus} elm-n1",
        f"rank 1 of 2 at 127.0.0.1 gpus {gpus} elm-n2",
    ]
    assert samples(bench.driver) == [7]  # the first node's alone
    assert bench.seen("%N %D") == "elm-n[1-2] 2"


def test_a_gang_is_stopped_on_all_its_nodes_with_its_grace(bench: SlurmBench) -> None:
    command = """trap 'sleep 0.3; echo saved $HANSE_NODE_RANK; exit 0' TERM
echo up $HANSE_NODE_RANK; while :; do sleep 0.05; done"""
    handle = bench.driver.start(a_task(command=command, gpus=4))
    bench.until(lambda: text(bench.driver).count("up") == 2)
    bench.driver.stop(handle, grace_s=5.0, reason=EndReason.REVOKED, why="outbid")
    end = over(bench, handle)
    assert (end.reason, end.message) == (EndReason.REVOKED, "outbid")
    assert sorted(line for line in text(bench.driver).splitlines() if "saved" in line) == [
        "saved 0",
        "saved 1",
    ]


def test_a_gang_keeps_its_fence_without_agent_and_slurmctld(
    bench: SlurmBench, elm: Cluster
) -> None:
    fence = bench.now() + 6.0
    beat = "while :; do date +%N > beat.$HANSE_NODE_RANK; sleep 0.05; done"
    handle = bench.driver.start(a_task(command=beat, gpus=4, fence_at=fence))
    files = [bench.work / "job-a1" / f"beat.{rank}" for rank in (0, 1)]
    bench.until(lambda: all(file.exists() for file in files))
    elm.kill_controller()
    bench.until(lambda: bench.now() > fence + 0.5)
    last = [file.stat().st_mtime_ns for file in files]
    bench.until(lambda: bench.now() > fence + 1.5)
    assert [file.stat().st_mtime_ns for file in files] == last
    elm.start_controller()
    assert over(bench, handle).reason is EndReason.FENCED


def test_slurm_says_why_it_refuses(bench: SlurmBench) -> None:
    bench.config.driver.own.pools["a100"] = bench.config.driver.own.pools["a100"].__class__(
        gres="gpu:h100", gpus_per_node=2
    )
    with pytest.raises(DriverFailed, match=r"sbatch: .*(node configuration|Invalid)"):
        bench.driver.start(a_task())
    assert bench.driver.readopt("a1") is None
    bench.driver.cleanup("a1")


def test_an_account_that_the_partition_does_not_take_is_told(
    elm: Cluster, make_bench: Make
) -> None:
    bench = make_bench(elm, pools={"a100": {"partition": "members"}}, account="strangers")
    end = over(bench, bench.driver.start(a_task()))
    assert end.reason is EndReason.DRIVER_FAILED
    assert end.message == "Slurm will not start it: AccountNotAllowed"


def test_tenants_have_local_accounts(elm: Cluster, make_bench: Make) -> None:
    bench = make_bench(elm, account="federation", accounts={"alder": "proj-17"})
    for tenant, attempt in (("alder", "a1"), ("birch", "a2")):
        over(bench, bench.driver.start(a_task(attempt, tenant=tenant)))
    assert (bench.seen("%a", "a1"), bench.seen("%a", "a2")) == ("proj-17", "federation")


def test_a_job_longer_than_its_partition_allows_is_declined(bench: SlurmBench) -> None:
    with pytest.raises(DriverFailed, match="its partition in Slurm allows 60"):
        bench.driver.start(a_task(max_runtime_s=7200.0))
    assert bench.driver.known() == frozenset()


def test_a_job_that_will_never_start_is_given_back(bench: SlurmBench, elm: Cluster) -> None:
    elm.ask("sbatch", *ALL_GPUS, "--wrap=sleep 600")
    handle = bench.driver.start(a_task(command="touch ran"))
    elm.ask("scontrol", "hold", bench.job_of())
    end = over(bench, handle)
    assert end.reason is EndReason.DRIVER_FAILED
    assert end.message.startswith("Slurm will not start it: JobHeld")


def test_waiting_in_slurms_queue_costs_no_gpu_seconds(bench: SlurmBench, elm: Cluster) -> None:
    local = elm.ask(
        "sbatch",
        "--parsable",
        *ALL_GPUS,
        "--wrap=sleep 600",
    )
    bench.until(
        lambda: elm.ask("squeue", "--noheader", "--format=%T", f"--jobs={local}") == "RUNNING"
    )
    handle = bench.driver.start(a_task(command="sleep 0.5"))
    bench.until(lambda: bench.seen("%r") == "Resources")
    status = bench.driver.poll(handle)
    assert status.phase is Phase.RUNNING
    assert status.held_since is not None
    assert status.held_since > handle.started
    assert status.held_since == pytest.approx(bench.now(), abs=1)
    freed = bench.now()
    elm.ask("scancel", local)
    bench.until(lambda: bench.driver.poll(handle).exit)
    held = bench.driver.poll(handle).held_since
    assert held is not None
    assert held > freed


def test_a_stop_takes_it_out_of_slurms_queue(bench: SlurmBench, elm: Cluster) -> None:
    elm.ask("sbatch", *ALL_GPUS, "--wrap=sleep 600")
    handle = bench.driver.start(a_task(command="touch ran"))
    bench.until(lambda: bench.seen("%T") == "PENDING")
    bench.driver.stop(handle, grace_s=60.0, reason=EndReason.REVOKED, why="outbid")
    end = over(bench, handle)
    assert (end.reason, end.message) == (EndReason.REVOKED, "outbid")
    assert bench.seen("%T") == "CANCELLED"


def test_a_local_users_job_preempts_and_that_is_the_sites_doing(
    bench: SlurmBench, elm: Cluster
) -> None:
    handle = bench.driver.start(a_task(command=steps(10_000), gpus=2))
    bench.until(lambda: samples(bench.driver))
    elm.ask("sbatch", *ALL_GPUS, "--wrap=sleep 5")
    end = over(bench, handle)
    assert end.reason is EndReason.DRIVER_FAILED
    assert end.message == "Slurm preempted it for another job of this site"
    assert bench.seen("%T") == "PREEMPTED"  # not requeued


def test_a_local_admins_scancel_is_the_sites_doing(bench: SlurmBench, elm: Cluster) -> None:
    handle = bench.driver.start(a_task(command=steps(10_000)))
    bench.until(lambda: samples(bench.driver))
    elm.ask("scancel", bench.job_of())
    end = over(bench, handle)
    assert (end.reason, end.message) == (
        EndReason.DRIVER_FAILED,
        "it was cancelled in Slurm at this site",
    )


def test_a_requeued_job_does_not_run_twice(bench: SlurmBench, elm: Cluster) -> None:
    handle = bench.driver.start(a_task(command="echo ran >> runs; " + steps(10_000)))
    bench.until(lambda: samples(bench.driver))
    job = bench.job_of()
    elm.ask("scontrol", "update", f"jobid={job}", "requeue=1", check=False)
    elm.ask("scontrol", "requeue", job, check=False)
    bench.until(lambda: bench.seen("%T") == "PENDING")
    over(bench, handle)
    bench.until(lambda: bench.seen("%T") == "CANCELLED")
    assert (bench.work / "job-a1" / "runs").read_text() == "ran\n"


def test_a_second_job_of_one_attempt_finds_the_folder_taken(bench: SlurmBench) -> None:
    handle = bench.driver.start(a_task(command="echo ran; sleep 1"))
    bench.until(lambda: "ran" in text(bench.driver))
    folder = bench.root / "a1"
    [code] = (bench.root.parent).glob("code-*")
    again = bench.cluster.ask(
        "sbatch",
        "--parsable",
        "--mem=10M",
        f"--chdir={folder}",
        f"--output={folder}/slurm.log",
        str(code / "batch.py"),
        str(code),
        str(folder),
        "job",
    )
    assert over(bench, handle).exit_code == 0
    bench.until(
        lambda: (
            bench.cluster.ask(
                "squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={again}"
            )
            == "FAILED"
        )
    )
    assert text(bench.driver) == "ran\n"


def test_without_python_on_the_node_the_site_hears_why(elm: Cluster, make_bench: Make) -> None:
    bench = make_bench(elm, python="/nowhere/python3")
    end = over(bench, bench.driver.start(a_task()))
    assert end.reason is EndReason.DRIVER_FAILED
    assert "python3" in end.message


class OtherHost:
    """A clock as another host's: it booted at another time, and its time of day is wrong."""

    def __init__(self) -> None:
        self._real = SystemClock()

    def boottime(self) -> float:
        return self._real.boottime() - 5000.0

    def monotonic(self) -> float:
        return self._real.monotonic() - 5000.0

    def wall(self) -> datetime:
        return self._real.wall()


@pytest.fixture
def apart(elm: Cluster, make_bench: Make) -> SlurmBench:
    """The agent's host is not the nodes' host."""
    bench = make_bench(elm)
    clock: Clock = OtherHost()
    bench.clock, bench.boot = clock, "another-boot"
    bench.driver = bench.restarted()
    return bench


def test_the_fence_holds_on_a_host_with_another_clock(apart: SlurmBench) -> None:
    fence = apart.now() + 5.0
    handle = apart.driver.start(a_task(command=steps(10_000), fence_at=fence))
    apart.until(lambda: samples(apart.driver))
    apart.driver.renew(handle, fence + 2.0)
    end = over(apart, handle)
    assert end.reason is EndReason.FENCED
    assert end.ended is not None
    assert fence + 1.0 < end.ended < fence + 3.5  # the file system's clock tells whole ticks


def test_times_of_another_host_are_told_as_ours(apart: SlurmBench) -> None:
    before = apart.now()
    handle = apart.driver.start(a_task(command=steps(20)))
    apart.until(lambda: samples(apart.driver))
    status = apart.driver.poll(handle)
    assert status.ahead_s == pytest.approx(5000.0, abs=0.5)
    assert status.held_since is not None
    assert before - 0.5 <= status.held_since <= apart.now()
    end = over(apart, handle)
    assert end.ended is not None
    assert before <= end.ended <= apart.now() + 0.5


def test_the_supply_counts_what_local_users_leave(bench: SlurmBench, elm: Cluster) -> None:
    driver = bench.driver
    assert isinstance(driver, SlurmDriver)
    free = driver.supply().pools["a100"]
    assert (free.nodes, free.gpus, free.gpus_per_node, free.left) == (2, 4, 2, 4)
    assert driver.supply().kinds == {name: {"a100": 4} for name in ("gpu", "local", "members")}
    assert driver.capacity().cores == 16
    handle = driver.start(a_task(command=steps(10_000)))
    bench.until(lambda: samples(driver))
    elm.ask("sbatch", "--gres=gpu:1", "--mem=10M", "--wrap=sleep 600")
    elm.ask("sbatch", "--gres=gpu:2", "--nodes=2", "--mem=10M", "--wrap=sleep 600")
    bench.until(lambda: driver.supply().pools["a100"].used == 2)
    pool = driver.supply().pools["a100"]
    assert (pool.used, pool.ours, pool.waiting, pool.left) == (2, 1, 4, 0)
    driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(bench, handle)


def test_json_and_text_tell_the_same(bench: SlurmBench) -> None:
    driver = bench.driver
    assert isinstance(driver, SlurmDriver)
    handle = driver.start(a_task(command=steps(10_000), gpus=4))
    bench.until(lambda: samples(driver))
    questions = driver._queue.questions
    by_json = questions.jobs()
    questions._json = False
    by_text = {seen.job: seen for seen in questions.jobs()}
    job = int(bench.job_of())
    assert by_text[job] == next(seen for seen in by_json if seen.job == job)
    assert by_text[job].gpus == 4
    driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(bench, handle)
