"""The ledger over HTTP: who sees what, files, money in and out, credit, reversals."""

from __future__ import annotations

import csv
import io
from datetime import datetime

import pytest
from django.db import connection
from django.utils import timezone

from federation import ledger_guard
from federation.models import Contract, Entry, EntryGroup, Member
from federation.selectors.accounts import trial_balance
from tests.broker.api_world import Caller, a_caller, nothing_stored, problem
from tests.broker.settled_world import a_settled_contract, an_operator, member_caller
from tests.federation.ledger_scene import balances
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
    made = a_settled_contract(now)
    ledger_guard.link_now(connection)  # a test's transaction never commits
    return made


def test_the_trial_balance_and_the_heads_of_the_chains(contract, operator):
    told = operator.get("/ledger").json()
    assert told["holds"] is True
    [head] = told["heads"]
    assert head["currency"] == "cash"
    assert head["position"] == Entry.objects.values("group").distinct().count()
    assert len(head["digest"]) == 64
    problem(a_caller().get("/ledger"), 403, "not_an_operator")


def test_the_whole_ledger_as_a_file(contract, operator):
    document = b"".join(operator.get("/ledger/export").streaming_content)
    table = b"".join(operator.get("/ledger/export", {"form": "csv"}).streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == Entry.objects.count()
    assert rows[-1]["digest"].encode() in document
    problem(operator.get("/ledger/export", {"form": "xml"}), 422, "bad_input", "form")
    problem(member_caller("alder", timezone.now()).get("/ledger/export"), 403, "not_an_operator")


def test_a_month_closes_where_the_next_opens(contract, operator, now):
    month = f"{now:%Y-%m}"
    path = "/members/alder/statement"
    told = operator.get(path, {"month": month}).json()
    assert told["closing_micro"] - told["opening_micro"] == contract.paid_micro
    assert member_caller("alder", now).get(path, {"month": month}).json() == told
    following = f"{now.year + (now.month == 12)}-{now.month % 12 + 1:02}"
    after = operator.get(path, {"month": following}).json()
    assert after["opening_micro"] == told["closing_micro"]
    problem(member_caller("birch", now).get(path), 404, "not_found")
    problem(a_caller().get(path), 403, "no_member")
    for wrong in ("2026-13", "yesterday", "0001-01"):
        problem(operator.get(path, {"month": wrong}), 422, "bad_input", "month")


def test_money_out_once_and_never_more_than_there_is(contract, operator):
    body = {"tenant": "ann", "amount": "10", "key": "march"}
    assert operator.post("/withdrawals", body).json() == {"posted": True, "key": "march"}
    assert operator.post("/withdrawals", body).json() == {"posted": False, "key": "march"}
    with nothing_stored():
        much = {"tenant": "ann", "amount": "1000000"}
        problem(operator.post("/withdrawals", much), 409, "insufficient_funds")
        problem(operator.post("/withdrawals", {"amount": "1"}), 422, "bad_input", "tenant")
        nobody = {"member": "nobody", "amount": "1"}
        problem(operator.post("/withdrawals", nobody), 404, "not_found")
        earnings = {"member": "alder", "amount": "0.000001"}
        problem(operator.post("/withdrawals", earnings), 409, "not_final")
    problem(a_caller(world.a_tenant("eve")).post("/withdrawals", body), 403, "not_an_operator")
    assert trial_balance().holds


def test_money_in_for_a_tenant_or_a_member_once_for_each_key(contract, operator):
    before = balances()
    body = {"member": "alder", "amount": "12.50", "key": "cover"}
    assert operator.post("/deposits", body).json() == {"posted": True, "key": "cover"}
    assert operator.post("/deposits", body).json() == {"posted": False, "key": "cover"}
    again = operator.post("/deposits", {"tenant": "ann", "amount": "1"})
    assert (again.status_code, again.json()["posted"]) == (201, True)
    after = balances()
    assert after["member_earnings alder"] - before["member_earnings alder"] == 12_500_000
    assert after["tenant_cash ann"] - before["tenant_cash ann"] == 1_000_000
    own = member_caller("alder", timezone.now())
    with nothing_stored():
        problem(operator.post("/deposits", body | {"amount": "1"}), 409, "deposit_conflict")
        problem(operator.post("/deposits", {"amount": "1"}), 422, "bad_input", "tenant")
        problem(operator.post("/deposits", body | {"amount": "0"}), 422, "bad_input", "amount")
        problem(operator.post("/deposits", body | {"member": "nobody"}), 404, "not_found")
        problem(own.post("/deposits", body), 403, "not_an_operator")
    assert trial_balance().holds


def test_the_credit_of_a_member_is_for_operators_to_set(contract, operator):
    path = "/members/alder/credit"
    assert operator.post(path, {"amount": "250"}).json() == {
        "member": "alder",
        "amount": "250.000000",
    }
    assert Member.objects.get(name="alder").credit_micro == 250_000_000
    assert operator.post(path, {"amount": "0"}).json()["amount"] == "0.000000"
    assert operator.post(path, {"amount": None}).json()["amount"] is None
    assert Member.objects.get(name="alder").credit_micro is None
    own = member_caller("alder", timezone.now())
    with nothing_stored():
        problem(operator.post(path, {}), 422, "bad_input", "amount")
        problem(operator.post(path, {"amount": "-1"}), 422, "bad_input", "amount")
        problem(operator.post("/members/nobody/credit", {"amount": "1"}), 404, "not_found")
        problem(own.post(path, {"amount": "1"}), 403, "not_an_operator")


def test_a_deposit_is_taken_back_and_what_a_contract_reckons_with_is_not(contract, operator):
    operator.post("/deposits", {"member": "alder", "amount": "3", "key": "twice"})
    before = balances()["member_earnings alder"]
    group = EntryGroup.objects.get(kind="deposit", key__endswith=":twice")
    body = {"key": group.key, "why": "typed twice"}
    told = {"key": f"reversal:{group.pk}"}
    first = operator.post("/ledger/reversals", body)
    assert (first.status_code, first.json()) == (201, {"posted": True, **told})
    assert operator.post("/ledger/reversals", body).json() == {"posted": False, **told}
    assert before - balances()["member_earnings alder"] == 3_000_000
    own = member_caller("alder", timezone.now())
    with nothing_stored():
        for kind in ("hold", "settle", "reversal"):
            key = EntryGroup.objects.filter(kind=kind).first().key
            refused = operator.post("/ledger/reversals", body | {"key": key})
            problem(refused, 409, "not_reversible")
        problem(operator.post("/ledger/reversals", body | {"key": "no"}), 404, "not_found")
        problem(operator.post("/ledger/reversals", {"key": "no"}), 422, "bad_input", "why")
        problem(own.post("/ledger/reversals", body), 403, "not_an_operator")
    assert trial_balance().holds
