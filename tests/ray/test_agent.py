"""A whole agent on a real Ray head."""

from __future__ import annotations

from pathlib import Path

from agents.protocol import EndReason, Report, ReportKind
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import AgentProcess, a_lease, steps, steps_until_told, until
from tests.ray.head import RayHead

WAIT_S = 60.0


def ended(broker: FakeBroker, attempt: str) -> Report:
    report = until(lambda: broker.end(attempt), WAIT_S)
    assert report is not None
    assert report.end is not None
    return report


def test_a_lease_runs_to_its_end_and_leaves_nothing(
    head: RayHead, broker: FakeBroker, agent: AgentProcess, tmp_path: Path
) -> None:
    agent.start()
    broker.lease(a_lease("lease-1", gpus=2, command=steps(20)))
    report = ended(broker, "lease-1")
    assert report.end is not None
    assert (report.end.reason, report.end.exit_code) == (EndReason.EXITED, 0)
    assert report.progress is not None
    assert report.progress.samples == 20
    assert report.progress.samples_per_s is not None
    assert 5 < report.progress.samples_per_s < 21
    assert report.progress.gpu_seconds > 1.0  # of two GPUs for 20 steps of 0.05 s
    assert broker.log("lease-1") == b"".join(b"step %d\n" % i for i in range(1, 21))
    broker.forget.add("lease-1")
    until(lambda: not list((tmp_path / "shared").glob("work.attempts/*/attempts/lease-1")))
    broker.lease(a_lease("lease-2", command=steps_until_told()))
    until(lambda: marked(head) == {"lease-2"}, WAIT_S)  # a little later it is off Ray's list too
    (tmp_path / "shared" / "work" / "job-lease-2" / "finish").touch()
    ended(broker, "lease-2")
    assert (tmp_path / "shared" / "work" / "job-lease-1" / "checkpoint").is_dir()
    assert agent.terminate() == 0


def test_a_job_outlives_its_agent_and_is_not_started_twice(
    broker: FakeBroker, agent: AgentProcess, tmp_path: Path
) -> None:
    agent.start()
    broker.lease(a_lease("kept", command="echo begun >> times" + steps_until_told()))
    until(lambda: broker.of("kept", ReportKind.PROGRESS), WAIT_S)
    agent.kill()
    seen = max(r.progress.samples for r in broker.of("kept") if r.progress)
    agent.start()
    until(lambda: max(r.progress.samples for r in broker.of("kept") if r.progress) > seen, WAIT_S)
    work = tmp_path / "shared" / "work" / "job-kept"
    (work / "finish").touch()
    report = ended(broker, "kept")
    assert report.end is not None
    assert report.end.reason is EndReason.EXITED
    assert len(broker.of("kept", ReportKind.STARTED)) == 1
    assert (work / "times").read_text() == "begun\n"


def marked(head: RayHead) -> set[str]:
    """Attempts of agents that Ray lists; the other tests' are called a1 and so on."""
    names = (job.metadata.get("hanse_attempt", "") for job in head.server.jobs())
    return {name for name in names if name.startswith("lease-")}
