"""What was held back of measurements, and how far models are: who sees which."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.cache import cache
from django.utils import timezone

from broker.tasks import tick_affinity
from federation.models import Lease, User
from federation.services.access import operator_token_issue
from federation.services.sample_checks import SampleIn
from federation.services.samples import samples_accept
from tests.broker.api_world import Caller, a_caller, a_running_job, a_site_now, problem
from tests.broker.settled_world import an_operator, member_caller
from tests.broker.test_commands import done
from tests.support import world

HELD, MODELS = "/samples/quarantined", "/models"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("tasks_at_once")]


class Market:
    """Ann of birch runs at alder's north, eve of clover at delta's south; both measure."""

    def __init__(self) -> None:
        self.now: datetime = timezone.now()
        self.ann = world.a_tenant("ann")
        self.eve = world.a_tenant("eve", member=world.a_member("clover"))
        self.north = a_site_now("north", gpus=8)
        self.at_north = a_running_job(self.ann, self.north, gpus=[2])
        self.south = a_site_now("south", gpus=8, member=world.a_member("delta"), reserve="0.01")
        self.at_south = a_running_job(self.eve, self.south, gpus=[8])
        assert (self.at_north.site, self.at_south.site) == (self.north, self.south)

    def send(self, lease: Lease, seq: int, step_s: float, batch: float = 32.0) -> None:
        one = SampleIn(lease.pk, seq, seq, seq, step_s=step_s, local_batch=batch)
        samples_accept(site=lease.site, samples=[one], now=self.now + timedelta(seconds=seq))


@pytest.fixture
def market() -> Market:
    market = Market()
    market.send(market.at_north, 1, -1.0)
    market.send(market.at_south, 2, 0.0)
    market.send(market.at_south, 3, 1e-5)
    return market


def leases(caller: Caller, **asked: str) -> list[str]:
    answer = caller.get(HELD, asked)
    assert answer.status_code == 200, answer.content
    return [row["lease"] for row in answer.json()["results"]]


def callers(market: Market) -> dict[str, Caller]:
    return {
        "operator": an_operator(market.now),
        "ann": a_caller(market.ann),
        "eve": a_caller(market.eve),
        **{name: member_caller(name, market.now) for name in ("alder", "birch", "clover", "delta")},
    }


def test_each_sees_what_was_held_back_of_its_own(market):
    north, south = str(market.at_north.pk), str(market.at_south.pk)
    found = {name: leases(caller) for name, caller in callers(market).items()}
    assert found == {
        "operator": [south, south, north],
        "ann": [north],
        "eve": [south, south],
        "alder": [north],  # its site's
        "birch": [],  # its tenant's, whose own token shows them
        "clover": [],
        "delta": [south, south],
    }


def test_what_was_held_back_says_where_when_and_why(market):
    [row] = a_caller(market.ann).get(HELD).json()["results"]
    body = row.pop("body")
    assert (body["step_s"], body["line"], body["local_batch"]) == (-1.0, 1, 32.0)
    assert datetime.fromisoformat(row.pop("received_at")) == market.now + timedelta(seconds=1)
    assert row.pop("why").startswith("step_time_s is -1")
    assert row == {
        "lease": str(market.at_north.pk),
        "seq": 1,
        "site": "north",
        "pool": "gpu",
        "class": "cnn",
        "code": "out_of_range",
    }


def test_filters_narrow_what_a_caller_may_see_and_never_widen_it(market):
    north, south = str(market.at_north.pk), str(market.at_south.pk)
    operator, alder = an_operator(market.now), member_caller("alder", market.now)
    since = (market.now + timedelta(seconds=2)).isoformat()
    assert leases(operator, site="north") == [north]
    assert leases(operator, code="too_fast") == [south]
    assert leases(operator, since=since) == [south, south]
    assert leases(operator, pool="gpu", **{"class": "cnn"}) == [south, south, north]
    assert leases(operator, **{"class": "bert"}) == []
    assert leases(alder, site="south") == []


def test_pages_go_on_where_the_last_one_ended(market):
    operator, seen = an_operator(market.now), []
    asked = {"limit": "2"}
    while asked:
        page = operator.get(HELD, asked).json()
        seen += [row["seq"] for row in page["results"]]
        asked = {k: v[0] for k, v in parse_qs(urlsplit(page["next"] or "").query).items()}
        market.send(market.at_north, 10 + len(seen), -1.0)  # newer rows do not move the pages
    assert seen == [3, 2, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("since", text) for text in ("now", "2026-11-21", "2026-11-21T12:00:00", "9" * 400)],
        *[("since", "0001-01-01T00:00:00+23:00"), ("since", "2026-13-41T12:00:00Z")],
        *[("site", "\x00"), ("pool", ""), ("class", "x" * 201), ("code", "a\x00b")],
        *[("limit", "0"), ("cursor", "none")],
    ],
)
def test_a_filter_that_is_none_is_refused_by_its_name(market, name, text):
    problem(a_caller(market.ann).get(HELD, {name: text}), 422, "bad_input", name)


def test_who_acts_for_nobody_sees_nothing(market):
    cache.clear()
    user = User.objects.create(username="nell", is_staff=True)
    caller = Caller(operator_token_issue(user=user, actor="test", days=1, now=market.now))
    User.objects.filter(pk=user.pk).update(is_staff=False)
    problem(caller.get(HELD), 403, "acts_for_nobody")
    problem(caller.get(MODELS), 403, "no_member")
    problem(Caller(None).get(HELD), 401, "not_authenticated")


def models(caller: Caller, **asked: str) -> list[tuple[object, ...]]:
    rows = caller.get(MODELS, asked).json()["results"]
    return [(r["site"], r["fitted"], r["samples"], r["waiting"], bool(r["why"])) for r in rows]


def test_models_say_how_far_they_are_and_why_nothing_was_learned(market):
    for seq in range(4, 8):
        market.send(market.at_north, seq, 0.1 * seq, batch=8.0 * seq)
        market.send(market.at_south, seq, 0.2)
    operator = an_operator(market.now)
    assert models(operator) == [("north", False, 0, 4, True), ("south", False, 0, 4, True)]
    tick_affinity()
    assert models(operator) == [("north", True, 4, 0, False), ("south", False, 4, 0, True)]
    [row] = operator.get(MODELS, {"site": "south"}).json()["results"]
    assert "one configuration only" in row["why"]
    assert (row["pool"], row["class"], row["version"]) == ("gpu", "cnn", 1)
    assert row["fitted_at"]


def test_members_see_the_models_of_their_own_sites_and_tenants_none(market):
    market.send(market.at_north, 4, 0.2)
    market.send(market.at_south, 4, 0.2)
    everybody = callers(market)
    for name in ("ann", "eve"):
        problem(everybody.pop(name).get(MODELS), 403, "no_member")
    found = {name: [row[0] for row in models(caller)] for name, caller in everybody.items()}
    assert found == {
        "operator": ["north", "south"],
        "alder": ["north"],
        "birch": [],
        "clover": [],
        "delta": ["south"],
    }


def test_operators_see_both_on_their_own_machine(market):
    market.send(market.at_north, 4, 0.2)
    rows = json.loads(done("samples", "quarantined", "-o", "json"))
    assert [(row["site"], row["code"]) for row in rows] == [
        *(("south", "too_fast"), ("south", "out_of_range"), ("north", "out_of_range")),
    ]
    [row] = json.loads(done("samples", "quarantined", "--site", "north", "-o", "json"))
    assert row["why"].startswith("step_time_s is -1")
    assert len(json.loads(done("samples", "quarantined", "--limit", "1", "-o", "json"))) == 1
    table = done("samples", "quarantined")
    assert str(row["lease"]) in table
    assert re.search(r"\d\d:\d\d:\d\dZ", table)
    assert not re.search(r"\d\d:\d\d:\d\d\.\d", table)
    [row] = json.loads(done("samples", "models", "-o", "json"))
    assert (row["site"], row["waiting"], row["fitted"]) == ("north", 1, False)
