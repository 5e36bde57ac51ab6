"""A whole agent beside the fake broker, with its jobs on the real control plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.protocol import AttemptState, EndReason, ReportKind
from tests.agents.conftest import broker as broker
from tests.agents.conftest import make_agent as make_agent
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import AgentProcess, a_lease, steps, steps_until_told, until
from tests.kubernetes.site import Bench


@pytest.fixture
def agent(bench: Bench, make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    driver = {
        "kind": "kubernetes",
        "kubeconfig": str(bench.cluster.kubeconfig()),
        "image": "registry.example.org/train:1",
        "pools": {"a100": {"product": "NVIDIA-A100", "gpus_per_node": 4}},
        "work_volume": {"host_path": str(bench.work)},
        "look_s": 0.1,
    }
    made = make_agent(pools=bench.pools, driver=driver)
    made.start()
    return made


def end_of(broker: FakeBroker, attempt: str) -> Any:
    report = until(lambda: broker.end(attempt), 60.0)
    assert report is not None
    return report.end


def test_a_lease_becomes_a_job_and_is_reported_to_its_end(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease("a1", command=steps(5), samples_wanted=5))
    end = end_of(broker, "a1")
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 0)
    last = broker.of("a1", ReportKind.ENDED)[0].progress
    assert last is not None
    assert last.samples == 5
    assert last.samples_per_s is not None
    assert 5.0 < last.samples_per_s < 25.0  # one in 0.05 s and what a shell takes
    assert broker.log("a1").decode() == "".join(f"step {i}\n" for i in range(1, 6))
    broker.forget.add("a1")
    broker.asks = ("offer",)


def test_an_agent_killed_and_started_again_goes_on_with_its_job(
    bench: Bench, broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease("a1", command=steps_until_told(), gpus=8))
    until(lambda: len(broker.of("a1", ReportKind.PROGRESS)) > 1, 60.0)
    agent.kill()
    agent.start()
    seen = len(broker.of("a1", ReportKind.PROGRESS))
    until(lambda: len(broker.of("a1", ReportKind.PROGRESS)) > seen, 60.0)
    assert broker.syncs[-1].attempts[0].state is AttemptState.RUNNING
    assert len(bench.cluster.pods("a1")) == 2
    broker.revoke("a1", grace_s=2.0, why="outbid")
    end = end_of(broker, "a1")
    assert (end.reason, end.message) == (EndReason.REVOKED, "outbid")
    bench.until(lambda: "a1" in {status.attempt for status in broker.syncs[-1].attempts})
    broker.forget.add("a1")
    with broker.changed:
        broker.changed.notify_all()
    bench.until(lambda: not bench.cluster.jobs("a1"))
