"""Operators' commands on rules, disputes, epochs, alarms, the ledger, and files of books."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from broker.tasks import run_study, tick_studies
from federation import ledger_guard
from federation.models import Alarm, Contract, Dispute, Epoch, Rules, Study
from federation.services.disputes import dispute_open
from tests.broker.settled_world import a_settled_contract
from tests.broker.test_commands import done, refused, run
from tests.support import world

BOOK = str(Path(__file__).parents[1] / "economics" / "data" / "book_three_sites.json")
pytestmark = pytest.mark.django_db


@pytest.fixture
def contract(db) -> Contract:
    made = a_settled_contract(timezone.now())
    ledger_guard.link_now(connection)  # a test's transaction never commits
    return made


def compute() -> None:
    while waiting := Study.objects.filter(state="pending").first():
        run_study(str(waiting.pk))
    tick_studies()


def test_rules_are_shown_previewed_set_and_agreed_to(contract):
    rows = {row["rule"]: row["value"] for row in json.loads(done("rules", "show", "-o", "json"))}
    assert (rows["version"], rows["kappa_ppm"], rows["not agreed yet"]) == (1, 500_000, "alder")
    change = ("--set", "kappa_ppm=750000", "--set", "time_zone=Europe/Berlin")
    refused("preview_needed", "rules", "set", *change, "--why", "no", "--preview", "0" * 64)
    shown = run("rules", "preview", *change)
    assert shown.exit_code == 0, shown.output
    digest = shown.stderr.split()[-1]
    done("rules", "set", *change, "--why", "firmer", "--preview", digest)
    assert Rules.objects.get(version=2).time_zone == "Europe/Berlin"
    refused("bad_input", "rules", "preview", "--set", "kapa=1")
    refused("bad_parameter", "rules", "preview", "--set", "kappa")
    assert "agrees to version 2" in done("rules", "agree", "alder", "--by", "letter 7 of the dean")
    refused("not_found", "rules", "agree", "nobody", "--by", "letter 8")


def test_a_dispute_is_listed_and_decided(contract):
    half = contract.contracted // 2
    dispute = dispute_open(
        contract=contract,
        by=Dispute.By.TENANT,
        actor="test",
        code="fewer",
        why="The log shows half.",
        claimed=half,
        now=timezone.now(),
    )
    [row] = json.loads(done("disputes", "list", "-o", "json"))
    assert (row["id"], row["claimed"]) == (str(dispute.pk), half)
    refused("bad_input", *decide(dispute, half, "weather"))
    refused("not_found", *decide("nothing", half, "site"))
    assert "Paid" in done(*decide(dispute, half, "site"))
    assert done("disputes", "list").strip() == "None yet."
    refused("dispute_decided", *decide(dispute, half, "site"))


def decide(dispute: Dispute | str, accepted: int, cause: str) -> tuple[str, ...]:
    name = dispute if isinstance(dispute, str) else str(dispute.pk)
    options = ("--accepted", str(accepted), "--cause", cause, "--why", "The logs say so.")
    return ("disputes", "decide", name, *options)


@pytest.fixture
def later(db, monkeypatch):
    """A contract of members that had agreed to the rules is settled, a minute ago."""
    world.a_venue()
    for member in ("alder", "birch"):
        world.a_member(member)
        done("rules", "agree", member, "--by", "its director")
    a_settled_contract(timezone.now())
    now = timezone.now() + timedelta(minutes=1)
    monkeypatch.setattr("broker.governance_commands.set_up", lambda: now)
    return now


def test_an_epoch_is_proposed_listed_and_posted(later, monkeypatch):
    asked = []
    monkeypatch.setattr("broker.tasks.hand_out_studies", lambda ids: asked.extend(ids))
    done("epochs", "propose")
    assert len(asked) == 1
    compute()
    rows = json.loads(done("epochs", "list", "-o", "json"))
    assert {row["member"] for row in rows} == {"alder", "birch"}
    document = {**Epoch.objects.get().document, "left_out": [{"round": 7, "why": "lost"}]}
    Epoch.objects.update(document=document)
    assert "Epoch 1 leaves 1 rounds out: lost." in run("epochs", "list").stderr
    done("epochs", "post", "1")
    assert Epoch.objects.get().state == "posted"
    refused("not_proposed", "epochs", "refuse", "1", "--why", "late")
    refused("not_found", "epochs", "post", "7")


def test_a_period_is_closed_without_a_dividend(later, monkeypatch):
    monkeypatch.setattr("broker.tasks.hand_out_studies", lambda ids: None)
    refused("bad_input", "epochs", "close", "--why", " ")
    ahead = f"{later + timedelta(days=1):%Y-%m-%dT%H:%M:%S}"
    refused("bad_input", "epochs", "close", "--why", "x", "--until", ahead)
    refused("no_rounds", "epochs", "close", "--why", "x", "--until", "2020-01-01")
    said = done("epochs", "close", "--why", "the year before the consortium")
    assert said.strip() == "Epoch 1: 1 rounds are closed without a dividend."
    [row] = json.loads(done("epochs", "list", "-o", "json"))
    assert (row["state"], row["rounds"], row["member"]) == ("CLOSED", 1, None)
    refused("no_rounds", "epochs", "propose")
    refused("no_rounds", "epochs", "close", "--why", "again")


def test_a_refused_epoch_may_close_its_period(later, monkeypatch):
    monkeypatch.setattr("broker.tasks.hand_out_studies", lambda ids: None)
    done("epochs", "propose")
    compute()
    done("epochs", "refuse", "1", "--why", "not this year", "--skip")
    refused("no_rounds", "epochs", "propose")


def test_alarms_are_listed_and_closed(db):
    world.a_venue()
    alarm = Alarm.objects.create(
        kind="ring",
        about="a → b",
        why="a ring",
        created_at=timezone.now(),
    )
    [row] = json.loads(done("alarms", "list", "-o", "json"))
    assert row["about"] == "a → b"
    done("alarms", "close", str(alarm.pk), "--why", "one campus")
    assert done("alarms", "list").strip() == "None yet."
    refused("not_found", "alarms", "close", "nothing", "--why", "x")


def test_the_ledger_is_checked_told_and_paid_from(contract):
    said = done("ledger", "check", "--replay")
    assert "The ledger holds" in said
    assert "Every balance follows: 1 contracts" in said
    month = f"{timezone.now():%Y-%m}"
    document = json.loads(done("ledger", "statement", "alder", "--month", month, "-o", "json"))
    assert document["closing_micro"] == contract.paid_micro
    assert done("ledger", "statement", "alder", "--month", month, "-o", "csv").startswith("at,")
    refused("bad_input", "ledger", "statement", "alder", "--month", "May")
    done("ledger", "withdraw", "5", "--tenant", "ann", "--key", "k")
    assert "posted before" in done("ledger", "withdraw", "5", "--tenant", "ann", "--key", "k")
    refused("insufficient_funds", "ledger", "withdraw", "999999", "--tenant", "ann")
    refused("bad_parameter", "ledger", "withdraw", "5")
    refused("bad_amount", "ledger", "withdraw", "0.0000001", "--tenant", "ann")


def test_questions_are_asked_and_waited_for(contract, monkeypatch):
    def at_once(ids) -> None:
        for pk in ids:
            run_study(str(pk))

    monkeypatch.setattr("broker.tasks.hand_out_studies", at_once)
    told = json.loads(done("inquire", "shares", "1", "--set", "alpha=0.25"))
    assert told["format"] == "hanse.shares/1"
    refused("bad_input", "inquire", "shares", "1", "--set", "alpha=7")
    refused("not_found", "inquire", "shares", "9")


@pytest.mark.parametrize(
    ("command", "study"),
    [
        (("join", "--site", "C", "--draws", "20"), "join"),
        (("leave", "--draws", "20"), "leave"),
        (("best-response",), "best_response"),
        (("misreport", "--site", "A", "--draws", "20"), "misreport"),
    ],
)
def test_books_are_studied_from_files(command, study):
    name, *options = command
    told = json.loads(done("market", name, BOOK, *options))
    assert (told["format"], told["study"]) == ("hanse.incentives/1", study)
