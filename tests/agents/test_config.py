"""A typo in the configuration is a sentence that names the key."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

import agents.config
from agents.config import Speed, load, parse
from agents.errors import ConfigError
from tests.agents.making import settings

POOL = {"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20"}


def test_the_example_of_the_documentation_is_accepted() -> None:
    text = agents.config.__doc__ or ""
    example = textwrap.dedent(text[text.index("    broker:") :])
    config = parse(yaml.safe_load(example), folder=Path("/etc/hanse"))
    assert config.driver.work == Path("/etc/hanse/work")
    assert config.state == Path("/var/lib/hanse")
    assert config.first_slot("v100") == 8
    bert = next(item for item in config.classes if item.name == "bert-base")
    assert bert.speeds == (Speed("a100", 1, 420), Speed("a100", 2, 810), Speed("a100", 4, 1500))


@pytest.mark.parametrize(
    ("changes", "path", "why"),
    [
        ({"brokr": "x"}, "brokr", "unknown key"),
        ({"broker": "http://broker.example.org"}, "broker", "plain http"),
        ({"broker": "http://127.0.0.1.evil.org"}, "broker", "plain http"),
        ({"broker": "ftp://x"}, "broker", "an address"),
        ({"broker": "https://user:pw@x"}, "broker", "without user"),
        ({"pools": []}, "pools", "at least one"),
        ({"pools": [POOL, POOL]}, "pools[1].name", "twice"),
        ({"pools": [{**POOL, "reserve": 1.2}]}, "pools[0].reserve", "quoted decimal"),
        ({"pools": [{**POOL, "reserve": "1e3"}]}, "pools[0].reserve", "quoted decimal"),
        ({"pools": [{**POOL, "gpus": 0}]}, "pools[0].gpus", "at least 1"),
        ({"pools": [{**POOL, "gpus": True}]}, "pools[0].gpus", "whole number"),
        ({"pools": [{**POOL, "speed": 1}]}, "pools[0].speed", "unknown key"),
        ({"pools": [{"name": "x"}]}, "pools[0].gpu", "missing"),
        ({"pools": [{**POOL, "name": "../x"}]}, "pools[0].name", "letters"),
        ({"pools": [{**POOL, "devices": ["0"]}]}, "pools[0].devices", "2 devices"),
        ({"classes": []}, "classes", "mapping"),
        ({"classes": {"a": {}}}, "classes.a", "either"),
        ({"classes": {"a b": {"samples_per_s": {"a100": 1}}}}, "classes.a b", "letters"),
        ({"classes": {"a": {"samples_per_s": {"b": 1}}}}, "classes.a.samples_per_s.b", "no pool"),
        (
            {"classes": {"a": {"samples_per_s": {"a100": 0}}}},
            "classes.a.samples_per_s.a100",
            "zero",
        ),
        ({"classes": {"a": {"samples_per_s": {"a100": 1}, "gpus": 3}}}, None, "has 2 GPUs"),
        ({"classes": {"a": {"probe": {"command": "x"}}}}, "classes.a.probe.command", "list"),
        ({"classes": {"a": {"probe": {"command": [8]}}}}, "classes.a.probe.command[0]", "quote"),
        ({"classes": {"a": {"probe": {"command": []}}}}, "classes.a.probe.command", "words"),
        ({"classes": {"a": {"probe": {"command": ["x"]}, "pools": ["b"]}}}, None, "no pool"),
        ({"driver": {"kind": "condor"}}, "driver.kind", "process, fake"),
        ({"driver": {"env": {"A-B": "x"}}}, "driver.env.A-B", "not a name"),
        ({"driver": {"env": {"A": 1}}}, "driver.env.A", "text"),
        ({"sync": {"tick_s": 0}}, "sync.tick_s", "more than zero"),
        ({"sync": {"wait_s": float("nan")}}, "sync.wait_s", "at least"),
        ({"grace_s": -1}, "grace_s", "at least 0"),
        ({"offer": {"validity_hours": "x"}}, "offer.validity_hours", "number"),
        ({"probes": {"parallel": 1}}, "probes.parallel", "true or false"),
    ],
)
def test_mistakes(changes: dict[str, Any], path: str | None, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse(settings(**changes), folder=Path("/x"))
    assert path is None or caught.value.path == path


@pytest.mark.parametrize("key", ["broker", "state", "pools", "classes"])
def test_needed_keys(key: str) -> None:
    value = settings()
    del value[key]
    with pytest.raises(ConfigError, match=f"{key}: missing"):
        parse(value, folder=Path("/x"))


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.9.9.9", "[::1]:80", "localhost:1"])
def test_plain_http_on_this_machine(host: str) -> None:
    parse(settings(broker=f"http://{host}"), folder=Path("/x"))


def test_files_that_are_no_yaml_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "tag.yaml").write_text("!!python/object/apply:os.system ['true']")
    for name in ("bad.yaml", "tag.yaml", "none.yaml"):
        with pytest.raises(ConfigError):
            load(tmp_path / name)
