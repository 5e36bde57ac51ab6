"""The stub's answers against those of a real server, which were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agents.drivers.kubernetes import seen
from agents.drivers.kubernetes.manifests import jobs_of, terms_of
from agents.protocol import EndReason
from tests.agents.kubernetes_stub import FIXTURES, Stub, conversation, serving
from tests.agents.making import a_config, a_task

Json = dict[str, Any]
RECORDED = sorted(path.stem for path in FIXTURES.glob("*.json"))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The stub's part of the conversation."""
    folder = tmp_path_factory.mktemp("said")
    settings = a_config(folder, driver={"kind": "kubernetes", "image": "i:1"}).driver
    task = a_task("rec", command="echo one; echo two; exit 3", fence_at=1000.0)
    terms = terms_of(task, settings.own, indexed=False)
    [job] = jobs_of(task, terms=terms, site="birch", settings=settings, fence_s=1.0, made="x")
    with serving(Stub()) as stub:

        def wait(what: str) -> None:
            if what == "running":
                stub.begin("rec")
            elif what == "ended":
                for word in ("one", "two"):
                    stub.say("rec", "job", f"{word}\n")
                stub.end("rec", 3, "exited 3 100")

        headers = {"Authorization": f"Bearer {stub.token}"}
        with httpx.Client(base_url=stub.url, headers=headers) as http:
            return {one.name: one for one in conversation(http, job, wait)}


def paths(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every place in a value with the kind of thing that is there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")
    else:
        yield path, type(value).__name__


def test_the_conversation_was_recorded_whole(said: Json) -> None:
    assert sorted(said) == RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_the_stub_answers_as_the_real_server_did(said: Json, name: str) -> None:
    recorded = json.loads((FIXTURES / f"{name}.json").read_text())
    ours = said[name]
    assert ours.status == recorded["status"]
    theirs = set(paths(recorded["answer"]))
    free = {path for path, _ in theirs if ".annotations." in path or ".labels." in path}
    assert {one for one in paths(ours.answer) if one[0] not in free} <= theirs
    if isinstance(recorded["answer"], str):
        without = [line.partition(" ")[2] for line in recorded["answer"].splitlines()]
        assert [line.partition(" ")[2] for line in ours.answer.splitlines()] == without
    elif "reason" in recorded["answer"]:
        assert ours.answer["reason"] == recorded["answer"]["reason"]


@pytest.mark.parametrize(
    ("name", "phase", "running", "words"),
    [
        ("pods-pending", "Pending", False, ""),
        ("pods-running", "Running", True, ""),
        ("pods-ended", "Failed", False, "exited"),
    ],
)
def test_a_real_servers_pods_are_understood(
    name: str, phase: str, running: bool, words: str
) -> None:
    answer = json.loads((FIXTURES / f"{name}.json").read_text())["answer"]
    [value] = answer["items"]
    pod = seen.pod(value)
    assert (pod.phase, pod.running, pod.said, pod.rank) == (phase, running, words, 0)
    if words:
        assert pod.exit is not None
        assert (pod.exit.reason, pod.exit.exit_code) == (EndReason.EXITED, 3)
