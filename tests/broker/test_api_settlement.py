"""Contracts, counts, disputes, rules and alarms over HTTP: who may, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from federation.models import Alarm, Contract, Dispute, Event, Rules
from federation.selectors.accounts import trial_balance
from tests.broker.api_world import Caller, a_caller, nothing_stored, problem
from tests.broker.settled_world import a_settled_contract, an_operator, member_caller
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def now(db) -> datetime:
    return timezone.now()


@pytest.fixture
def operator(now) -> Caller:
    return an_operator(now)


@pytest.fixture
def contract(now) -> Contract:
    return a_settled_contract(now)


def ann() -> Caller:
    from federation.models import Tenant

    return a_caller(Tenant.objects.get(name="ann"))


def test_each_sees_the_contracts_that_concern_it(contract, operator, now):
    stranger = a_caller(world.a_tenant("eve", member=world.a_member("clover")))
    path = f"/contracts/{contract.pk}"
    for caller in (ann(), operator, member_caller("alder", now), member_caller("birch", now)):
        [row] = caller.get("/contracts").json()["results"]
        assert row == caller.get(path).json()
        assert (row["site"], row["tenant"], row["state"]) == ("north", "ann", "SETTLED")
    for caller in (stranger, member_caller("clover", now)):
        assert caller.get("/contracts").json()["results"] == []
        problem(caller.get(path), 404, "not_found")
    problem(Caller(None).get("/contracts"), 401, "not_authenticated")


def test_only_the_tenant_counts(contract, operator, now):
    path = f"/contracts/{contract.pk}/counts"
    body = {"seq": 1, "samples": contract.contracted, "last": False}
    site, tenant = member_caller("alder", now), ann()
    with nothing_stored():
        problem(site.post(path, body), 403, "not_the_tenant")
        problem(operator.post(path, body), 403, "not_the_tenant")
        problem(tenant.post(path, {"seq": 0, "samples": -1}), 422, "bad_input", "seq", "samples")
    assert tenant.post(path, body).json() == body
    assert tenant.post(path, body).status_code == 200
    problem(tenant.post(path, {**body, "samples": 1}), 409, "count_conflict")
    problem(tenant.post(path, {**body, "seq": 2, "samples": 1}), 409, "count_not_monotone")


def test_a_dispute_from_objection_to_decision(contract, operator, now):
    path = f"/contracts/{contract.pk}/disputes"
    half = contract.contracted // 2
    objection = {"code": "fewer_samples", "why": "The log shows half.", "claimed": half}
    tenant = ann()
    with nothing_stored():
        problem(operator.post(path, objection), 403, "not_a_party")
        problem(tenant.post(path, {"code": "x"}), 422, "bad_input", "why")
    opened = tenant.post(path, objection)
    assert opened.status_code == 201, opened.content
    told = opened.json()
    assert (told["state"], told["by"], told["claimed"]) == ("OPEN", "tenant", half)
    problem(ann().post(path, objection), 409, "disputed_already")
    dispute = f"/disputes/{told['id']}"
    assert opened["Location"].endswith(dispute)
    site = member_caller("alder", now)
    assert site.post(f"{dispute}/evidence", {"text": "our log"}).status_code == 201
    stranger = a_caller(world.a_tenant("eve", member=world.a_member("clover")))
    decision = {"accepted": half, "cause": "site", "why": "The logs agree with the tenant."}
    with nothing_stored():
        problem(stranger.get(dispute), 404, "not_found")
        problem(stranger.post(f"{dispute}/evidence", {"text": "me too"}), 404, "not_found")
        problem(site.post(f"{dispute}/decision", decision), 403, "not_an_operator")
        problem(site.post(f"{dispute}/withdraw", {"why": "never mind"}), 404, "not_yours")
    decided = operator.post(f"{dispute}/decision", decision)
    assert decided.status_code == 200, decided.content
    body = decided.json()
    assert body["decision"]["accepted"] == half
    assert [row["text"] for row in body["evidence"]] == ["our log"]
    after = ann().get(f"/contracts/{contract.pk}").json()
    assert float(after["paid"]) == pytest.approx(float(after["escrow"]) / 2, rel=1e-3)
    assert float(after["penalty"]) >= 0
    problem(operator.post(f"{dispute}/decision", decision), 409, "dispute_decided")
    assert trial_balance().holds


def test_an_objection_is_taken_back_by_who_made_it(contract, now):
    objection = {"code": "fewer_samples", "why": "I think so."}
    told = ann().post(f"/contracts/{contract.pk}/disputes", objection).json()
    back = ann().post(f"/disputes/{told['id']}/withdraw", {"why": "I miscounted."})
    assert back.status_code == 200, back.content
    contract.refresh_from_db()
    assert contract.state == "settled"
    assert Dispute.objects.get().state == "decided"


def test_rules_are_set_only_after_a_preview_of_the_same_change(contract, operator, now):
    tenant = ann()
    standing = tenant.get("/rules").json()
    assert (standing["version"], standing["values"]["kappa_ppm"]) == (1, 500_000)
    assert standing["missing"] == ["alder"]
    changes = {"kappa_ppm": 750_000}
    with nothing_stored():
        problem(tenant.post("/rules/preview", {"changes": changes}), 403, "not_an_operator")
        wrong = {"changes": {"kappa_ppm": 2_000_000, "kapa": 1}}
        problem(operator.post("/rules/preview", wrong), 422, "bad_input", "kapa")
    blind = {"changes": changes, "preview_sha256": "0" * 64, "why": "I feel like it"}
    problem(operator.post("/rules", blind), 409, "preview_needed")
    shown = operator.post("/rules/preview", {"changes": changes}).json()
    assert (shown["contracts"], shown["affected"]) == (1, 0)
    digest = {"preview_sha256": shown["preview_sha256"], "why": "a firmer penalty"}
    other = {"changes": {"kappa_ppm": 900_000}, **digest}
    problem(operator.post("/rules", other), 409, "preview_needed")
    made = operator.post("/rules", {"changes": changes, **digest})
    assert made.status_code == 201, made.content
    assert made.json()["values"]["kappa_ppm"] == 750_000
    assert Rules.objects.count() == 2
    assert Event.objects.filter(event="rules_set", actor="user:olga").count() == 1
    assert Contract.objects.get().rules.version == 1


def test_only_a_member_itself_agrees_to_the_rules(contract, operator, now):
    body = {"version": 1}
    problem(ann().post("/rules/consent", body), 403, "no_member")
    problem(operator.post("/rules/consent", body), 403, "no_member")
    alder = member_caller("alder", now)
    problem(alder.post("/rules/consent", {"version": 9}), 404, "not_found")
    assert alder.post("/rules/consent", body).json()["agreed"] == ["alder"]
    assert alder.get("/rules").json()["missing"] == []


def test_alarms_are_the_operators(operator, now):
    alarm = Alarm.objects.create(
        kind="ring", about="a → b → a", why="It goes round.", created_at=now - timedelta(hours=1)
    )
    [row] = operator.get("/alarms").json()["results"]
    assert (row["kind"], row["about"], row["closed_at"]) == ("ring", "a → b → a", None)
    path = f"/alarms/{alarm.pk}"
    problem(a_caller().get("/alarms"), 403, "not_an_operator")
    problem(operator.post(f"{path}/close", {}), 422, "bad_input", "why")
    closed = operator.post(f"{path}/close", {"why": "They are one campus."}).json()
    assert closed["closed_by"] == "user:olga"
    assert operator.get(path).json() == closed
