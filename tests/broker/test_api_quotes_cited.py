"""Quotes that jobs cite, over HTTP and with the tenants' own command against the real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from typer.testing import CliRunner

from broker.tasks import run_study
from federation.models import Job, Study
from hanse.cli import app
from tests.broker.api_world import (
    BODY,
    Caller,
    a_caller,
    a_site_now,
    a_token,
    nothing_stored,
    problem,
    serving,
)
from tests.support import world

WISH = {**BODY, "value": "900", "gpus": [2]}
FILE = """\
name: night
workload: {class: cnn, samples: 100000}
resources: {accelerators: {A100: 2}}
market: {value: 900, max_cost: 1000}
run: python train.py
"""


def a_market() -> Caller:
    """North sells four GPUs; one round has been published, and bob bids in it."""
    now = timezone.now()
    ann, bob = world.a_tenant("ann"), world.a_tenant("bob")
    a_site_now("north", gpus=4, speeds={"cnn": 1000.0})
    world.a_job(bob, name="bob-job", gpus=[1], value="300", now=now)
    world.a_round(now + timedelta(seconds=10))
    return a_caller(ann)


def compute() -> None:
    while waiting := Study.objects.filter(state="pending").first():
        run_study(str(waiting.pk))


def quoted(api: Caller, **changes: Any) -> dict[str, Any]:
    asked = api.post("/quotes", {**WISH, **changes})
    assert asked.status_code == 202, asked.content
    compute()
    told: dict[str, Any] = api.get(f"/quotes/{asked.json()['id']}").json()
    return told


@pytest.mark.django_db
def test_a_job_cites_a_quote_and_shows_what_it_said():
    api = a_market()
    quote = quoted(api)
    assert quote["expires_at"] > quote["created_at"]
    [pin] = quote["offers"]
    assert (pin["site"], pin["version"]) == ("north", 1)
    [placed] = quote["answer"]["placed"]
    assert placed["samples_per_s"] == 2000.0
    assert float(placed["price_per_million"]) == pytest.approx(
        float(placed["payment"]) / placed["samples"] * 1e6, abs=2e-6
    )
    assert placed["plan"] is None
    response = api.post("/jobs", {**WISH, "quote": quote["id"]})
    assert response.status_code == 201, response.content
    job = response.json()
    assert job["quote"] == quote["id"]
    same = ("pool", "gpus", "price", "samples", "samples_per_s", "payment")
    assert {name: job["quoted"][name] for name in same} == {name: placed[name] for name in same}
    assert job["quoted"]["offers"] == quote["offers"]
    assert job["quoted"]["expires_at"] == quote["expires_at"]
    assert api.submit().json()["quoted"] is None
    schema = SchemaGenerator().get_schema(request=None, public=True)
    for shape, answer in (("JobOut", job), ("QuoteOut", quote)):
        own = schema["components"]["schemas"][shape]
        jsonschema.Draft202012Validator({**own, "components": schema["components"]}).validate(
            answer
        )


@pytest.mark.django_db
def test_a_quote_that_cannot_be_cited_is_a_problem_document():
    api = a_market()
    quote = quoted(api)
    other = a_caller(world.a_tenant("eve"))
    with nothing_stored():
        for caller, named in ((other, quote["id"]), (api, str(uuid4()))):
            body = problem(
                caller.post("/jobs", {**WISH, "quote": named}), 422, "bad_input", "quote"
            )
            assert body["errors"][0]["code"] == "unknown_quote"
        problem(api.post("/jobs", {**WISH, "quote": "7"}), 422, "bad_input", "quote")
        changed = {**WISH, "quote": quote["id"], "value": "901", "samples": 99_999, "gpus": [1]}
        body = problem(api.post("/jobs", changed), 422, "bad_input", "value", "samples", "gpus")
        assert {error["code"] for error in body["errors"]} == {"quote_differs"}
    world.an_offer(world.Site.objects.get(name="north"), reserve="11", now=timezone.now())
    with nothing_stored():
        stale = problem(api.post("/jobs", {**WISH, "quote": quote["id"]}), 409, "quote_stale")
    assert "north offers version 2" in stale["detail"]
    Study.objects.update(
        parameters={**Study.objects.get().parameters, "expires_at": "2020-01-01T00:00:00+00:00"}
    )
    problem(api.post("/jobs", {**WISH, "quote": quote["id"]}), 409, "quote_expired")
    assert api.get(f"/quotes/{quote['id']}").json()["answer"] == quote["answer"]


@pytest.fixture
def tenant(ledger_may_be_flushed, tmp_path, monkeypatch) -> Iterator[Any]:
    """Ann at her shell; while she waits, the workers work."""
    a_market()
    monkeypatch.setattr("hanse.following.time", SimpleNamespace(sleep=lambda _: compute()))
    monkeypatch.setenv("HANSE_TOKEN", a_token(world.Tenant.objects.get(name="ann")))
    path = tmp_path / "job.yaml"
    path.write_text(FILE)
    with serving() as url:
        monkeypatch.setenv("HANSE_URL", url)
        yield lambda *words: CliRunner().invoke(app, [*words, str(path)])


def test_a_tenant_asks_reads_the_price_and_submits_with_it(tenant):
    shown = tenant("quote")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "north.gpu" in shown.stdout
    asked = tenant("quote", "-o", "json")
    quote = json.loads(asked.stdout)
    assert quote["answer"]["runs"]
    done = tenant("submit", "--quote", quote["id"], "-o", "json")
    assert done.exit_code == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["quoted"]["payment"] == quote["answer"]["placed"][0]["payment"]
    assert str(Job.objects.get(pk=job["id"]).quote) == quote["id"]
    refused = tenant("submit", "--quote", str(uuid4()))
    assert refused.exit_code == 1
    assert "no such quote" in refused.stderr
