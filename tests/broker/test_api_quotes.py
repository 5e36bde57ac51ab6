"""What-if quotes and contributions over HTTP: asked, answered by a real solver, seen by whom."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from broker.tasks import run_study, tick_studies
from federation.models import Job, Round, Study, User
from federation.services.access import tenant_token_issue
from tests.broker.api_world import BODY, Caller, a_caller, a_site_now, nothing_stored, problem
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def market(db) -> dict[str, Caller]:
    """North sells four GPUs; ann has two of them and bob the others, in a published round."""
    now = timezone.now()
    ann, bob = world.a_tenant("ann"), world.a_tenant("bob", member=world.a_member("clover"))
    a_site_now("north", gpus=4, speeds={"cnn": 1000.0, "lm": 50.0})
    world.a_job(ann, name="ann-job", gpus=[2], value="400", now=now)
    world.a_job(bob, name="bob-job", gpus=[2], value="300", now=now)
    world.a_round(now + timedelta(seconds=10))
    return {"ann": a_caller(ann), "bob": a_caller(bob)}


def compute() -> None:
    """Let a worker take everything that waits, as the queue would have it."""
    while waiting := list(Study.objects.filter(state="pending").order_by("created_at")):
        for study in waiting:
            run_study(str(study.pk))


def asked(api: Caller, **changes) -> dict:
    response = api.post("/quotes", {**BODY, **changes})
    assert response.status_code == 202, response.content
    body: dict = response.json()
    assert response["Location"] == f"/api/v1/quotes/{body['id']}"
    return body


def answered(api: Caller, **changes) -> dict:
    body = asked(api, **changes)
    compute()
    told: dict = api.get(f"/quotes/{body['id']}").json()
    assert told["state"] == "DONE", told
    return told["answer"]


def test_a_quote_says_where_the_job_would_run_what_it_would_pay_and_whom_it_displaces(market):
    first = asked(market["ann"], value="900", gpus=[2])
    assert (first["state"], first["answer"], first["gpus"]) == ("PENDING", None, [2])
    answer = answered(market["ann"], value="900", gpus=[2])
    [placed] = answer["placed"]
    assert (answer["runs"], placed["pool"], placed["gpus"]) == (True, "north.gpu", 2)
    assert float(placed["payment"]) == pytest.approx(
        float(placed["price"]) * 2 * world.a_venue().round_s / 3600, abs=1e-5
    )
    assert (answer["displaces_own"], answer["displaces_others"]) == ([], 1)
    assert answer["reason"] is None
    own = answered(market["bob"], value="900", gpus=[2])
    assert own["displaces_own"] == [str(Job.objects.get(name="bob-job").pk)]
    assert own["displaces_others"] == 0


def test_a_quote_that_would_not_run_names_the_bid_that_would(market):
    answer = answered(market["ann"], value="20", gpus=[4])
    assert (answer["runs"], answer["placed"]) == (False, [])
    assert answer["reason"]["code"] in ("priced_out", "rejected_at_price", "budget")
    assert answer["reason"]["message"]
    assert answer["would_run_at"] is None or answer["would_run_at"]["pool"] == "north.gpu"


def test_a_class_that_nobody_bid_for_is_quoted_at_the_speed_that_the_site_states(market):
    answer = answered(market["ann"], job_class="lm", value="90000", max_cost="9000", gpus=[2])
    [placed] = answer["placed"]
    assert placed["samples"] == round(2 * 50.0 * world.a_venue().round_s)


def test_limits_of_the_job_and_of_its_purse_are_kept(market):
    nowhere = answered(market["ann"], value="900", sites_deny=["north"])
    assert nowhere["reason"]["code"] == "no_feasible_pool"
    poor = Caller(tenant_token_issue(tenant=world.a_tenant("poor", credits=0), actor="t", days=1,
                                     now=timezone.now()))  # fmt: skip
    problem(poor.post("/quotes", BODY), 409, "no_funds")
    problem(market["ann"].post("/quotes", {**BODY, "job_class": "nope"}), 422, "bad_input",
            "job_class")  # fmt: skip
    cited = {**BODY, "quote": "00000000-0000-0000-0000-000000000000"}
    problem(market["ann"].post("/quotes", cited), 422, "bad_input", "quote")
    late = {**BODY, "deadline": "2001-01-01T00:00:00Z"}
    problem(market["ann"].post("/quotes", late), 422, "bad_input", "deadline")
    problem(market["ann"].post("/quotes", {**BODY, "colour": 1}), 422, "bad_input", "colour")


def test_a_quote_changes_nothing_and_is_new_each_time_while_its_answer_is_computed_once(market):
    before = list(Job.objects.values_list("pk", "state").order_by("pk"))
    one, two = asked(market["ann"]), asked(market["ann"])
    assert one["id"] == two["id"]  # still awaited
    compute()
    first = market["ann"].get(f"/quotes/{one['id']}").json()
    again = asked(market["ann"])
    assert again["id"] != one["id"]
    assert again["expires_at"] > one["expires_at"] == first["expires_at"]
    assert (again["state"], again["answer"]) == ("DONE", first["answer"])
    assert list(Job.objects.values_list("pk", "state").order_by("pk")) == before
    assert Round.objects.filter(published_at__isnull=False).count() == 1


def test_a_batch_is_answered_one_by_one_in_its_order(market):
    api = market["ann"]
    wishes = [{**BODY, "gpus": [size], "value": "900"} for size in (1, 2, 4)]
    response = api.post("/quotes/batch", {"jobs": wishes})
    assert response.status_code == 202
    results = response.json()["results"]
    assert [row["gpus"] for row in results] == [[1], [2], [4]]
    compute()
    listed = api.get("/quotes").json()["results"]
    assert {row["state"] for row in listed} == {"DONE"}
    assert sorted(row["answer"]["placed"][0]["gpus"] for row in listed) == [1, 2, 4]
    with nothing_stored():
        for jobs in ([], [BODY] * 51, BODY):
            assert api.post("/quotes/batch", {"jobs": jobs}).status_code == 422
        bad = [BODY, {**BODY, "job_class": "nope"}]
        problem(api.post("/quotes/batch", {"jobs": bad}), 422, "bad_input", "jobs[1].job_class")


def test_a_quote_is_its_tenants_alone(market):
    body = asked(market["ann"])
    for path in (f"/quotes/{body['id']}", "/quotes/00000000-0000-0000-0000-000000000000"):
        problem(market["bob"].get(path), 404, "not_found")
    assert market["bob"].get("/quotes").json()["results"] == []
    problem(Caller(None).get("/quotes"), 401, "not_authenticated")
    no_tenant = Caller(an_account("visitor"))
    problem(no_tenant.post("/quotes", BODY), 403, "no_tenant")


def an_account(name: str, **fields) -> str:
    """A token of an account without a tenant."""
    from knox.models import get_token_model

    user = User.objects.create_user(name, **fields)
    _, token = get_token_model().objects.create(user, expiry=timedelta(days=1))
    return str(token)


def test_before_the_first_round_there_is_nothing_to_quote_against(db):
    api = a_caller()
    world.a_venue()
    body = problem(api.post("/quotes", BODY), 404, "no_round")
    assert "a first bid is needed" in body["detail"]


def test_asking_is_counted_apart_from_reading(market, monkeypatch):
    from rest_framework.throttling import ScopedRateThrottle

    monkeypatch.setitem(ScopedRateThrottle.THROTTLE_RATES, "quotes", "2/min")
    cache.clear()
    api = market["ann"]
    body = asked(api)
    asked(api, gpus=[2])
    refused = api.post("/quotes", BODY)
    problem(refused, 429, "throttled")
    assert int(refused["Retry-After"]) > 0
    assert api.get(f"/quotes/{body['id']}").status_code == 200
    cache.clear()


def test_too_many_unanswered_quotes_are_refused(market, monkeypatch):
    monkeypatch.setattr("federation.services.quotes.MAX_WAITING", 2)
    asked(market["ann"])
    wishes = [{**BODY, "gpus": [size]} for size in (2, 4)]
    with nothing_stored():
        problem(market["ann"].post("/quotes/batch", {"jobs": wishes}), 409, "too_many_quotes")


def contributions(api: Caller) -> dict:
    number = Round.objects.get(published_at__isnull=False).number
    response = api.get(f"/rounds/{number}/contributions")
    assert response.status_code == 200, response.content
    body: dict = response.json()
    return body


def ask_report(api: Caller):
    number = Round.objects.get(published_at__isnull=False).number
    return api.post(f"/rounds/{number}/contributions")


def test_a_report_is_computed_once_and_everybody_sees_their_own_part_of_it(market):
    operator = Caller(an_account("olga", is_staff=True))
    clover = Caller(an_account("clover-desk", member=world.a_member("clover")))
    problem(operator.get("/rounds/1/contributions"), 404, "not_asked")
    assert ask_report(market["ann"]).status_code == 202
    assert ask_report(operator).status_code == 202
    assert Study.objects.filter(kind="report").count() == 1
    compute()
    everything = contributions(operator)
    assert everything["state"] == "DONE"
    assert [row["tenant"] for row in everything["tenants"]] == ["ann", "bob"]
    for row in everything["tenants"]:
        assert float(row["marginal"]) >= float(row["at_least"]) >= 0
        assert float(row["low"]) <= float(row["marginal"]) <= float(row["high"])
        assert row["exact"] is False  # gangs
        assert row["failed"] is None
    assert [row["tenant"] for row in contributions(market["ann"])["tenants"]] == ["ann"]
    assert [row["tenant"] for row in contributions(clover)["tenants"]] == ["bob"]
    told = json.dumps(contributions(market["ann"]))
    assert "bob" not in told
    problem(Caller(an_account("visitor")).get("/rounds/1/contributions"), 403, "no_tenant")


def test_a_small_tenant_is_reported_by_its_bound_alone(market, settings):
    settings.STUDY_SHARE = 0.9
    ask_report(market["ann"])
    compute()
    [row] = contributions(market["ann"])["tenants"]
    assert (row["marginal"], row["would_pay"], row["exact"]) == (None, None, None)
    assert float(row["at_least"]) >= 0
    assert not Study.objects.filter(kind="contribution").exists()


def test_what_cannot_be_reported_is_said(market):
    problem(market["ann"].post("/rounds/99/contributions"), 404, "not_found")
    number = Round.objects.create(
        venue=world.a_venue(), number=77, closes_at=timezone.now(), created_at=timezone.now()
    ).number
    problem(market["ann"].post(f"/rounds/{number}/contributions"), 404, "not_published")


def test_a_lost_message_is_sent_again_by_the_tick(market):
    body = asked(market["ann"])
    Study.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    tick_studies()
    assert Study.objects.get().due_at > timezone.now()
    compute()
    assert market["ann"].get(f"/quotes/{body['id']}").json()["state"] == "DONE"
