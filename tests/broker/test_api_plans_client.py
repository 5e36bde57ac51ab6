"""`hanse plan` and the tenants' client against the real application behind a real server."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from federation.models import Job
from hanse.cli import app
from hanse.client import Client
from hanse.errors import Conflict
from tests.broker.api_world import a_caller, a_site_now, serving
from tests.federation.planned_scene import LARGE
from tests.hanse.test_plan import MODEL, PLANNED
from tests.support import world

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
BODY = {
    "name": "gpt",
    "job_class": "cnn",
    "command": "torchrun train.py",
    "samples": 100_000,
    "value": "9000",
    "max_cost": "900",
    "model": MODEL,
}


@pytest.fixture
def login(monkeypatch):
    a_site_now("north", gpu="A100-80", gpus=8, reserve="1", speeds={"cnn": 6.0})
    with serving() as url:
        token = a_caller(world.a_tenant("ann")).token
        monkeypatch.setenv("HANSE_URL", url)
        monkeypatch.setenv("HANSE_TOKEN", token or "")
        yield url, token


def test_a_file_is_planned_and_then_submitted_as_planned(login, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(PLANNED.replace("gpt2", "cnn"))

    shown = CliRunner().invoke(app, ["plan", str(file)])
    told = CliRunner().invoke(app, ["plan", str(file), "-o", "json"])
    sent = CliRunner().invoke(app, ["submit", str(file)])

    assert (shown.exit_code, told.exit_code, sent.exit_code) == (0, 0, 0), shown.stderr
    choice = json.loads(told.stdout)
    job = Job.objects.get()
    assert (job.gpus, job.pools) == (choice["gpus"], choice["pools"])
    assert f"GPUs  {', '.join(map(str, choice['gpus']))}" in shown.stdout
    assert "cheapest" in shown.stdout


def test_the_client_plans_and_is_told_what_does_not_fit(login):
    with Client(*login) as hanse:
        assert hanse.plan(BODY)["pools"] == ["north.gpu"]
        with pytest.raises(Conflict, match="the tightest part is") as caught:
            hanse.plan({**BODY, "model": LARGE, "gpus": [1]})
    assert caught.value.code == "no_plan"
