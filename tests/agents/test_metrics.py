"""What Prometheus reads of a real agent, and of its parts."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from agents.clock import VirtualClock
from agents.config import parse
from agents.drivers.fake import FakeDriver
from agents.errors import BrokerUnreachable, ConfigError
from agents.metrics.settings import MetricsSettings, read_metrics
from agents.metrics.wiring import counted
from agents.protocol import PROTOCOL, EndReason, ReportBatch, ReportReply, SyncReply, SyncRequest
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import AgentProcess, a_lease, a_task, settings, steps_until_told, until

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("prometheus_client") is None,
    reason="prometheus-client (the extra `metrics`) is not installed in this environment",
)


class Broker:
    """Answers or not, as the test says."""

    away = False

    def sync(self, request: SyncRequest) -> SyncReply:
        raise NotImplementedError

    def reports(self, batch: ReportBatch) -> ReportReply:
        if self.away:
            raise BrokerUnreachable("away")
        return ReportReply(PROTOCOL, ())


def figures(text: str) -> dict[str, float]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {key: float(value) for key, value in (line.rsplit(" ", 1) for line in lines)}


@needs_library
def test_a_running_agent_tells_its_figures(
    broker: FakeBroker, make_agent: Callable[..., AgentProcess]
) -> None:
    agent = make_agent(metrics={"port": 0})
    agent.start()
    broker.lease(a_lease(command=steps_until_told(), fence_s=500.0))
    until(lambda: broker.of("a1"))
    found = re.search(r'"address": "(http://127\.0\.0\.1:[0-9]+/metrics)"', agent.log())
    assert found is not None

    def now() -> dict[str, float]:
        assert found is not None
        return figures(httpx.get(found[1], trust_env=False).text)

    seen = until(lambda: (f := now())['hanse_agent_attempts{state="running"}'] == 1 and f)
    assert isinstance(seen, dict)
    assert seen['hanse_agent_offer_gpus{pool="a100"}'] == 2
    assert seen['hanse_agent_broker_calls_total{call="sync",result="ok"}'] >= 1
    assert 400 < seen["hanse_agent_fence_margin_seconds"] <= 500
    assert seen["hanse_agent_journal_bytes"] > 4096
    assert seen["hanse_agent_broker_silent_seconds"] < 60
    assert seen['hanse_agent_driver_call_seconds_count{call="start"}'] == 1
    assert seen['hanse_agent_driver_call_seconds_sum{call="start"}'] > 0
    with broker.changed:
        broker.away = True
        broker.changed.notify_all()
    unreachable = 'hanse_agent_broker_calls_total{call="sync",result="unreachable"}'
    until(lambda: now()[unreachable] >= 1)
    agent.finish("job-a1")
    until(lambda: now()["hanse_agent_reports_pending"] >= 1)
    until(lambda: "hanse_agent_fence_margin_seconds" not in now())
    broker.away = False
    until(lambda: broker.end("a1"))
    until(lambda: now()["hanse_agent_reports_pending"] == 0)
    assert agent.terminate() == 0


@needs_library
def test_calls_are_counted_and_handed_through(tmp_path: Path) -> None:
    journal = tmp_path / "j.sqlite3"
    database = sqlite3.connect(journal)
    database.execute("CREATE TABLE attempts (body TEXT)")
    database.execute("CREATE TABLE reports (body TEXT)")
    database.close()
    clock, broker = VirtualClock(), Broker()
    driver = FakeDriver(clock=clock, speeds={})
    wanted = MetricsSettings(port=0)
    with counted(broker, driver, settings=wanted, clock=clock, journal=journal) as (far, near):
        registry = far._meters.registry  # type: ignore[attr-defined]
        value = registry.get_sample_value
        near.start(a_task(fence_at=clock.boottime() + 30.0))
        near.start(a_task("a2", fence_at=clock.boottime() + 90.0))
        assert value("hanse_agent_fence_margin_seconds") == 30.0
        handle = near.readopt("a1")
        assert handle is not None
        near.renew(handle, clock.boottime() + 200.0)
        assert value("hanse_agent_fence_margin_seconds") == 90.0
        near.stop(handle, grace_s=0.0, reason=EndReason.REVOKED, why="")
        clock.advance(40.0)
        assert near.poll(handle).exit is not None
        near.cleanup("a2")
        assert value("hanse_agent_fence_margin_seconds") is None
        assert near.refuse == ""  # type: ignore[attr-defined]
        assert value("hanse_agent_broker_silent_seconds") == 40.0
        far.reports(ReportBatch(PROTOCOL, ()))
        assert value("hanse_agent_broker_silent_seconds") == 0.0
        broker.away = True
        with pytest.raises(BrokerUnreachable):
            far.reports(ReportBatch(PROTOCOL, ()))
        clock.advance(7.0)
        assert value("hanse_agent_broker_silent_seconds") == 7.0
        counts = {
            result: value("hanse_agent_broker_calls_total", {"call": "reports", "result": result})
            for result in ("ok", "unreachable", "refused")
        }
        assert counts == {"ok": 1.0, "unreachable": 1.0, "refused": 0.0}


def test_without_the_key_nothing_stands_between(tmp_path: Path) -> None:
    clock, broker = VirtualClock(), Broker()
    driver = FakeDriver(clock=clock, speeds={})
    with counted(broker, driver, settings=None, clock=clock, journal=tmp_path) as found:
        assert found == (broker, driver)


def test_without_the_library_the_key_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in ("meters", "exposition"):
        monkeypatch.delitem(sys.modules, f"agents.metrics.{name}", raising=False)
    clock = VirtualClock()
    driver = FakeDriver(clock=clock, speeds={})
    wanted = counted(Broker(), driver, settings=MetricsSettings(0), clock=clock, journal=tmp_path)
    with pytest.raises(ConfigError, match=r"hanse\[metrics\]"), wanted:
        raise AssertionError("the library is hidden")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "metrics.port"),
        ({"port": 70000}, "metrics.port"),
        ({"port": "x"}, "metrics.port"),
        ({"port": 1, "bind": "all"}, "metrics.bind"),
        ({"port": 1, "host": "x"}, "metrics.host"),
    ],
)
def test_the_keys_are_read_strictly(tmp_path: Path, value: object, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(settings(metrics=value), folder=tmp_path)
    assert caught.value.path == path


def test_loopback_unless_told_otherwise() -> None:
    assert read_metrics({"port": 9464}) == MetricsSettings(9464, "127.0.0.1")
    assert read_metrics(None) is None
