"""The operator's three words at the site: drain, open, leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from agents.cli import app
from agents.errors import AgentError
from agents.journal import Journal
from agents.leaving import wait_for_end
from agents.protocol import EndReason
from agents.state import StateFolder
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import (
    AgentProcess,
    a_config,
    a_lease,
    settings,
    steps,
    steps_until_told,
    until,
)

ANN = {"tenant": "ann"}


def hanse(word: str, agent: AgentProcess, *more: str) -> Result:
    return CliRunner().invoke(app, [word, "--config", str(agent.file), *more])


def offered(broker: FakeBroker) -> int | None:
    return broker.offers[-1].pools[0].gpus if broker.offers else None


def test_a_drained_agent_finishes_what_runs_and_opens_again(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease(command=steps_until_told(), **ANN))
    until(lambda: broker.of("a1"))
    done = hanse("drain", agent, "--reason", "new switches")
    assert done.exit_code == 0, done.output
    until(lambda: offered(broker) == 0)
    broker.lease(a_lease("late", **ANN))
    late = until(lambda: broker.end("late"))
    assert late.end is not None
    assert (late.end.reason, late.end.code) == (EndReason.DECLINED, "draining")
    assert late.end.message == "this site takes nothing new: new switches"

    shown = hanse("status", agent).output
    assert "draining: new switches" in shown
    assert "a100: 0 GPUs on offer" in shown
    assert json.loads(hanse("status", agent, "--output", "json").stdout)["rules"]["offered"] == {
        "a100": 0
    }
    agent.finish("job-a1")
    end = until(lambda: broker.end("a1"))
    assert end.end is not None
    assert end.end.reason is EndReason.EXITED

    assert hanse("open", agent).output == "Open again.\n"
    until(lambda: offered(broker) == 2)
    assert hanse("open", agent).output == "The site was open.\n"
    assert agent.terminate() == 0


def test_leave_waits_until_all_is_handed_back(broker: FakeBroker, agent: AgentProcess) -> None:
    broker.lease(a_lease(command=steps_until_told(), **ANN))
    until(lambda: broker.of("a1"))
    done = hanse("leave", agent, "--reason", "the lease of the hall ends")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Left: nothing runs here")
    end = broker.end("a1")
    assert end is not None
    assert end.end is not None
    assert end.end.code == "leaving"
    assert "the lease of the hall ends" in end.end.message
    assert agent.wait() == 0


def test_leave_says_what_an_agent_that_does_not_run_still_holds(
    broker: FakeBroker, agent: AgentProcess
) -> None:
    broker.lease(a_lease(command=steps_until_told(), **ANN))
    until(lambda: broker.of("a1"))
    agent.kill()
    done = hanse("leave", agent)
    assert done.exit_code == 1
    assert "holds 1 attempts" in done.output
    agent.start()
    assert agent.wait() == 0
    assert broker.end("a1") is not None


def test_leave_does_not_wait_for_ever(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    folder = StateFolder(config.state)
    folder.prepare()
    naps: list[float] = []
    with folder.lock(), pytest.raises(AgentError, match="still runs after 0 s"):
        wait_for_end(config, limit_s=0.0, sleep=naps.append)
    assert not naps
    Journal(folder.journal).close()
    left = wait_for_end(config, limit_s=0.0)
    assert (left.attempts, left.unsent) == (0, 0)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 301])
def test_a_reason_is_needed(agent: AgentProcess, reason: str) -> None:
    assert hanse("drain", agent, "--reason", reason).exit_code == 2
    assert not (agent.state / "drain.json").exists()


def test_the_offer_is_shown_as_the_rules_leave_it(
    tmp_path: Path, make_agent: Callable[..., AgentProcess]
) -> None:
    agent = make_agent(policy="policy.yaml")
    (tmp_path / "policy.yaml").write_text("keep: {a100: 1}\ntenants: {deny: [ann]}\n")
    shown = json.loads(hanse("offer", agent, "--output", "json").stdout)
    assert shown["pools"][0]["gpus"] == 1
    assert shown["policy"]["tenants_deny"] == ["ann"]


def test_a_policy_is_named_in_the_configuration(tmp_path: Path) -> None:
    value = settings(policy="rules/policy.yaml")
    assert yaml.safe_load(yaml.safe_dump(value)) == value
    assert a_config(tmp_path, policy="rules/policy.yaml").policy == tmp_path / "rules/policy.yaml"
    assert a_config(tmp_path).policy is None


def test_a_real_agent_keeps_to_a_policy_that_changes_under_it(
    broker: FakeBroker, tmp_path: Path, make_agent: Callable[..., AgentProcess]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("tenants: {deny: [ann]}\n")
    agent = make_agent(policy="policy.yaml")
    agent.start()
    broker.lease(a_lease("first", command=steps(1), **ANN))
    first = until(lambda: broker.end("first"))
    assert first.end is not None
    assert first.end.code == "tenant_not_admitted"
    policy.write_text("tenants: {deny: [ann, bob]}\nmax_gpus: nine\n")
    until(lambda: "policy.unreadable" in agent.log())
    shown = hanse("status", agent).output.replace("\n", "")
    assert "max_gpus: a whole number is expected; the last good rules stand" in shown
    policy.write_text("tenants: {deny: [bob]}\n")
    until(lambda: broker.offers[-1].policy.tenants_deny == ("bob",))
    broker.lease(a_lease("second", command=steps(1), **ANN))
    second = until(lambda: broker.end("second"))
    assert second.end is not None
    assert (second.end.reason, second.end.code) == (EndReason.EXITED, None)
