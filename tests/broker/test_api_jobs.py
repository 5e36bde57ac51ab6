"""Tenants submit, read and cancel their own jobs."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from federation.machines.job import FINAL, JobState
from federation.models import Event, IdempotencyKey, Job, User
from tests.broker.api_world import (
    BODY,
    Caller,
    a_caller,
    a_running_job,
    a_site_now,
    a_token,
    job_of,
    nothing_stored,
    problem,
)
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def api() -> Caller:
    return a_caller(world.a_tenant("ann"))


def test_a_job_is_created_and_answered_with_its_address(api):
    answer = api.submit(env={"EPOCHS": "3"}, deadline="2030-01-01T00:00:00+02:00")

    assert answer.status_code == 201
    job = job_of(answer)
    assert answer["Location"] == f"/api/v1/jobs/{job.pk}"
    body = answer.json()
    assert (body["state"], body["tenant"], body["job_class"]) == ("PENDING", "ann", "cnn")
    assert (body["value"], body["max_cost"]) == ("500.000000", "1000.000000")
    assert body["deadline"] == "2029-12-31T22:00:00Z"
    assert body["reason"]["code"] == "queued"
    assert job.env == {"EPOCHS": "3"}
    assert api.get(f"/jobs/{job.pk}").json() == body


def test_the_command_may_hold_whatever_a_shell_understands(api):
    command = "set -e; echo $HOME | tee 'x' && rm -rf \"$TMP\" # 東京 `date`\n"

    assert job_of(api.submit(command=command)).command == command


def test_the_same_key_and_body_get_the_first_answer(api):
    first = api.submit(key="k1")
    again = api.submit(key="k1", value=500, max_cost="1000.00")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert (first.get("Idempotent-Replay"), again["Idempotent-Replay"]) == (None, "true")
    assert Job.objects.count() == IdempotencyKey.objects.count() == 1


def test_the_same_key_with_another_body_is_a_conflict(api):
    api.submit(key="k1")

    with nothing_stored():
        problem(api.submit(key="k1", samples=7), 409, "idempotency_conflict")


def test_a_key_belongs_to_its_tenant(api):
    other = a_caller(world.a_tenant("bob"))

    assert api.submit(key="k1").json()["id"] != other.submit(key="k1").json()["id"]


def test_a_replay_tells_what_the_job_has_become(api):
    job = api.submit(key="k1").json()["id"]
    api.post(f"/jobs/{job}/cancel")

    assert api.submit(key="k1").json()["state"] == "CANCELLED"


def test_a_refused_request_leaves_its_key_free(api):
    problem(api.submit(key="k1", gpus=[0]), 422, "bad_input", "gpus[0]")

    assert api.submit(key="k1").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 201, "a b", "k\x00", "caf\xe9"])
def test_a_key_is_printable_and_short(api, key):
    with nothing_stored():
        problem(api.submit(key=key), 422, "bad_input", "Idempotency-Key")


def test_without_funds_no_job_is_taken(api):
    poor = a_caller(world.a_tenant("poor", credits=0))

    with nothing_stored():
        body = problem(poor.submit(), 409, "no_funds")
    assert "deposit" in body["detail"]


def test_an_account_without_a_tenant_has_no_jobs():
    a_caller()
    clerk = User.objects.create(username="clerk")
    tenant = world.a_tenant("ann2")
    token = a_token(tenant)
    User.objects.filter(username="tenant-ann2").update(tenant=None)

    for answer in (Caller(token).get("/jobs"), Caller(token).submit()):
        problem(answer, 403, "no_tenant")
    assert clerk.tenant is None


def test_anothers_job_answers_as_one_that_never_was(api):
    lease = a_running_job(world.a_tenant("bob"), a_site_now("north"))
    for path in ("/jobs/{}", "/jobs/{}/why", "/jobs/{}/logs"):
        theirs, nobodys = api.get(path.format(lease.job_id)), api.get(path.format(uuid.uuid4()))
        problem(theirs, 404, "not_found")
        assert theirs.content == nobodys.content
    with nothing_stored():
        theirs = api.post(f"/jobs/{lease.job_id}/cancel")
        assert theirs.content == api.post(f"/jobs/{uuid.uuid4()}/cancel").content
    problem(theirs, 404, "not_found")
    assert api.get("/jobs").json()["results"] == []


def test_pages_hold_still_while_jobs_arrive(api):
    for number in range(7):
        api.submit(name=f"old-{number}")

    first = api.get("/jobs", {"limit": 3}).json()
    for number in range(5):
        api.submit(name=f"new-{number}")
    second = Caller(api.token, prefix="").get(first["next"].removeprefix("http://testserver"))
    third = Caller(api.token, prefix="").get(
        second.json()["next"].removeprefix("http://testserver")
    )

    seen = [row["name"] for page in (first, second.json(), third.json()) for row in page["results"]]
    assert seen == [f"old-{number}" for number in reversed(range(7))]
    assert third.json()["next"] is None


@pytest.mark.parametrize("cursor", ["x", "cD1hYmM=", "bz0tMQ==", "%00", "cD0lMDA="])
def test_a_cursor_that_is_none_is_refused(api, cursor):
    problem(api.get("/jobs", {"cursor": cursor}), 422, "bad_input", "cursor")


@pytest.mark.parametrize("limit", ["0", "-1", "abc", "1.5", "9" * 30, "²"])
def test_a_page_size_that_is_none_is_refused(api, limit):
    problem(api.get("/jobs", {"limit": limit}), 422, "bad_input", "limit")


def test_jobs_are_found_by_state_class_name_and_kind(api):
    world.a_class("lm")
    api.submit(name="one")
    api.submit(name="two", job_class="lm")
    gone = api.submit(name="three").json()["id"]
    api.post(f"/jobs/{gone}/cancel")

    def found(**query):
        return {row["name"] for row in api.get("/jobs", query).json()["results"]}

    assert found(state="PENDING") == {"one", "two"}
    assert found(state="cancelled, expired") == {"three"}
    assert found(job_class="lm") == {"two"}
    assert found(name="one") == {"one"}
    assert found(kind="probe") == set()


@pytest.mark.parametrize(
    ("query", "field"),
    [({"state": "SLEEPING"}, "state"), ({"kind": "war"}, "kind"), ({"name": "a\x00"}, "name")],
)
def test_a_filter_that_cannot_match_is_refused(api, query, field):
    problem(api.get("/jobs", query), 422, "bad_input", field)


def test_thirty_jobs_cost_as_many_queries_as_three():
    site, tenant = a_site_now("north", gpus=64), world.a_tenant("ann")
    api = a_caller(tenant)
    queries = []
    for count in (3, 27):
        for _ in range(count):
            world.a_job(tenant, now=timezone.now())
        world.a_round(timezone.now() + timedelta(seconds=10 + count))
        with CaptureQueriesContext(
            connection,
        ) as seen:
            rows = api.get("/jobs").json()["results"]
        queries.append(len(seen))
    assert len(rows) == 30
    assert {row["site"] for row in rows} == {site.name}
    assert queries[0] == queries[1] < 12


def test_a_placed_job_tells_where_and_at_what_price(api):
    tenant = world.a_tenant("tom")
    lease = a_running_job(tenant, a_site_now("north", reserve="10"))

    body = a_caller(tenant).get(f"/jobs/{lease.job_id}").json()

    assert (body["state"], body["site"], body["pool"]) == ("RESERVED", "north", "north.gpu")
    assert (body["attempt"], body["predicted_samples_per_s"]) == (1, 1000.0)
    assert float(body["price"]) >= 10
    assert float(body["held"]) > 0


def test_why_tells_the_last_round_and_the_story(api):
    job = job_of(api.submit(name="slow", gpus=[64]))
    a_site_now("north")
    world.a_round(timezone.now() + timedelta(seconds=10))

    why = api.get(f"/jobs/{job.pk}/why").json()

    assert why["state"] == "PENDING"
    assert why["summary"] == why["rounds"][0]["why"]
    assert why["rounds"][0]["code"] not in ("", "awarded")
    assert [line["event"] for line in why["story"]] == ["submit"]


def test_a_waiting_job_is_cancelled_at_once_and_only_once(api):
    job = api.submit().json()["id"]

    first = api.post(f"/jobs/{job}/cancel")
    with nothing_stored():
        again = api.post(f"/jobs/{job}/cancel")

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["state"] == again.json()["state"] == "CANCELLED"
    assert first.json()["reason"]["code"] == "cancelled"
    assert Event.objects.filter(subject="job", subject_id=job, event="cancel").count() == 1


def test_a_delivered_job_is_asked_back_with_its_grace():
    tenant, site = world.a_tenant("tom"), a_site_now("north")
    api = a_caller(tenant)
    lease = a_running_job(tenant, site)
    agent = world.SimAgent(site)
    agent.sync(timezone.now())

    states = [api.post(f"/jobs/{lease.job_id}/cancel").json()["state"] for _ in range(2)]

    assert states == ["CANCELLING", "CANCELLING"]
    [revoke] = agent.sync(timezone.now()).revokes
    assert (revoke.lease_id, revoke.code) == (lease.pk, "cancelled")


def test_a_lease_that_nobody_got_ends_with_its_job():
    tenant = world.a_tenant("tom")
    lease = a_running_job(tenant, a_site_now("north"))

    body = a_caller(tenant).post(f"/jobs/{lease.job_id}/cancel").json()

    assert body["state"] == "CANCELLED"
    lease.refresh_from_db()
    assert lease.state == "revoked"


@pytest.mark.parametrize("state", sorted(JobState))
def test_cancel_answers_in_every_state(api, state):
    job = job_of(api.submit())
    Job.objects.filter(pk=job.pk).update(state=state)

    answer = api.post(f"/jobs/{job.pk}/cancel")

    if state in FINAL - {JobState.CANCELLED}:
        problem(answer, 409, "invalid_transition")
        expected = state
    else:
        assert answer.status_code == 200
        done = state in (JobState.PENDING, JobState.CANCELLED)
        expected = JobState.CANCELLED if done else JobState.CANCELLING
    job.refresh_from_db()
    assert job.state == expected


def test_the_example_of_the_reference_is_a_job(api):
    from broker.api.serializers import EXAMPLE, SMALLEST

    world.a_class("resnet50-b256-amp")
    for example in (EXAMPLE, SMALLEST):
        assert api.post("/jobs", example.value).status_code == 201
    assert set(BODY) <= set(EXAMPLE.value)
