"""What everybody may know of the market: offers, rounds, prices, classes, oneself."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from federation.models import JobClass, Lease, User
from tests.broker.api_world import (
    Caller,
    a_caller,
    a_running_job,
    a_site_now,
    nothing_stored,
    problem,
)
from tests.broker.settled_world import an_operator, member_caller
from tests.support import world

pytestmark = pytest.mark.django_db


def test_an_offer_tells_price_and_speed_of_each_class():
    api = a_caller()
    a_site_now("north", gpus=8, gpu="H100", reserve="2.5", speeds={"cnn": 900.0, "lm": 80.0})

    [offer] = api.get("/offers").json()["results"]

    assert (offer["site"], offer["pool"], offer["member"]) == ("north", "north.gpu", "alder")
    assert (offer["gpu"], offer["gpus"], offer["reserve"]) == ("H100", 8, "2.500000")
    assert offer["price"] is None
    assert [(a["job_class"], a["declared"], a["believed"]) for a in offer["affinities"]] == [
        ("cnn", 900.0, 900.0),
        ("lm", 80.0, 80.0),
    ]


def test_a_silent_sites_offer_is_not_shown():
    api = a_caller()
    site = a_site_now("north")
    type(site).objects.update(state="silent")

    assert api.get("/offers").json()["results"] == []


def test_thirty_offers_cost_as_many_queries_as_three(django_assert_max_num_queries):
    api = a_caller()
    for _ in range(30):
        a_site_now()
    with django_assert_max_num_queries(15):
        assert len(api.get("/offers").json()["results"]) == 30


def test_a_round_shows_totals_and_prices_but_no_single_bid():
    tenant = world.a_tenant("ann")
    lease = a_running_job(
        tenant, a_site_now("north"), value="777.123456", max_cost="888.654321", name="secret-name"
    )
    api = a_caller(world.a_tenant("bob"))

    rounds = api.get("/rounds").json()["results"]
    number = lease.round.number
    one = api.get(f"/rounds/{number}").json()
    prices = api.get(f"/rounds/{number}/prices").json()["results"]

    assert one in rounds
    assert (one["state"], one["bids"], one["offers"], one["certified"]) == ("PUBLISHED", 1, 1, True)
    assert one["snapshot_sha256"]
    [price] = prices
    assert (price["pool"], price["gpus"]) == ("north.gpu", 4)
    assert float(price["price"]) == float(price["reserve"]) + float(price["rent"])
    told = json.dumps([rounds, one, prices])
    for secret in ("777.1", "888.6", "777123456", "secret-name", "ann", str(lease.job_id)):
        assert secret not in told


def test_rounds_come_newest_first_in_pages():
    api = a_caller()
    a_site_now("north")
    world.a_job(world.a_tenant("ann"), now=timezone.now(), value="1")  # a bid that stays
    for number in range(1, 6):
        world.a_round(timezone.now() + timedelta(seconds=30 * number))

    page = api.get("/rounds", {"limit": 3}).json()
    rest = Caller(api.token, prefix="").get(page["next"].removeprefix("http://testserver")).json()
    numbers = [row["number"] for row in page["results"] + rest["results"]]

    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == len(numbers) >= 5
    problem(api.get("/rounds", {"cursor": "cD1hYmM="}), 422, "bad_input", "cursor")


@pytest.mark.parametrize("number", ["999", "9" * 40])
def test_a_round_that_never_was_is_not_found(number):
    problem(a_caller().get(f"/rounds/{number}"), 404, "not_found")


def test_a_member_registers_a_class_of_its_own():
    api = a_caller(world.a_tenant("ann", member=world.a_member("birch")))

    answer = api.post("/classes", {"name": "vit-b16", "title": "ViT, batch 16 – naïve"})

    assert answer.status_code == 201
    assert (answer.json()["name"], answer.json()["owner"]) == ("vit-b16", "birch")
    assert {row["name"] for row in api.get("/classes").json()["results"]} == {"cnn", "vit-b16"}
    with nothing_stored():
        problem(api.post("/classes", {"name": "vit-b16"}), 409, "name_taken")


def test_who_belongs_to_no_member_registers_no_class():
    api = a_caller(world.a_tenant("ann"))
    User.objects.update(member=None)

    with nothing_stored():
        problem(api.post("/classes", {"name": "vit"}), 403, "not_allowed")


def test_classes_come_by_name_in_pages():
    api = a_caller()
    for number in range(5):
        world.a_class(f"c{number}")

    page = api.get("/classes", {"limit": 4}).json()
    rest = Caller(api.token, prefix="").get(page["next"].removeprefix("http://testserver")).json()

    names = [row["name"] for row in page["results"] + rest["results"]]
    assert names == sorted(JobClass.objects.values_list("name", flat=True))


def put(api, path, body):
    client = Client(headers={"Authorization": f"Bearer {api.token}"})
    return client.put(api.prefix + path, json.dumps(body), content_type="application/json")


def test_an_owner_sets_the_profile_of_its_class_and_others_do_not_see_it():
    birch = world.a_member("birch")
    mine, ours = world.a_class("mine"), world.a_class("ours")
    JobClass.objects.filter(pk=mine.pk).update(owner=birch)
    now = timezone.now()
    owner, other = member_caller("birch", now), member_caller("alder", now)
    operator = an_operator(now)
    said = {"work": "resnet50", "operations": 1.2e10, "batch": 64}

    assert owner.get("/classes/mine/profile").json() == {}
    assert put(owner, "/classes/mine/profile", said).json() == said
    assert owner.get("/classes/mine/profile").json() == said
    tenant = a_caller(world.a_tenant("ann", member=birch))
    assert tenant.get("/classes/mine/profile").json() == said
    problem(put(tenant, "/classes/mine/profile", {}), 403, "no_member")
    assert owner.get("/classes/mine/profile").json() == said
    assert put(operator, "/classes/ours/profile", said).status_code == 200
    assert other.get("/classes/ours/profile").json() == said
    problem(other.get("/classes/mine/profile"), 403, "not_owner")
    problem(put(other, "/classes/mine/profile", {}), 403, "not_owner")
    problem(put(owner, "/classes/ours/profile", {}), 403, "not_owner")
    problem(owner.get("/classes/none/profile"), 404, "not_found")
    problem(put(owner, "/classes/none/profile", {}), 404, "not_found")
    bad = put(owner, "/classes/mine/profile", {"batch": 0, "x": 1})
    problem(bad, 422, "bad_input", "batch", "x")
    User.objects.update(member=None)
    problem(owner.get("/classes/mine/profile"), 403, "no_member")
    assert JobClass.objects.get(pk=ours.pk).profile == said


def test_me_tells_funds_free_and_in_escrow():
    tenant = world.a_tenant("ann", credits=100)
    api = a_caller(tenant)
    before = api.get("/me").json()
    a_running_job(tenant, a_site_now("north"), max_cost="50", samples=10_000)
    after = api.get("/me").json()

    assert (before["tenant"], before["member"], before["operator"]) == ("ann", "birch", False)
    assert before["funds"] == {"currency": "cash", "available": "100.000000", "escrow": "0.000000"}
    held = float(after["funds"]["escrow"])
    assert held > 0
    assert float(after["funds"]["available"]) == pytest.approx(100 - held)
    assert Lease.objects.count() == 1
