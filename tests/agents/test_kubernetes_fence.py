"""Fences and progress of the Kubernetes driver on clocks that are not ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.clock import VirtualClock
from agents.drivers.base import Handle
from agents.drivers.kubernetes import seen
from agents.drivers.kubernetes.reader import Reader
from agents.drivers.kubernetes.spool import Spool
from agents.protocol import EndReason
from tests.agents.kubernetes_bench import AHEAD, Bench, benches
from tests.agents.kubernetes_stub import (
    JOBS,
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with benches(tmp_path) as one:
        yield one


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


# -- fences on other machines' clocks --------------------------------------------------------------


def test_the_order_names_the_fence_on_the_pods_own_clock(bench: Bench) -> None:
    bench.begun(fence_s=100.0, fence_lead_s=5.0)
    fence, lead, stop, reason = bench.stub.orders("a1").split()
    told = bench.clock.boottime() - 1.0 + AHEAD  # the pod's clock when it was told
    late_s = 1.0  # the line was that old when it was read
    assert int(fence) / 100 == pytest.approx(told + 100.0 - 1.0 - late_s)
    assert (int(lead), stop, reason) == (500, "-", "-")


def test_a_fence_is_told_anew_when_it_moved_by_a_fifth_of_what_is_left(bench: Bench) -> None:
    handle = bench.begun(fence_s=100.0)
    first = bench.stub.orders("a1")
    fence = bench.clock.boottime() + 100.0
    bench.driver.renew(handle, fence)
    bench.look(handle)
    assert bench.stub.orders("a1") == first
    bench.driver.renew(handle, fence + 30.0)
    bench.look(handle)
    assert int(bench.stub.orders("a1").split()[0]) > int(first.split()[0]) + 2500
    job = bench.stub.objects[f"{JOBS}/hanse-a1"]
    assert job["spec"]["activeDeadlineSeconds"] > 100


@given(
    offset=st.floats(-1e6, 1e6),
    lines=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 300)), min_size=1, max_size=20),
)
def test_a_deadline_on_a_pods_clock_is_never_too_late(
    tmp_path_factory: pytest.TempPathFactory, offset: float, lines: list[tuple[float, float]]
) -> None:
    """Whatever the lines' delays: the bound is at most the truth, and within the least delay."""
    clock = VirtualClock(0.0)
    spool = Spool(tmp_path_factory.mktemp("spool"))
    reader = Reader(None, spool, clock, boot="b")  # type: ignore[arg-type] # nothing is asked
    pod = seen.pod({"metadata": {"name": "p", "uid": "u"}})
    base = 2e6
    for spoken, delay in sorted(lines, key=sum):
        clock._now = base + spoken + delay
        reader._hear(pod, b"clock %d\n" % int((base + spoken + offset) * 100), clock.boottime())
    ahead = reader.ahead(pod)
    assert ahead is not None
    assert ahead <= offset + 1e-6
    drift = 1e-4 * (max(map(sum, lines)) - min(map(sum, lines)))
    assert ahead >= offset - min(delay for _, delay in lines) - drift - 0.02


def test_a_renewal_that_did_not_arrive_is_told_again(bench: Bench) -> None:
    handle = bench.begun(fence_s=100.0)
    first = bench.stub.orders("a1")
    bench.driver.renew(handle, bench.clock.boottime() + 200.0)
    bench.stub.refuses = lambda method, path: method == "PATCH"
    bench.look(handle)
    assert bench.stub.orders("a1") == first
    bench.stub.refuses = lambda method, path: False
    bench.look(handle, 3.0)
    assert bench.stub.orders("a1") != first


@pytest.mark.parametrize("root", ["attempts", "a-lost-disk"])
def test_a_silent_node_is_given_up_after_the_fence_it_may_know(bench: Bench, root: str) -> None:
    """Renewals go on for the attempt; the node that hears none of them is not waited for."""
    handle = bench.begun(fence_s=100.0)
    bench.make(root=root)
    handle = bench.driver.readopt("a1") or handle
    conditions = bench.stub.pod("a1")["status"]["conditions"]
    conditions[0].update(type="Ready", status="False")
    over = None
    for _ in range(16):
        assert over is None
        bench.driver.renew(handle, bench.clock.boottime() + 100.0)
        over = bench.look(handle, 10.0)
        if over is not None:
            break
    assert over is not None
    assert over.reason is EndReason.LOST
    assert over.ended is not None
    assert over.ended > 1100.0  # the fence that it was told


def test_an_attempt_of_the_hosts_earlier_boot_is_followed_on(bench: Bench) -> None:
    """Boottime began anew: what the handle says of it lies ahead of us."""
    bench.begun()
    handle = Handle("a1", "{}", bench.clock.boottime() + 1e6)
    bench.make(root="a-new-boot")
    bench.look(handle)
    bench.stub.end("a1", 0, "exited 0 1")
    assert bench.look(handle, 3.0) is not None


def test_a_job_cannot_set_its_clock_by_its_progress(bench: Bench) -> None:
    handle = bench.begun(fence_s=100.0)
    before = bench.stub.orders("a1")
    bench.stub.say("a1", "progress", "> clock 99999999999\n")
    bench.driver.renew(handle, bench.clock.boottime() + 100.0)
    bench.look(handle, 30.0)
    bench.driver.renew(handle, bench.clock.boottime() + 100.0)
    bench.look(handle, 1.0)
    fences = [int(text.split()[0]) for text in (before, bench.stub.orders("a1"))]
    assert 0 <= fences[1] - fences[0] < 3500
