"""`hanse agent selftest` and the doctor's look at the scheduler, on a real cluster."""

from __future__ import annotations

from pathlib import Path

from agents.clock import SystemClock
from agents.doctor.findings import Grade
from agents.doctor.scheduler import scheduler_findings
from agents.drivers import loading
from agents.drivers.base import Driver
from agents.selftest import STEPS, Outcome, Selftest
from agents.service import driver_for
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import slurm_config


def test_every_step_works_and_the_doctor_sees_the_nodes(elm: Cluster, tmp_path: Path) -> None:
    config, clock = slurm_config(elm, tmp_path), SystemClock()

    def make() -> Driver:
        return driver_for(config, root=tmp_path / "selftest", site="", clock=clock)

    test = Selftest(config=config, make=make, clock=clock, attempts=(), nonce="real", limit_s=60.0)
    steps = list(test.run())
    assert [(step.name, step.outcome, step.why) for step in steps] == [
        (name, Outcome.WORKS, "") for name in STEPS
    ]
    other = make()
    assert other.known() == frozenset()
    loading.close(other)
    found = {finding.check: finding for finding in scheduler_findings(config, make)}
    assert found["scheduler"].grade is Grade.OK
    assert found["pool a100"].grade is Grade.OK
