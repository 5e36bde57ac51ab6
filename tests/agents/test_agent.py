"""A real agent, a real guard, real jobs, and a broker that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.clock import rfc3339
from agents.protocol import AttemptState, EndReason, Report, ReportKind
from tests.agents.fake_broker import REPORTS_PATH, SYNC_PATH, Dropped, FakeBroker
from tests.agents.making import AgentProcess, a_lease, alive, steps, until

Make = Callable[..., AgentProcess]


def state_of(broker: FakeBroker, attempt: str) -> AttemptState | None:
    if not broker.syncs:
        return None
    return next((s.state for s in broker.syncs[-1].attempts if s.attempt == attempt), None)


def assert_whole(reports: list[Report]) -> None:
    """Numbers without gaps, the end last, samples never back."""
    assert [report.seq for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].kind is ReportKind.ENDED
    samples = [r.progress.samples for r in reports if r.progress is not None]
    assert samples == sorted(samples)


def ended(broker: FakeBroker, attempt: str = "a1", seconds: float = 20.0) -> Report:
    report = until(lambda: broker.end(attempt), seconds)
    assert report is not None
    assert_whole(broker.of(attempt))
    return report


def test_a_lease_runs_to_its_end_and_is_forgotten(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(20)))
    end = ended(broker)
    assert end.end is not None
    assert (end.end.reason, end.end.exit_code) == (EndReason.EXITED, 0)
    assert end.progress is not None
    assert end.progress.samples == end.progress.contract_samples == 20
    assert end.progress.gpu_seconds > 0.9
    assert end.progress.samples_per_s is not None
    assert 5 < end.progress.samples_per_s < 20  # one in 0.05 s and what the shell needs
    assert broker.log("a1") == b"".join(b"step %d\n" % i for i in range(1, 21))
    assert {r.contract for r in broker.of("a1")} == {"c1"}
    broker.forget.add("a1")
    until(lambda: broker.syncs[-1].attempts == ())
    until(lambda: not (agent.state / "attempts" / "a1").exists())
    assert (agent.state / "work" / "job-a1" / "checkpoint").is_dir()
    assert agent.terminate() == 0
