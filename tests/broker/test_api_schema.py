"""The OpenAPI document says what the API does, and the API does what the document says."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone

from broker.tasks import run_study, tick_studies
from federation.models import Alarm, JobClass, Lease, Study
from federation.services.leases import Ending
from federation.services.rules import consent_give, rules_of
from tests.broker.api_world import BODY, Caller, a_caller, a_running_job, a_site_now
from tests.broker.settled_world import an_operator
from tests.support import world

OPERATIONS = {
    ("/api/v1/alarms", "get"): "alarms_list",
    ("/api/v1/alarms/{id}", "get"): "alarms_get",
    ("/api/v1/alarms/{id}/close", "post"): "alarms_close",
    ("/api/v1/classes", "get"): "classes_list",
    ("/api/v1/classes", "post"): "classes_create",
    ("/api/v1/classes/{name}/profile", "get"): "classes_profile_get",
    ("/api/v1/classes/{name}/profile", "put"): "classes_profile_put",
    ("/api/v1/contracts", "get"): "contracts_list",
    ("/api/v1/contracts/{id}", "get"): "contracts_get",
    ("/api/v1/contracts/{id}/counts", "post"): "contracts_count",
    ("/api/v1/contracts/{id}/disputes", "post"): "contracts_dispute",
    ("/api/v1/deposits", "post"): "deposits_post",
    ("/api/v1/disputes", "get"): "disputes_list",
    ("/api/v1/disputes/{id}", "get"): "disputes_get",
    ("/api/v1/disputes/{id}/decision", "post"): "disputes_decide",
    ("/api/v1/disputes/{id}/evidence", "post"): "disputes_evidence",
    ("/api/v1/disputes/{id}/withdraw", "post"): "disputes_withdraw",
    ("/api/v1/epochs", "get"): "epochs_list",
    ("/api/v1/epochs", "post"): "epochs_propose",
    ("/api/v1/epochs/{number}", "get"): "epochs_get",
    ("/api/v1/epochs/{number}/post", "post"): "epochs_post",
    ("/api/v1/epochs/{number}/refuse", "post"): "epochs_refuse",
    ("/api/v1/inquiries", "get"): "inquiries_list",
    ("/api/v1/inquiries", "post"): "inquiries_ask",
    ("/api/v1/inquiries/{id}", "get"): "inquiries_get",
    ("/api/v1/rules", "get"): "rules_get",
    ("/api/v1/rules", "post"): "rules_set",
    ("/api/v1/rules/consent", "post"): "rules_consent",
    ("/api/v1/rules/preview", "post"): "rules_preview",
    ("/api/v1/withdrawals", "post"): "withdrawals_post",
    ("/api/v1/jobs", "get"): "jobs_list",
    ("/api/v1/jobs", "post"): "jobs_submit",
    ("/api/v1/jobs/{id}", "get"): "jobs_get",
    ("/api/v1/jobs/{id}/cancel", "post"): "jobs_cancel",
    ("/api/v1/jobs/{id}/explanation", "get"): "jobs_explanation",
    ("/api/v1/jobs/{id}/logs", "get"): "jobs_logs",
    ("/api/v1/jobs/{id}/why", "get"): "jobs_why",
    ("/api/v1/ledger", "get"): "ledger_get",
    ("/api/v1/ledger/export", "get"): "ledger_export",
    ("/api/v1/ledger/reversals", "post"): "reversals_post",
    ("/api/v1/me", "get"): "me",
    ("/api/v1/members/{name}/credit", "post"): "members_credit",
    ("/api/v1/members/{name}/statement", "get"): "statements_get",
    ("/api/v1/models", "get"): "models_list",
    ("/api/v1/offers", "get"): "offers_list",
    ("/api/v1/plans", "post"): "plans_make",
    ("/api/v1/quotes", "get"): "quotes_list",
    ("/api/v1/quotes", "post"): "quotes_ask",
    ("/api/v1/quotes/batch", "post"): "quotes_ask_many",
    ("/api/v1/quotes/{id}", "get"): "quotes_get",
    ("/api/v1/rounds", "get"): "rounds_list",
    ("/api/v1/rounds/{number}", "get"): "rounds_get",
    ("/api/v1/rounds/{number}/contributions", "get"): "contributions_get",
    ("/api/v1/rounds/{number}/contributions", "post"): "contributions_ask",
    ("/api/v1/rounds/{number}/curves", "get"): "rounds_curves",
    ("/api/v1/rounds/{number}/prices", "get"): "rounds_prices",
    ("/api/v1/samples/quarantined", "get"): "samples_quarantined",
}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    document: dict[str, Any] = yaml.safe_load(out.getvalue())
    return document


def test_every_address_has_its_stable_operation_id(schema):
    told = {
        (path, method): operation["operationId"]
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert schema["openapi"] == "3.1.0"
    assert told == OPERATIONS


def test_every_address_of_the_api_is_documented(schema):
    routes = get_resolver("broker.api.urls").reverse_dict
    known = {
        "/api/v1/" + re.sub(r"%\(\w+\)s", "{}", pattern)
        for name in routes
        if isinstance(name, str)
        for pattern, _ in routes.getlist(name)[0][0]
    }
    told = {re.sub(r"{\w+}", "{}", path) for path in schema["paths"]}
    assert known == told


def test_every_operation_tells_its_refusals_as_problem_documents(schema):
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            refusals = {s: r for s, r in operation["responses"].items() if s >= "400"}
            assert {"401", "429"} <= set(refusals), path
            for response in refusals.values():
                assert list(response["content"]) == ["application/problem+json"]
            assert operation["security"] == [{"token": []}]
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_the_examples_fit_their_own_schema(schema):
    request = schema["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    for example in [*(e["value"] for e in request["examples"].values()), BODY]:
        fits(schema, request["schema"], example)


def fits(schema: dict[str, Any], shape: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator({**shape, "components": schema["components"]}).validate(value)


def answers(schema: dict[str, Any], path: str, method: str, status: str) -> dict[str, Any]:
    content = schema["paths"][path][method]["responses"][status]["content"]
    [shape] = [media["schema"] for media in content.values()]
    return shape


@pytest.mark.django_db
def test_answers_have_the_shape_that_the_document_says(schema):
    tenant = world.a_tenant("ann")
    api = a_caller(tenant)
    north = a_site_now("north")
    for member in (north.member, tenant.member):  # else its round has no dividend
        now = timezone.now()
        consent_give(rules=rules_of(north.venue, now), member=member, actor="test", now=now)
    lease = a_running_job(tenant, north)
    api.submit(name="waits", gpus=[64])
    job, number = str(lease.job_id), str(lease.round.number)
    quote = api.post("/quotes", BODY).json()["id"]
    api.post(f"/rounds/{number}/contributions")
    operator = an_operator(timezone.now())
    JobClass.objects.filter(name="cnn").update(profile=PROFILE)
    named = {"quotes": quote, **afterwards(lease, api, operator)}
    for path, method in OPERATIONS:
        if method == "get" and not path.endswith(("/logs", "/export")):
            kind = path.split("/")[3]
            address = path.replace("{id}", named.get(kind, job)).replace("{number}", number)
            address = address.replace("{name}", "cnn" if kind == "classes" else "birch")
            caller = operator if kind in OPERATORS else api
            body = caller.get(address.removeprefix("/api/v1")).json()
            shape = answers(schema, path, "get", "200")
            fits(schema, shape, body)
            assert set(body) == set(resolved(schema, shape)["properties"]), path
    fits(schema, answers(schema, "/api/v1/jobs", "post", "201"), api.submit().json())
    fits(schema, answers(schema, "/api/v1/jobs", "post", "422"), api.submit(gpus=[]).json())


PROFILE = {
    "work": "resnet50", "operations": 1.2e10, "parameters": 2.56e7, "batch": 64,
    "precision": "half", "operators": [{"kind": "Conv2D", "size": 1e6, "on_cpu": False}],
    "timings": [{"device": "V100", "seconds": [0.002]}],
    "exchanges": [{"device": "V100", "gpus": 4, "seconds": 0.01}],
}  # fmt: skip
OPERATORS = ("alarms", "epochs", "inquiries", "ledger", "members", "models")


def compute() -> None:
    while waiting := Study.objects.filter(state="pending").first():
        run_study(str(waiting.pk))


def afterwards(lease: Lease, api: Caller, operator: Caller) -> dict[str, str]:
    """The lease is over and paid, its epoch proposed, its contract disputed: ids by kind."""
    now = timezone.now()
    agent, contract = world.SimAgent(lease.site), lease.contracts.get()
    agent.sync(now)
    agent.report(lease, now, samples=contract.contracted, ending=Ending("exited", exit_code=0))
    world.pay(now)
    until = {"until": (now + timedelta(minutes=1)).isoformat()}
    inquiry = operator.post("/epochs", until).json()["id"]
    compute()
    tick_studies()
    objection = {"code": "fewer_samples", "why": "The log shows less.", "claimed": 1}
    path = f"/contracts/{contract.pk}/disputes"
    dispute = api.post(path, objection).json()["id"]
    api.post(f"/disputes/{dispute}/evidence", {"text": "the log"})
    alarm = Alarm.objects.create(kind="ring", about="a → b → a", why="a circle", created_at=now)
    return {
        "contracts": str(contract.pk),
        "disputes": dispute,
        "inquiries": inquiry,
        "alarms": str(alarm.pk),
    }


def resolved(schema: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in shape:
        return shape
    part: dict[str, Any] = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
    return part


@pytest.mark.django_db
def test_the_page_of_the_reference_loads_nothing_from_elsewhere():
    page = Client().get("/api/docs")
    document = Client().get("/api/schema")

    assert page.status_code == document.status_code == 200
    addresses = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page.content.decode())
    assert len(addresses) >= 3
    assert all(address.startswith("/") and address[1] != "/" for address in addresses), addresses
    for address in addresses:
        found = Client().get(address)
        assert found.status_code == 200, address
        found.close()
    assert b"http://" not in page.content
    assert b"https://" not in page.content
