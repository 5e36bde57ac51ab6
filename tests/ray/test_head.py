"""A real Ray head that is full, dies, comes back, or is meddled with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agents.drivers import processes
from agents.drivers.base import Phase
from agents.drivers.ray.server import Submission
from agents.drivers.ray.sight import SLACK_S
from agents.errors import DriverFailed
from agents.protocol import EndReason
from tests.agents.driver_contract import over, samples, text
from tests.agents.making import a_task, alive, steps
from tests.agents.ray_stub import ShiftedClock
from tests.ray.conftest import RayBench
from tests.ray.head import ACCELERATOR, GPUS, RayHead, words_of

CHILD = "setsid sleep 600 & echo $! > child; while :; do sleep 1; done"


def child_of(bench: RayBench, job: str = "job-a1") -> int:
    """A process of the job that has left its session."""
    file = bench.work / job / "child"
    bench.until(lambda: file.exists() and file.read_text().strip())
    return int(file.read_text())


def rays(head: RayHead, *names: bytes) -> list[processes.Process]:
    """Ray's own processes with one of these words in their command line."""
    return [p for p in head.processes() if any(name in words_of(p.pid) for name in names)]


@pytest.fixture
def headless(head: RayHead) -> Iterator[RayHead]:
    """A head that a test may kill; the others get it back."""
    yield head
    if not head.ready():
        head.close()
        head.start()


def test_it_tells_what_the_nodes_have(bench: RayBench) -> None:
    assert bench.driver.capacity().cores == 8
    assert bench.restarted().kinds() == {ACCELERATOR: (GPUS, GPUS)}


def test_local_users_come_first(bench: RayBench) -> None:
    handle = bench.driver.start(a_task(command=steps(10_000), gpus=3))
    bench.until(lambda: samples(bench.driver))
    server = bench.head.server
    server.submit(Submission("local", "sleep 600", {}, {}, 2, {}))
    driver = bench.restarted()
    bench.until(lambda: driver.supply().pools["a100"].waiting == 2)
    pool = driver.supply().pools["a100"]
    assert (pool.gpus, pool.used, pool.ours, pool.left) == (GPUS, 3, 3, GPUS - 2)
    bench.driver.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(bench, handle)
    bench.until(lambda: driver.supply().pools["a100"].left == GPUS - 2)  # it runs now
    server.stop("local")


def test_gpus_are_rays_to_give(bench: RayBench) -> None:
    handles = [
        bench.driver.start(a_task(name, command='echo "$CUDA_VISIBLE_DEVICES"; sleep 2', gpus=2))
        for name in ("a1", "a2")
    ]
    for handle in handles:
        over(bench, handle)
    seen = [set(text(bench.driver, name).strip().split(",")) for name in ("a1", "a2")]
    assert seen[0] | seen[1] == {"0", "1", "2", "3"}


def test_more_gpus_than_one_node_has_are_declined_in_a_sentence(bench: RayBench) -> None:
    with pytest.raises(DriverFailed, match=f"asks for 5 GPUs .* holds {GPUS}"):
        bench.driver.start(a_task(gpus=5))
    assert bench.driver.known() == frozenset()


def test_a_kind_that_ray_does_not_have_is_declined(make_bench: Callable[..., RayBench]) -> None:
    bench = make_bench(pools={"a100": {"accelerator": "B200"}})
    with pytest.raises(DriverFailed, match="accelerator_type:B200"):
        bench.driver.start(a_task())


def test_what_waits_in_the_queue_holds_nothing_and_ends_at_once(bench: RayBench) -> None:
    first = bench.driver.start(a_task("a1", command=steps(10_000), gpus=GPUS))
    bench.until(lambda: samples(bench.driver, "a1"))
    second = bench.driver.start(a_task("a2", command="touch ran", gpus=GPUS))
    status = bench.driver.poll(second)
    assert status.phase is Phase.RUNNING
    assert status.held_since is not None
    assert status.held_since >= second.started
    bench.driver = bench.restarted()
    assert bench.driver.readopt("a2") == second  # it may still begin
    bench.driver.stop(second, grace_s=5.0, reason=EndReason.REVOKED, why="outbid")
    end = bench.driver.poll(second).exit
    assert end is not None
    assert (end.reason, end.message) == (EndReason.REVOKED, "outbid")
    bench.driver.stop(first, grace_s=0.0, reason=EndReason.REVOKED, why="")
    over(bench, first)
    queued = bench.config.driver.own.submission("a2")
    bench.until(lambda: (job := bench.head.server.job(queued)) is None or job.over)
    assert not (bench.work / "job-a2" / "ran").exists()


def test_the_sites_own_ray_job_stop_ends_it_with_its_grace(bench: RayBench) -> None:
    command = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    handle = bench.driver.start(a_task(command=command))
    bench.until(lambda: "up" in text(bench.driver))
    bench.head.server.stop(bench.config.driver.own.submission("a1"))
    end = over(bench, handle)
    assert (end.reason, end.exit_code) == (EndReason.DRIVER_FAILED, 0)
    assert "saved" in text(bench.driver)


def test_a_supervisor_that_dies_takes_the_job_along(bench: RayBench) -> None:
    handle = bench.driver.start(a_task(command=CHILD))
    child = child_of(bench)
    [supervisor] = rays(bench.head, b"JobSupervisor")
    processes.kill(supervisor)
    end = over(bench, handle)
    assert end.reason is EndReason.LOST
    bench.until(lambda: not alive(child))


def test_a_head_that_dies_costs_its_jobs_and_starts_none_twice(
    bench: RayBench, headless: RayHead
) -> None:
    """Without fault tolerance of its own store, Ray's nodes end with their head."""
    handle = bench.driver.start(a_task(command=CHILD + "; echo begun >> times"))
    child = child_of(bench)
    headless.kill()
    bench.until(lambda: not alive(child))
    end = over(bench, handle)
    assert end.reason is EndReason.LOST
    assert "does not answer" in end.message
    with pytest.raises(DriverFailed, match="does not answer"):
        bench.driver.start(a_task("a2"))
    assert bench.driver.known() == {"a1"}
    headless.start()
    bench.driver = bench.restarted()
    again = over(bench, handle)
    assert again.reason is EndReason.LOST
    assert "was its head restarted?" in again.message
    with pytest.raises(DriverFailed, match="before"):
        bench.driver.start(a_task("a1"))
    assert over(bench, bench.driver.start(a_task("a2", command="exit 3"))).exit_code == 3


def test_a_job_that_a_dead_head_had_in_its_queue_never_ran(
    bench: RayBench, headless: RayHead
) -> None:
    bench.driver.start(a_task("a1", command=steps(10_000), gpus=GPUS))
    bench.until(lambda: samples(bench.driver, "a1"))
    second = bench.driver.start(a_task("a2", command="touch ran", gpus=GPUS))
    headless.kill()
    assert bench.driver.poll(second).phase is Phase.RUNNING  # nobody can tell yet
    headless.start()
    end = over(bench, second)
    assert end.reason is EndReason.DRIVER_FAILED
    assert "never ran" in end.message
    assert not (bench.work / "job-a2" / "ran").exists()


def test_a_store_that_dies_alone_ends_the_same_way(bench: RayBench, headless: RayHead) -> None:
    handle = bench.driver.start(a_task(command=CHILD))
    child = child_of(bench)
    [store] = rays(headless, b"/gcs_server")
    processes.kill(store)
    bench.until(lambda: not alive(child), 120)
    assert over(bench, handle).reason is EndReason.LOST


def test_a_node_that_cannot_see_the_folder_says_so(make_bench: Callable[..., RayBench]) -> None:
    bench = make_bench(python="no-such-python")
    end = over(bench, bench.driver.start(a_task()))
    assert end.reason is EndReason.DRIVER_FAILED
    assert "Ray could not start the job (FAILED)" in end.message
    assert "no-such-python" in end.message


def test_an_agent_on_another_host_keeps_the_fence_by_the_nodes_clock(
    make_bench: Callable[..., RayBench],
) -> None:
    bench = make_bench()
    bench.clock, bench.boot = ShiftedClock(-700.0), "another-boot"
    bench.driver = bench.restarted()
    fence = bench.now() + bench.begin_s
    handle = bench.driver.start(a_task(command=steps(10_000), fence_at=fence))
    bench.until(lambda: bench.driver.poll(handle) and samples(bench.driver))
    bench.driver.renew(handle, fence + 3.0)
    end = over(bench, handle)
    assert end.reason is EndReason.FENCED
    assert end.ended is not None
    assert fence < end.ended < fence + 3.0 + bench.late_s + SLACK_S
