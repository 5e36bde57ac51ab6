"""The commands an operator types."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from agents.cli import app
from agents.state import Membership, StateFolder
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import AgentProcess, a_lease, settings, steps, until


def hanse(*words: str, **options: Any) -> Result:
    return CliRunner().invoke(app, list(words), **options)


@pytest.fixture
def file(tmp_path: Path, broker: FakeBroker) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(settings(broker.url)))
    return path


def test_join_keeps_the_credential_to_itself(broker: FakeBroker, file: Path) -> None:
    done = hanse("join", broker.url, "one-time", "--config", str(file))
    assert done.exit_code == 0
    assert "birch" in done.output
    assert broker.credential not in done.output
    kept = file.parent / "state" / "credential.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    membership = StateFolder(kept.parent).membership(broker.url)
    assert membership.credential == broker.credential
    assert broker.credential not in repr(membership)


def test_join_twice_needs_a_word_and_a_token_may_come_by_stdin(
    broker: FakeBroker, file: Path
) -> None:
    words = ("join", broker.url, "-", "--config", str(file))
    assert hanse(*words, input="one-time\n").exit_code == 0
    again = hanse(*words, input="one-time\n")
    assert again.exit_code == 1
    assert "--again" in again.output
    assert hanse(*words, "--again", input="one-time\n").exit_code == 0


def test_join_elsewhere_than_configured_is_refused(broker: FakeBroker, file: Path) -> None:
    done = hanse("join", "https://other.example.org", "t", "--config", str(file))
    assert done.exit_code == 2
    assert "not https://other.example.org" in done.output
    assert hanse("join", "http://other.example.org", "t", "--config", str(file)).exit_code == 2


def test_a_credential_goes_to_its_own_broker_only(broker: FakeBroker, file: Path) -> None:
    state = StateFolder(file.parent / "state")
    state.save(Membership("https://other.example.org", "birch", "1", "hs_other"))
    done = hanse("rotate", "--config", str(file))
    assert done.exit_code == 3
    assert "https://other.example.org" in done.output


def test_rotate(broker: FakeBroker, file: Path) -> None:
    assert hanse("rotate", "--config", str(file)).exit_code == 3
    hanse("join", broker.url, "one-time", "--config", str(file))
    done = hanse("rotate", "--config", str(file))
    assert done.exit_code == 0
    assert "300 s" in done.output
    assert broker.credential == "hs_first+"
    state = StateFolder(file.parent / "state")
    assert state.membership(broker.url).credential == "hs_first+"


def test_a_running_agent_takes_the_rotated_credential(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    until(lambda: broker.syncs)
    assert hanse("rotate", "--config", str(agent.file)).exit_code == 0
    broker.old_credential = ""
    seen = len(broker.syncs)
    until(lambda: len(broker.syncs) > seen + 2)


def test_offer(file: Path) -> None:
    value = json.loads(hanse("offer", "--config", str(file), "-o", "json").stdout)
    assert value["pools"] == [{"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20"}]
    assert "resnet50" in hanse("offer", "--config", str(file)).output


def test_probe(file: Path, broker: FakeBroker) -> None:
    probe = {"command": ["sh", "-c", steps(10)], "seconds": 5}
    classes = {"resnet50": {"probe": probe}, "bert": {"samples_per_s": {"a100": 3}}}
    file.write_text(yaml.safe_dump(settings(broker.url, classes=classes)))
    done = hanse("probe", "--config", str(file), "-o", "json")
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)
    assert found["lines"] == 10
    assert json.loads(hanse("probe", "--config", str(file), "-o", "json").stdout) == [found]
    offer = json.loads(hanse("offer", "--config", str(file), "-o", "json").stdout)
    assert [item["source"] for item in offer["affinities"]] == ["declared", "probed"]


def test_status(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps(1000)))
    until(lambda: broker.of("a1"))
    value = json.loads(hanse("status", "--config", str(agent.file), "-o", "json").stdout)
    assert value["attempts"][0]["job"] == "job-a1"
    assert value["last_sync"]["at"]
    assert "a1" in hanse("status", "--config", str(agent.file)).output


def test_status_before_the_first_run_and_a_bad_file(file: Path) -> None:
    assert hanse("status", "--config", str(file)).exit_code == 3
    file.write_text("brokr: x")
    done = hanse("status", "--config", str(file))
    assert done.exit_code == 2
    assert "brokr: unknown key" in done.output


def test_run_before_join(file: Path) -> None:
    done = hanse("run", "--config", str(file))
    assert done.exit_code == 3
    assert "join" in done.output
