"""A whole agent beside a real Slurm cluster: one program, one lease, one job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.protocol import AttemptState, EndReason, ReportKind
from tests.agents.fake_broker import FakeBroker, serving
from tests.agents.making import AgentProcess, a_lease, steps, steps_until_told, until
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SlurmBench

Make = Callable[..., SlurmBench]


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with serving(FakeBroker()) as found:
        yield found


@pytest.fixture
def site(elm: Cluster, make_bench: Make, tmp_path: Path) -> Path:
    """The bench puts the cluster right again afterwards; the agent has a driver of its own."""
    make_bench(elm)
    return tmp_path / "site"


@pytest.fixture
def agent(site: Path, elm: Cluster, broker: FakeBroker) -> Iterator[AgentProcess]:
    site.mkdir()
    driver = {
        "kind": "slurm",
        "shared": str(site / "shared"),
        "conf": str(elm.conf),
        "memory_mb_per_gpu": 500,
        "look_s": 1.0,
        "pools": {"a100": {"gres": "gpu:a100", "gpus_per_node": 2}},
    }
    pools = [{"name": "a100", "gpu": "A100", "gpus": 4, "reserve": "1.20"}]
    made = AgentProcess(site, broker.url, driver=driver, pools=pools)
    made.start()
    yield made
    made.close()


def test_a_lease_becomes_a_job_and_its_end_is_told(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(10)))
    end = until(lambda: broker.end("a1"), 30)
    assert end is not None
    assert end.end is not None
    assert (end.end.reason, end.end.exit_code) == (EndReason.EXITED, 0)
    assert end.progress is not None
    assert end.progress.samples == 10
    assert 0.4 < end.progress.gpu_seconds < 10
    assert broker.log("a1") == b"".join(b"step %d\n" % i for i in range(1, 11))
    broker.forget.add("a1")
    until(lambda: broker.syncs[-1].attempts == ())
    until(lambda: not list((agent.folder / "shared" / "birch" / "attempts").iterdir()))
    assert (agent.folder / "shared" / "work" / "job-a1" / "checkpoint").is_dir()
    assert agent.terminate() == 0


def test_an_agent_that_is_killed_finds_its_gang_again(
    broker: FakeBroker, agent: AgentProcess, elm: Cluster
) -> None:
    broker.lease(a_lease(gpus=4, command=steps_until_told()))
    until(lambda: broker.of("a1", ReportKind.PROGRESS), 30)
    job = elm.ask("squeue", "--noheader", "--format=%A")
    for _ in range(2):
        agent.kill()
        before = len(broker.syncs)
        agent.start()
        until(lambda: len(broker.syncs) > before, 30)  # noqa: B023 - called before the next round
    assert elm.ask("squeue", "--noheader", "--format=%A") == job
    assert broker.syncs[-1].attempts[0].state is AttemptState.RUNNING
    (agent.folder / "shared" / "work" / "job-a1" / "finish").touch()
    end = until(lambda: broker.end("a1"), 30)
    assert end is not None
    assert end.end is not None
    assert (end.end.reason, end.end.exit_code) == (EndReason.EXITED, 0)
    assert len(broker.of("a1", ReportKind.STARTED)) == 1


def test_a_revoke_frees_the_gpus(broker: FakeBroker, agent: AgentProcess, elm: Cluster) -> None:
    broker.lease(a_lease("old", gpus=4, command=steps(10_000)))
    until(lambda: broker.of("old", ReportKind.PROGRESS), 30)
    with broker.changed:
        broker.revoke("old", why="outbid by another job")
        broker.lease(a_lease("new", gpus=4, command=steps(3)))
    old, new = until(lambda: broker.end("old"), 30), until(lambda: broker.end("new"), 30)
    assert old is not None
    assert new is not None
    assert old.end is not None
    assert new.end is not None
    assert (old.end.reason, old.end.message) == (EndReason.REVOKED, "outbid by another job")
    assert new.end.reason is EndReason.EXITED


def test_a_refusal_of_slurm_reaches_the_broker(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command="true", max_runtime_s=7200.0))
    end = until(lambda: broker.end("a1"), 30)
    assert end is not None
    assert end.end is not None
    assert end.end.reason is EndReason.DRIVER_FAILED
    assert "its partition in Slurm allows 60" in end.end.message
