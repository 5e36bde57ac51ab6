"""Operators' questions and epochs over HTTP: asked, shared out to workers, answered, posted."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from broker.solving import sharing
from broker.tasks import run_study, tick_studies
from economics.book import read_book
from economics.sharing.shares import shares
from federation.models import Account, EntryGroup, Epoch, Rules, Snapshot, Study
from federation.selectors.accounts import trial_balance
from federation.services import rules as rules_services
from federation.services.epochs import epoch_propose
from federation.snapshot import unpack
from tests.broker.api_world import Caller, a_caller, a_site_now, nothing_stored, problem
from tests.broker.settled_world import an_operator, member_caller
from tests.support import world

pytestmark = pytest.mark.django_db
MEMBERS = ("alder", "birch", "clover")


def compute() -> None:
    """Let a worker take everything that waits, as the queue would have it."""
    while waiting := list(Study.objects.filter(state="pending").order_by("created_at")):
        for study in waiting:
            run_study(str(study.pk))


@pytest.fixture
def now(db) -> datetime:
    return timezone.now()


@pytest.fixture
def operator(now) -> Caller:
    return an_operator(now)


@pytest.fixture
def market(now) -> None:
    """Alder and birch sell, birch and clover buy, in a published round."""
    a_site_now("north", gpus=4, speeds={"cnn": 1000.0, "lm": 50.0})
    a_site_now("south", member=world.a_member("birch"), gpus=2, speeds={"cnn": 900.0})
    bob = world.a_tenant("bob", member=world.a_member("clover"))
    ann = world.a_tenant("ann", member=world.a_member("birch"))
    world.a_job(bob, name="bob-job", gpus=[2], value="400", now=now)
    world.a_job(ann, name="ann-job", gpus=[2], value="300", now=now)
    world.a_round(now + timedelta(seconds=10))


def answer_of(api: Caller, kind: str, **parameters) -> dict:
    response = api.post("/inquiries", {"kind": kind, "round": 1, "parameters": parameters})
    assert response.status_code == 202, response.content
    compute()
    told: dict = api.get(f"/inquiries/{response.json()['id']}").json()
    assert told["state"] == "DONE", told
    assert told["progress"] == {"done": 1, "total": 1}
    return told["answer"]


def test_who_gets_what_is_the_command_s_own_document(market, operator):
    told = answer_of(operator, "shares", alpha=0.25)
    book = unpack(bytes(Snapshot.objects.get().body))
    assert told == shares(read_book(book), alpha=0.25)
    assert [row["site"] for row in told["sites"]] == list(MEMBERS)


def test_values_that_workers_found_give_the_same_document(market, operator, monkeypatch):
    monkeypatch.setattr(sharing, "FEW", 0)
    whole = shares(read_book(unpack(bytes(Snapshot.objects.get().body))), alpha=0.5)
    errand_parts = []

    class Spread:
        """Computes parts from their bodies alone, as a worker elsewhere does."""

        def __init__(self, shelf):
            self.shelf = shelf

        def __call__(self, name, bodies, files=()):
            assert name == sharing.COALITIONS
            assert len(files) == len(bodies)
            errand_parts.extend(bodies)
            return [sharing.coalitions(body, self.shelf) for body in bodies]

    told = spread_shares(Spread)
    assert errand_parts
    assert told == whole


def spread_shares(spread) -> dict:
    import gzip
    import json
    import tempfile
    from pathlib import Path

    from broker.solving.errand import Errand

    with tempfile.TemporaryDirectory() as folder:
        shelf = Path(folder)
        book = shelf / "book.gz"
        book.write_bytes(
            gzip.compress(json.dumps(unpack(bytes(Snapshot.objects.get().body))).encode())
        )
        errand = Errand({"book": book}, {"alpha": 0.5}, spread(shelf), shelf)
        return sharing.shared(errand)


@pytest.mark.parametrize(
    ("kind", "parameters", "study"),
    [
        ("joining", {"site": "clover", "draws": 20}, "join"),
        ("leaving", {"draws": 20}, "leave"),
        ("response", {"sweeps": 3}, "best_response"),
        ("misreport", {"site": "alder"}, "misreport"),
    ],
)
def test_what_taking_part_is_worth_is_answered(market, operator, kind, parameters, study):
    told = answer_of(operator, kind, **parameters)
    assert (told["format"], told["study"]) == ("hanse.incentives/1", study)


def test_members_of_one_owner_are_one_supplier(market, operator):
    apart = answer_of(operator, "conduct")
    assert [row["owner"] for row in apart["pivotal"]] == list(MEMBERS)
    Study.objects.all().delete()
    for name in ("alder", "birch"):
        member = world.a_member(name)
        member.owner = "timber"
        member.save()
    together = answer_of(operator, "conduct")
    assert [row["owner"] for row in together["pivotal"]] == ["clover", "timber"]
    assert together["concentration"][0]["index"] == pytest.approx(10_000)


def test_bad_questions_name_their_fields_and_store_nothing(market, operator):
    with nothing_stored():
        for body, status, code, fields in (
            ({"kind": "shares", "round": 9}, 404, "not_found", ()),
            ({"kind": "gossip", "round": 1}, 422, "bad_input", ("kind",)),
            ({"kind": "joining", "round": 1}, 422, "bad_input", ("site",)),
            (
                {"kind": "shares", "round": 1, "parameters": {"alpha": 2, "beta": 1}},
                422,
                "bad_input",
                ("alpha", "beta"),
            ),
        ):
            problem(operator.post("/inquiries", body), status, code, *fields)


def test_only_operators_ask(market):
    tenant = a_caller()
    with nothing_stored():
        problem(tenant.get("/inquiries"), 403, "not_an_operator")
        body = {"kind": "shares", "round": 1}
        problem(tenant.post("/inquiries", body), 403, "not_an_operator")


def settled(now: datetime) -> None:
    """All contracts of the round are over and paid."""
    from federation.machines.lease import LIVE
    from federation.models import Lease

    for lease in Lease.objects.filter(state__in=sorted(LIVE)).select_related("site"):
        agent = world.SimAgent(lease.site)
        agent.sync(now)
        contract = lease.contracts.get()
        agent.report(
            lease, now, samples=contract.contracted, ending=world.Ending("exited", exit_code=0)
        )
    world.pay(now)


def agreed_rules(now: datetime, **changes) -> Rules:
    """A version of the rules that every member agrees to at once."""
    venue, changes = world.a_venue(), changes or {"alpha_ppm": 500_000}
    preview = rules_services.rules_preview(venue=venue, changes=changes, now=now, actor="test")
    rules = rules_services.rules_set(
        venue=venue,
        changes=changes,
        preview_sha256=preview.sha256,
        why="a consortium",
        actor="test",
        now=now,
    )
    for name in MEMBERS:
        rules_services.consent_give(rules=rules, member=world.a_member(name), actor="test", now=now)
    return rules


def epochs_of(api: Caller) -> list[dict]:
    rows: list[dict] = api.get("/epochs").json()["results"]
    return rows


def test_a_dividend_is_computed_shown_and_posted_once(market, operator, now):
    body = {"until": (now + timedelta(minutes=1)).isoformat()}
    problem(operator.post("/epochs", {}), 409, "no_rounds")  # it is published in ten seconds
    problem(operator.post("/epochs", body), 409, "nothing_to_share")  # nobody has agreed
    agreed_rules(now)
    problem(operator.post("/epochs", body), 409, "contracts_open")
    settled(now + timedelta(seconds=15))
    asked = operator.post("/epochs", body)
    assert asked.status_code == 202, asked.content
    compute()
    tick_studies()
    answered = operator.get(asked["Location"].removeprefix("/api/v1")).json()
    assert (answered["state"], answered["failed"]) == ("DONE", None)
    [epoch] = epochs_of(operator)
    assert (epoch["number"], epoch["state"], epoch["rounds"]) == (1, "PROPOSED", 1)
    assert epoch["left_out"] == []
    assert all(row["agreed"] for row in epoch["members"])
    assert sum(Decimal(row["dividend"]) for row in epoch["members"]) == 0
    assert any(Decimal(row["dividend"]) for row in epoch["members"])
    assert operator.post("/epochs/1/post").json()["state"] == "POSTED"
    problem(operator.post("/epochs/1/post"), 409, "not_proposed")
    [group] = EntryGroup.objects.filter(kind="dividend")
    moved = {entry.account.member.name: entry.amount_micro for entry in group.entries.all()}
    assert moved == {
        row["member"]: int(Decimal(row["dividend"]) * 1_000_000)
        for row in epoch["members"]
        if Decimal(row["dividend"])
    }
    assert trial_balance().holds
    problem(operator.post("/epochs", body), 409, "no_rounds")


def test_a_refused_epoch_is_proposed_again_and_a_skipped_one_is_not(market, operator, now):
    agreed_rules(now)
    settled(now + timedelta(seconds=15))
    body = {"until": (now + timedelta(minutes=1)).isoformat()}
    for number, refusal in ((1, {"why": "too soon"}), (2, {"why": "no", "skip": True})):
        assert operator.post("/epochs", body).status_code == 202
        compute()
        tick_studies()
        with nothing_stored():
            problem(
                operator.post(f"/epochs/{number}/refuse", {"skip": True}), 422, "bad_input", "why"
            )
        shown = operator.post(f"/epochs/{number}/refuse", refusal).json()
        assert shown["state"] == ("CLOSED" if refusal.get("skip") else "REFUSED")
    problem(operator.post("/epochs", body), 409, "no_rounds")
    problem(operator.post("/epochs/2/post"), 409, "not_proposed")
    assert not EntryGroup.objects.filter(kind="dividend").exists()


def test_members_see_epochs_and_operators_alone_propose(market, now):
    member = member_caller("alder", now)
    assert member.get("/epochs").json()["results"] == []
    problem(member.post("/epochs", {}), 403, "not_an_operator")
    problem(a_caller().post("/epochs", {}), 403, "not_an_operator")


def test_two_epochs_never_share_a_round(market, now):
    """Proposed twice before it was looked at, it is one epoch."""
    agreed_rules(now)
    settled(now + timedelta(seconds=15))
    venue, until = world.a_venue(), now + timedelta(minutes=1)
    first = epoch_propose(venue=venue, until=until, actor="a", now=until)
    assert epoch_propose(venue=venue, until=until, actor="b", now=until).pk == first.pk
    compute()
    Study.objects.create(
        round=first.round,
        kind=first.kind,
        parameters={**first.parameters, "alpha": 0.9},
        digest="another",
        state="done",
        result=Study.objects.get(pk=first.pk).result,
        requested_by="c",
        due_at=now,
        created_at=now,
    )
    tick_studies()
    tick_studies()
    assert Epoch.objects.count() == 1
    assert not Account.objects.filter(kind="rounding").exclude(balance_micro=0).exists()
