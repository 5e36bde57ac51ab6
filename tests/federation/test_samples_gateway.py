"""Measurements through the gateway and the tasks: reported, quarantined, fitted, shown."""

from __future__ import annotations

import pytest

from broker.tasks import tick_affinity
from federation.models import QuarantinedSample, Report, StoredModel, ThroughputSample
from tests.broker.api_world import (
    a_batch,
    a_caller,
    a_report,
    a_running_job,
    a_site_now,
    a_sync,
    an_agent_of,
    problem,
    progress,
)
from tests.support import world

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("tasks_at_once")]


class Reporting:
    def __init__(self) -> None:
        self.tenant = world.a_tenant("ann")
        self.site = a_site_now("north", gpus=8)
        self.lease = a_running_job(self.tenant, self.site, gpus=[2])
        self.agent = an_agent_of(self.site)
        self.agent.post("/sync", a_sync())

    def send(self, *measured: dict[str, object] | None):
        reports = [
            a_report(self.lease, seq, progress=progress(seq * 64, lines=seq, measurement=one))
            for seq, one in enumerate(measured, 1)
        ]
        return self.agent.post("/reports", a_batch(*reports))


@pytest.fixture
def site() -> Reporting:
    return Reporting()


def steps(line: int, **said: object) -> dict[str, object]:
    batch = (16, 32, 64)[line % 3]
    return {"line": line, "local_batch": batch, "step_time_s": 0.02 + 0.004 * batch, **said}


def test_from_the_report_to_the_offer(site):
    """Two GPUs are measured; the model forecasts no other size, and says so."""
    answer = site.send(*(steps(line, sync_time_s=0.004, replicas=2) for line in range(1, 10)))
    assert [receipt["accepted"] for receipt in answer.json()["receipts"]] == [True] * 9
    assert ThroughputSample.objects.count() == 9
    tick_affinity()
    assert StoredModel.objects.get().samples == 9
    [offer] = a_caller(site.tenant).get("/offers").json()["results"]
    told = {row["gpus"]: row for row in offer["affinities"]}
    assert (told[1]["source"], told[1]["reports"]) == ("declared", 0)
    assert told[1]["low"] < told[1]["believed"] < told[1]["high"]
    assert (told[2]["source"], told[2]["reports"]) == ("forecast", 9)
    assert told[2]["low"] < told[2]["believed"] < told[2]["high"]
    assert told[2]["known_at"] >= told[1]["known_at"]
    assert told[4]["source"] == "extrapolated"


def test_a_bad_measurement_costs_no_report(site):
    answer = site.send(steps(1), steps(2, step_time_s=-1.0), steps(3, problem="gpu is no name"))
    assert [receipt["accepted"] for receipt in answer.json()["receipts"]] == [True] * 3
    assert Report.objects.count() == 3
    assert sorted(QuarantinedSample.objects.values_list("code", flat=True)) == [
        *("out_of_range", "unreadable"),
    ]
    assert ThroughputSample.objects.count() == 1


def test_an_older_agent_is_heard_as_before(site):
    report = a_report(site.lease, 1, progress=progress(64))
    assert "measurement" not in report["progress"]
    answer = site.agent.post("/reports", a_batch(report))
    assert [receipt["accepted"] for receipt in answer.json()["receipts"]] == [True]
    assert not ThroughputSample.objects.exists()


def test_a_measurement_of_another_shape_is_refused_with_its_path(site):
    path = "reports[0].progress.measurement"
    problem(site.send({"line": 1, "speed": 9}), 422, "bad_input", f"{path}.speed")
    problem(site.send({"line": "1"}), 422, "bad_input", f"{path}.line")
    assert not Report.objects.exists()


def test_a_replay_measures_nothing_twice(site):
    for _ in range(2):
        site.send(steps(1), steps(2, step_time_s=0.0), None)
    assert (ThroughputSample.objects.count(), QuarantinedSample.objects.count()) == (1, 1)
