"""The ledger over HTTP: who sees what, files, and money out."""

from __future__ import annotations

import csv
import io
from datetime import datetime

import pytest
from django.db import connection
from django.utils import timezone

from federation import ledger_guard
from federation.models import Contract, Entry
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
