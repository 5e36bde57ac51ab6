"""The operators' commands: what they do, what they refuse, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from broker.commands import app
from broker.tasks import run_study
from economics.rows import POLICIES
from federation.models import Event, JobClass, Member, Site, Study, Tenant
from federation.policies import WORDS, policy_problems
from federation.selectors.accounts import trial_balance
from tests.broker.api_world import Caller, nothing_stored, problem
from tests.support import world

hanse = pytest.mark.django_db


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(code: str, *arguments: str, status: int = 1) -> str:
    """One sentence with its code on stderr, nothing on stdout, nothing stored."""
    with nothing_stored():
        result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert f"({code})" in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture
def federation(db) -> None:
    world.a_venue()
    done("members", "add", "alder", "--title", "Alder Computing")
    done("sites", "add", "north", "--member", "alder")
    done("tenants", "add", "ann", "--member", "alder")


@pytest.mark.usefixtures("federation")
def test_a_member_is_added_and_listed_with_all_that_is_its_own():
    [row] = json.loads(done("members", "list", "-o", "json"))

    assert row == {"name": "alder", "title": "Alder Computing", "sites": "north", "tenants": "ann"}
    assert "Alder Computing" in done("members", "list")


@pytest.mark.usefixtures("federation")
def test_a_name_is_taken_once_and_must_be_plain():
    assert "already" in refused("name_taken", "members", "add", "alder")
    refused("name_taken", "sites", "add", "north", "--member", "alder")
    refused("name_taken", "tenants", "add", "ann", "--member", "alder")
    for name in ("a/b", "a b", "a\nb", "$(id)", "x" * 64, "", "é"):
        refused("bad_input", "members", "add", name)
    refused("bad_input", "sites", "add", "../up", "--member", "alder")


@pytest.mark.usefixtures("federation")
def test_what_is_not_there_is_said_so():
    for arguments in (
        ("sites", "add", "south", "--member", "nobody"),
        ("tenants", "add", "bob", "--member", "nobody"),
        ("sites", "token", "nowhere"),
        ("sites", "revoke", "nowhere"),
        ("sites", "drain", "nowhere", "--reason", "x"),
        ("tenants", "token", "nobody"),
        ("classes", "add", "cnn", "--owner", "nobody"),
        ("deposit", "nobody", "5"),
    ):
        assert "There is no " in refused("not_found", *arguments)


@pytest.mark.usefixtures("federation")
def test_a_join_token_enrols_the_site_and_a_revocation_ends_it():
    token = done("sites", "token", "north").strip()
    body = {"protocol": "hanse.agent/1", "token": token, "agent_version": "0.1.0"}
    credential = Caller(None, prefix="/gateway/v1").post("/join", body).json()["credential"]
    agent = Caller(credential, prefix="/gateway/v1")

    assert agent.post("/rotate").status_code == 200
    assert done("sites", "revoke", "north") == "2 credentials of north revoked.\n"
    problem(agent.post("/rotate"), 401, "credential_invalid")


@pytest.mark.usefixtures("federation")
def test_a_site_is_drained_and_opened_again():
    assert done("sites", "drain", "north", "--reason", "cooling") == "Site north is draining.\n"
    refused("invalid_transition", "sites", "drain", "north", "--reason", "again")
    done("sites", "drain", "north", "--reason", "cool again", "--open")
    assert Site.objects.get().state == "enrolled"  # its agent has never synced
    assert run("sites", "drain", "north").exit_code == 2


@pytest.mark.usefixtures("federation")
def test_a_tenants_token_works_and_is_printed_alone():
    token = done("tenants", "token", "ann", "--days", "7").strip()

    assert token.startswith("hst_")
    assert Caller(token).get("/me").json()["tenant"] == "ann"
    for days in ("0", "-1", "367", "many"):
        assert run("tenants", "token", "ann", "--days", days).exit_code == 2


@pytest.mark.usefixtures("federation")
def test_a_deposit_is_posted_once_for_each_key():
    assert done("deposit", "ann", "99.50", "--key", "march") == "ann has 99.50 more.\n"
    with nothing_stored():
        assert done("deposit", "ann", "99.50", "--key", "march") == "This key was posted before.\n"
    done("deposit", "ann", "0.5")

    [row] = json.loads(done("tenants", "list", "-o", "json"))
    assert (row["available"], row["escrow"]) == ("100.000000", "0.000000")
    assert trial_balance().holds


@pytest.mark.usefixtures("federation")
@pytest.mark.parametrize("amount", ["0", "1000000001", "0.0000001", "1e30", "1e999999999"])
def test_a_sum_that_no_one_deposits_is_refused(amount):
    refused("bad_amount", "deposit", "ann", amount)


@pytest.mark.usefixtures("federation")
@pytest.mark.parametrize("amount", ["much", "NaN", "Infinity", "5€", ""])
def test_an_amount_that_is_no_number_is_a_usage_error(amount):
    refused("bad_amount", "deposit", "ann", amount, status=2)


@pytest.mark.usefixtures("federation")
def test_a_negative_sum_is_refused():
    refused("bad_amount", "deposit", "ann", "--", "-5")


@pytest.mark.usefixtures("federation")
def test_classes_are_registered_and_listed():
    assert done("classes", "list") == "None yet.\n"
    done("classes", "add", "cnn", "--title", "A small CNN", "--owner", "alder")

    [row] = json.loads(done("classes", "list", "--output", "json"))
    assert row == {"name": "cnn", "title": "A small CNN", "owner": "alder"}
    refused("name_taken", "classes", "add", "cnn")
    assert run("classes", "list", "-o", "xml").exit_code == 2


@pytest.mark.usefixtures("federation")
def test_the_profile_of_a_class_is_read_from_a_file_and_shown(tmp_path):
    done("classes", "add", "cnn")
    assert json.loads(done("classes", "profile", "cnn")) == {}
    file = tmp_path / "profile.json"
    file.write_text('{"work": "resnet50", "batch": 64}')
    assert done("classes", "profile", "cnn", str(file)) == "The profile of cnn is set.\n"
    assert json.loads(done("classes", "profile", "cnn")) == {"work": "resnet50", "batch": 64}
    file.write_text('{"batch": -1}')
    assert "batch: a number above 0" in refused("bad_input", "classes", "profile", "cnn", str(file))
    file.write_text("{")
    said = refused("bad_file", "classes", "profile", "cnn", str(file))
    assert str(file) in said
    missing = tmp_path / "none.json"
    said = refused("bad_file", "classes", "profile", "cnn", str(missing))
    assert f"{missing} cannot be read: No such file or directory." in said
    file.write_text('{"work": "resnet50",\n "batch" 64}')
    said = refused("bad_file", "classes", "profile", "cnn", str(file))
    assert f"{file}, line 2, column 10: " in said
    file.write_bytes(b'{"work": "\xff"}')
    said = refused("bad_file", "classes", "profile", "cnn", str(file))
    assert f"{file}, byte 10: this is not UTF-8." in said
    file.write_text('{"work": "resnet50", "batch": 0}')
    said = refused("bad_input", "classes", "profile", "cnn", str(file))
    assert f"{file}, batch: a number above 0" in said
    file.write_text("[]")
    assert f"{file}" in refused("bad_input", "classes", "profile", "cnn", str(file))
    refused("not_found", "classes", "profile", "lm")


@pytest.mark.usefixtures("federation")
def test_a_venue_s_policy_is_chosen_by_name_and_checked_by_a_rehearsal():
    names = [row["policy"] for row in json.loads(done("venues", "policies", "-o", "json"))]
    assert tuple(names) == POLICIES
    told = done("venues", "policy", "las", "--set", "thresholds=1000,8000")
    assert told == "Venue main follows las from its next book on.\n"
    [row] = json.loads(done("venues", "list", "-o", "json"))
    assert (row["policy"], json.loads(row["parameters"])) == ("las", {"thresholds": [1000, 8000]})
    assert row["queue"].startswith("solve-")
    event = Event.objects.get(subject="venue", event="change")
    assert "surplus → las" in event.why
    for arguments in (
        ("nothing",),
        ("las", "--set", "colour=3"),
        ("allox", "--set", "alpha=-1"),
        ("allox", "--set", "alpha=7"),
        ("gittins",),
        ("gittins", "--set", "samples=0"),
        ("surplus", "--set", "alpha=0.5"),
    ):
        refused("bad_input", "venues", "policy", *arguments)
    refused("bad_parameter", "venues", "policy", "allox", "--set", "alpha=much")
    refused("not_found", "venues", "policy", "surplus", "--venue", "nowhere")


@pytest.mark.usefixtures("federation")
def test_every_policy_has_its_sentence_and_can_be_rehearsed():
    assert tuple(WORDS) == POLICIES
    for name in POLICIES:
        parameters = {"samples": [3600.0]} if name == "gittins" else {}
        assert policy_problems(name, parameters) == []


@pytest.mark.usefixtures("federation")
def test_a_report_on_a_round_is_asked_for_and_shown():
    now = world.later(20)
    world.a_site("south", now=world.NOW)
    world.a_job(world.a_tenant("bob"))
    world.a_round(now)
    asked = run("venues", "contributions", "1", "-o", "json")
    assert (asked.exit_code, json.loads(asked.stdout)) == (0, [])
    assert "Asked for" in asked.stderr
    while waiting := list(Study.objects.filter(state="pending")):
        for study in waiting:
            run_study(str(study.pk))
    [row] = json.loads(done("venues", "contributions", "1", "--wait", "-o", "json"))
    assert row["tenant"] == "bob"
    assert float(row["marginal"]) > 0
    refused("not_found", "venues", "contributions", "9")


@hanse
def test_lists_of_nothing_are_empty_lists():
    for noun in ("members", "sites", "tenants", "classes"):
        assert json.loads(done(noun, "list", "-o", "json")) == []
        assert done(noun, "list") == "None yet.\n"
    assert not Member.objects.exists()
    assert not Tenant.objects.exists()
    assert not JobClass.objects.exists()


def hanse_at(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HANSE_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, "-c", "from hanse.cli import main; main()", *arguments],
        env={**env, "HANSE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_fresh_home_is_furnished_from_the_shell(tmp_path):
    empty = hanse_at(tmp_path, "members", "list")
    assert (empty.returncode, empty.stdout) == (1, "")
    assert "hanse up" in empty.stderr
    assert "(no_database)" in empty.stderr

    settings = {"HANSE_HOME": str(tmp_path), "DJANGO_SETTINGS_MODULE": "broker.settings.dev"}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity=0"],
        env={**os.environ, **settings},
        check=True,
    )
    added = hanse_at(tmp_path, "members", "add", "birch")
    assert (added.returncode, added.stdout) == (0, "Member birch added.\n"), added.stderr
    listed = hanse_at(tmp_path, "members", "list", "-o", "json")
    assert [row["name"] for row in json.loads(listed.stdout)] == ["birch"]
    again = hanse_at(tmp_path, "members", "add", "birch")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "There is already a member called birch. (name_taken)\n"
