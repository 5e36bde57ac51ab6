"""`POST /plans` and submissions with a model, over HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.throttling import ScopedRateThrottle

from federation.models import Job
from tests.broker.api_world import BODY, Caller, a_caller, a_site_now, nothing_stored, problem
from tests.broker.settled_world import an_operator
from tests.federation.planned_scene import LARGE, SMALL, WIDE, a_line, put_on_offer
from tests.support import world

pytestmark = pytest.mark.django_db
JOB = {**{k: v for k, v in BODY.items() if k != "gpus"}, "model": SMALL, "value": "90000"}


@pytest.fixture
def site():
    return a_site_now("north", gpu="A100-80", gpus=8, reserve="1", speeds={"cnn": 6.0})


@pytest.fixture
def ann(site) -> Caller:
    return a_caller(world.a_tenant("ann"))


def a_published_round() -> None:
    """One with a bid: what quotes are based on."""
    now = timezone.now()
    world.a_job(world.a_tenant("bob"), gpus=[1], now=now)
    world.a_round(now + timedelta(seconds=10))


def test_a_plan_is_made_and_nothing_is_stored(ann):
    with nothing_stored():
        answer = ann.post("/plans", JOB)

    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert body["pools"] == ["north.gpu"]
    assert body["gpus"]
    cheapest = body["cheapest"]
    assert cheapest["plan"]["memory_gb"]["total"] <= cheapest["plan"]["memory_gb"]["usable"]
    assert cheapest in body["front"]
    assert body["refused"] == []


def test_a_submission_gets_what_the_plan_says(ann):
    planned = ann.post("/plans", JOB).json()

    answer = ann.post("/jobs", JOB)

    assert answer.status_code == 201, answer.content
    job = Job.objects.get(pk=answer.json()["id"])
    assert (job.gpus, job.pools) == (planned["gpus"], planned["pools"])
    assert job.model == {**SMALL, "params": 1.3e9}


def test_variables_are_taken_with_the_model(ann):
    variables = [{"name": "wte", "size_mb": 206.0, "sparse": True}, {"name": "x", "size_mb": 1.5}]

    answer = ann.post("/jobs", {**JOB, "model": {**SMALL, "variables": variables}})

    assert answer.status_code == 201, answer.content
    assert Job.objects.get(pk=answer.json()["id"]).model["variables"] == variables


def test_the_same_key_and_body_is_the_same_job(ann):
    first = ann.post("/jobs", JOB, Idempotency_Key="k")
    again = ann.post("/jobs", JOB, Idempotency_Key="k")

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    problem(
        ann.post("/jobs", {**JOB, "gpus": [8]}, Idempotency_Key="k"), 409, "idempotency_conflict"
    )


@pytest.mark.parametrize("path", ["/plans", "/jobs"])
def test_a_model_that_fits_nowhere_is_refused_with_the_tightest_part(ann, path):
    with nothing_stored():
        body = problem(ann.post(path, {**JOB, "model": LARGE, "gpus": [1]}), 409, "no_plan")
    assert "the tightest part is" in body["detail"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {**SMALL, "layers": 0}}, "model.layers"),
        ({"model": {**SMALL, "heads": 2.5}}, "model.heads"),
        ({"model": {**SMALL, "params": "1e9"}}, "model.params"),
        ({"model": {**SMALL, "params": 5}}, "model.params"),
        ({"model": {**SMALL, "seq": 10**10}}, "model.seq"),
        ({"model": {**SMALL, "experts": 8}}, "model.experts"),
        ({"model": {**SMALL, "variables": []}}, "model.variables"),
        ({"model": "gpt"}, "model"),
        ({"model": None}, "gpus"),
        ({"model": None, "gpus": [1]}, "model"),
        ({"job_class": "unheard-of"}, "job_class"),
        ({"deadline": "2001-01-01T00:00:00Z"}, "deadline"),
        ({"samples": 0}, "samples"),
    ],
)
def test_each_bad_field_is_named(ann, changes, field):
    with nothing_stored():
        body = problem_of(ann.post("/plans", {**JOB, **changes}))
    assert [error["field"].partition(" ")[0] for error in body["errors"]] == [field]


def problem_of(answer):
    assert answer.status_code == 422, answer.content
    return answer.json()


def test_only_tenants_make_plans(site):
    problem(Caller(None).post("/plans", JOB), 401, "not_authenticated")
    problem(an_operator(timezone.now()).post("/plans", JOB), 403, "no_tenant")


def test_another_tenants_job_shows_nothing_of_its_plan(ann):
    mine = ann.post("/jobs", JOB).json()
    bob = a_caller(world.a_tenant("bob"))

    assert bob.get(f"/jobs/{mine['id']}").status_code == 404
    assert bob.get(f"/jobs/{mine['id']}/why").status_code == 404


def test_plans_are_counted_apart(ann, monkeypatch):
    monkeypatch.setattr(ScopedRateThrottle, "THROTTLE_RATES", {"plans": "2/min", "quotes": "9/min"})

    seen = [ann.post("/plans", JOB).status_code for _ in range(3)]

    assert seen == [200, 200, 429]
    assert ann.get("/jobs").status_code == 200


def test_a_revoked_site_leaves_nothing_to_plan_for(ann, site):
    put_on_offer(site, a_line("gpu", "X9", 8), speeds={})
    body = problem(ann.post("/plans", JOB), 409, "no_plan")
    assert "in no data sheet" in body["detail"]
    put_on_offer(site, a_line("gpu", "X9", 8, device=WIDE), speeds={})
    assert ann.post("/plans", JOB).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "models"),
    [
        ("/jobs", JOB, 1),
        ("/quotes", JOB, 1),
        ("/quotes/batch", {"jobs": [JOB, {**JOB, "samples": 7}]}, 2),
    ],
)
def test_every_model_described_counts_as_a_plan(ann, monkeypatch, path, body, models):
    a_published_round()
    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "plans", "4/min")
    cache.clear()
    for _ in range(4 // models):
        answer = ann.post(path, body)
        assert answer.status_code in (201, 202), answer.content

    refused = ann.post(path, body)

    problem(refused, 429, "throttled")
    assert int(refused["Retry-After"]) > 0
    problem(ann.post("/plans", JOB), 429, "throttled")
    assert ann.get("/jobs").status_code == 200
    assert ann.post("/jobs", {**BODY, "name": "plain"}).status_code == 201
    cache.clear()


def test_a_batch_with_more_models_than_a_period_allows_is_taken_when_nothing_came_before(
    ann, monkeypatch
):
    a_published_round()
    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "plans", "1/min")
    cache.clear()
    jobs = [{**JOB, "samples": 1000 + at} for at in range(3)]
    assert ann.post("/quotes/batch", {"jobs": jobs}).status_code == 202
    problem(ann.post("/quotes/batch", {"jobs": jobs}), 429, "throttled")
    cache.clear()


@pytest.mark.parametrize("body", [[JOB], "x", {"jobs": 3}, {"jobs": ["x", None]}])
def test_a_body_that_is_no_submission_is_bad_input_as_ever(ann, body):
    for path in ("/jobs", "/quotes", "/quotes/batch"):
        assert ann.post(path, body).status_code in (400, 422)


def test_one_request_asks_for_few_quotes_of_described_models(ann):
    a_published_round()
    jobs = [{**JOB, "samples": 1000 + at} for at in range(6)]
    plain = {**BODY, "name": "plain"}

    refused = ann.post("/quotes/batch", {"jobs": jobs})

    body = problem(refused, 422, "bad_input", "jobs")
    assert "6 of them describe a model; at most 5" in str(body["errors"])
    assert ann.post("/quotes/batch", {"jobs": [*jobs[:5], plain]}).status_code == 202


def test_what_is_on_offer_is_read_once_for_all_models_of_a_request(ann):
    a_published_round()
    counts = []
    for number in (1, 5):
        cache.clear()
        jobs = [{**JOB, "samples": 1000 * number + at} for at in range(number)]
        with CaptureQueriesContext(connection) as seen:
            assert ann.post("/quotes/batch", {"jobs": jobs}).status_code == 202
        counts.append(sum("poolprice" in query["sql"] for query in seen))
    assert counts[0] == counts[1] > 0
