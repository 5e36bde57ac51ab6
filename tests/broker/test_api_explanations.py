"""Curves and explanations over HTTP: what they say, and to whom."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.utils import timezone
from knox.models import get_token_model

from federation.models import Job, Round, Snapshot, User
from federation.selectors.rounds import book_of, clearing_of
from federation.services.rounds import round_ensure_open
from tests.broker.api_world import Caller, a_caller, a_site_now, problem
from tests.support import world

pytestmark = pytest.mark.django_db
BIDS = {"ann": "913.7", "bob": "817.3", "cleo": "719.9"}


def a_token_of(user: User) -> Caller:
    cache.clear()
    return Caller(str(get_token_model().objects.create(user)[1]))


def an_operator() -> Caller:
    user, _ = User.objects.get_or_create(username="olga", is_staff=True)
    return a_token_of(user)


@pytest.fixture
def market() -> dict[str, Any]:
    """Two sites of two members, three tenants with two jobs each, one round."""
    now = timezone.now()
    north = a_site_now("north", member=world.a_member("alder"), gpus=4)
    south = a_site_now("south", member=world.a_member("clover"), gpus=1)
    world.a_class("vit")
    tenants = {name: world.a_tenant(name) for name in BIDS}
    jobs = {
        (name, number): world.a_job(tenants[name], now=now, value=value, gpus=[1])
        for name, value in BIDS.items()
        for number in (1, 2)
    }
    world.a_round(now + timedelta(seconds=10))
    [round] = Round.objects.filter(published_at__isnull=False)
    return {"round": round, "jobs": jobs, "tenants": tenants, "north": north, "south": south}


def curves(caller: Caller, market: dict[str, Any]) -> dict[str, Any]:
    answer = caller.get(f"/rounds/{market['round'].number}/curves")
    assert answer.status_code == 200, answer.content
    told: dict[str, Any] = answer.json()
    return told


def test_an_operator_sees_every_bid(market):
    told = curves(an_operator(), market)

    assert told["scope"] == "all"
    assert told["format"] == "hanse.curves/1"
    assert told["clearing_sha256"] == market["round"].clearing_sha256
    merit = {row["id"]: row["merit"] for row in told["pools"]}
    assert {row["job"] for row in merit["north.gpu"]} == {
        str(job.pk) for job in market["jobs"].values()
    }
    prices = clearing_of(market["round"])["prices"]
    assert {row["id"]: row["price"] for row in told["pools"]} == prices


def test_a_tenant_sees_no_single_bid(market):
    told = curves(a_caller(market["tenants"]["ann"]), market)

    assert told["scope"] == "public"
    full = curves(an_operator(), market)
    worths = {step["worth"] for row in full["pools"] for step in row["merit"]}
    steps = {price for row in full["pools"] for _, price in row["demand"] if price is not None}
    known = {row[key] for row in full["pools"] for key in ("price", "reserve")}
    secret = (worths | steps) - known
    assert len(secret) >= 2
    text = json.dumps(told)
    assert [price for price in secret if str(price) in text] == []
    assert all(str(job.pk) not in text for job in market["jobs"].values())
    north = next(row for row in told["pools"] if row["id"] == "north.gpu")
    assert (north["wanted"], north["crossing"]) == (None, None)
    assert north["supply"][0] == [0.0, 10.0]
    assert [point[1] for point in north["demand"]][-1] is None


def test_a_member_sees_the_steps_of_its_own_pools_alone(market):
    clerk = User.objects.create_user("carl", member=market["south"].member)
    told = curves(a_token_of(clerk), market)
    full = {row["id"]: row for row in curves(an_operator(), market)["pools"]}
    public = {row["id"]: row for row in curves(a_caller(market["tenants"]["ann"]), market)["pools"]}
    mine = {row["id"]: row for row in told["pools"]}

    assert told["scope"] == "own_pools"
    assert mine["south.gpu"]["demand"] == full["south.gpu"]["demand"]
    assert mine["south.gpu"]["crossing"] == full["south.gpu"]["crossing"]
    assert "merit" not in mine["south.gpu"]
    assert mine["north.gpu"] == public["north.gpu"]
    assert str(market["jobs"]["ann", 1].pk) not in json.dumps(told)


def test_a_tenants_user_is_no_member_of_the_market(market):
    """Birch owns a site too: its tenant's token must not open what its operators see."""
    birch = market["tenants"]["ann"].member
    a_site_now("east", member=birch, gpus=2)
    world.a_job(market["tenants"]["bob"], now=timezone.now())
    world.a_round(timezone.now() + timedelta(seconds=30))
    number = Round.objects.filter(published_at__isnull=False).latest("number").number

    told = a_caller(market["tenants"]["ann"]).get(f"/rounds/{number}/curves").json()

    east = next(row for row in told["pools"] if row["id"] == "east.gpu")
    assert told["scope"] == "public"
    assert east["wanted"] is None


def test_a_published_round_is_worked_out_once(market, monkeypatch):
    first, second = a_caller(market["tenants"]["ann"]), an_operator()
    told = curves(first, market), curves(second, market)
    monkeypatch.setattr("federation.selectors.explanations.read_cleared", lambda *_: 1 // 0)

    assert (curves(first, market), curves(second, market)) == told


def test_a_job_left_out_is_told_what_would_have_helped(market):
    job = Job.objects.filter(state="pending").get()
    name = job.tenant.name
    told = a_caller(market["tenants"][name]).get(f"/jobs/{job.pk}/explanation").json()

    assert told["round"] == market["round"].number
    assert told["job"]["id"] == str(job.pk)
    assert told["job"]["status"] == "not_served"
    assert {row["pool"] for row in told["job"]["pools"]} == {"north.gpu", "south.gpu"}
    prices = clearing_of(market["round"])["prices"]
    assert {row["pool"]: row["price"] for row in told["intervals"]} == prices
    [bound] = told["job"]["binding"]
    [unplaced] = [
        row for row in clearing_of(market["round"])["unplaced"] if row["job"] == str(job.pk)
    ]
    assert (bound["what"], bound["why"]) == (unplaced["reason"], unplaced["why"])
    others = [str(other.pk) for other in market["jobs"].values() if other.pk != job.pk]
    assert not any(other in json.dumps(told) for other in others)


def test_a_served_job_is_explained_too(market):
    job = market["jobs"]["ann", 1]
    told = a_caller(market["tenants"]["ann"]).get(f"/jobs/{job.pk}/explanation").json()["job"]

    assert told["status"] == "served"
    [line] = [row for row in clearing_of(market["round"])["allocation"] if row["job"] == told["id"]]
    assert told["payment_micro"] == line["payment_micro"]
    assert sum(row["sold"] for row in told["pools"]) == pytest.approx(line["gpu_hours"])


def test_another_tenants_job_is_not_there(market):
    job = market["jobs"]["ann", 1]
    path = f"/jobs/{job.pk}/explanation"

    problem(a_caller(market["tenants"]["bob"]).get(path), 404, "not_found")
    problem(an_operator().get(f"/jobs/{uuid4()}/explanation"), 404, "not_found")
    assert an_operator().get(path).status_code == 200
    clerk = User.objects.create_user("carl", member=market["north"].member)
    problem(a_token_of(clerk).get(path), 403, "no_tenant")


def test_without_a_token_nothing_is_told(market):
    job = market["jobs"]["ann", 1]
    for path in (f"/jobs/{job.pk}/explanation", f"/rounds/{market['round'].number}/curves"):
        problem(Caller(None).get(path), 401, "not_authenticated")


def test_a_round_without_an_outcome_tells_nothing(market):
    ann = a_caller(market["tenants"]["ann"])
    round_ensure_open(venue=world.a_venue(), now=timezone.now())
    [waits] = Round.objects.filter(published_at__isnull=True)
    number = market["round"].number

    problem(ann.get(f"/rounds/{waits.number}/curves"), 404, "not_published")
    problem(ann.get("/rounds/999/curves"), 404, "not_found")
    path = f"/jobs/{market['jobs']['ann', 1].pk}/explanation"
    problem(ann.get(path, {"round": "999"}), 404, "not_found")
    problem(ann.get(path, {"round": "first"}), 422, "bad_input", "round")
    assert ann.get(path, {"round": str(number)}).status_code == 200


def test_a_job_that_did_not_bid_is_told_so(market):
    ann = a_caller(market["tenants"]["ann"])
    late = world.a_job(market["tenants"]["ann"], now=timezone.now())
    path = f"/jobs/{late.pk}/explanation"

    problem(ann.get(path), 404, "did_not_bid")
    problem(ann.get(path, {"round": str(market["round"].number)}), 404, "did_not_bid")


def test_a_book_past_its_retention_is_told_so(market):
    Snapshot.objects.filter(round=market["round"]).update(body=None)
    ann = a_caller(market["tenants"]["ann"])

    problem(ann.get(f"/rounds/{market['round'].number}/curves"), 404, "not_kept")
    assert book_of(Round.objects.get(pk=market["round"].pk)) is None
