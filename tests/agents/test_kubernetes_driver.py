"""The Kubernetes driver against a stub in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.drivers.base import Phase
from agents.drivers.kubernetes.nodes import quantity
from agents.drivers.kubernetes.stream import Place, _part
from agents.errors import ConfigError, DriverFailed
from agents.protocol import EndReason
from tests.agents.kubernetes_bench import AHEAD, Bench, Json, benches
from tests.agents.kubernetes_stub import (
    JOBS,
    PODS,
    SERVICES,
)
from tests.agents.making import a_config


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with benches(tmp_path) as one:
        yield one


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


# -- reading on ------------------------------------------------------------------------------------


@given(
    stamps=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    reads=st.lists(st.integers(0, 30), max_size=10),
)
def test_every_line_is_read_once_however_stamps_repeat(stamps: list[int], reads: list[int]) -> None:
    """Lines since the last stamp's second come again; only what is new counts."""
    nanos, now = [], 10**9
    for step in stamps:
        now += step
        nanos.append(now)
    lines = [f"2026-01-01T00:00:01.{nano - 10**9:09d}Z line {i}\n" for i, nano in enumerate(nanos)]
    place, got = Place(), list[bytes]()
    for count in [*sorted(reads), len(lines)]:
        part = _part("".join(lines[:count]).encode(), place, final=False, full=False)
        assert not part.gap
        place = part.place
        got += part.lines
    assert b"".join(got).decode() == "".join(line.partition(" ")[2] for line in lines)


def test_lines_that_the_node_dropped_are_told(bench: Bench) -> None:
    handle = bench.begun()
    bench.stub.say("a1", "job", "one\n")
    assert bench.driver.logs("a1", 0, 100).data == b"one\n"
    name = bench.stub.pod("a1")["metadata"]["name"]
    bench.stub.logs[name, "job"].clear()
    bench.stub.say("a1", "job", "three\n")
    bench.look(handle)
    assert b"missing here" in bench.driver.logs("a1", 4, 1000).data
    assert bench.driver.logs("a1", 4, 1000).data.endswith(b"three\n")


def test_a_crash_between_two_writes_repeats_nothing(bench: Bench) -> None:
    bench.begun()
    bench.stub.say("a1", "job", "one\n")
    bench.driver.logs("a1", 0, 100)
    log = bench.folder / "attempts" / "a1" / "output.log"
    log.write_bytes(log.read_bytes() + b"half a li")
    bench.make()
    handle = bench.driver.readopt("a1")
    assert handle is not None
    bench.look(handle)
    bench.stub.say("a1", "job", "two\n")
    bench.look(handle)
    bench.driver.logs("a1", 4, 100)
    assert bench.driver.logs("a1", 0, 100).data == b"one\ntwo\n"


# -- endings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words", "terminated", "reason", "exit_code", "why"),
    [
        (0, "exited 0 1", {}, EndReason.EXITED, 0, ""),
        (139, "exited 139 1", {}, EndReason.EXITED, 139, "ended by signal 11"),
        (143, "fenced 143 1", {}, EndReason.FENCED, 143, "out of reach"),
        (70, "unconfirmed - 1", {}, EndReason.FENCED, None, "no agent released it"),
        (143, "deleted 143 1", {}, EndReason.DRIVER_FAILED, 143, "deleted at the site"),
        (137, "exited 137 1", {"reason": "OOMKilled"}, EndReason.EXITED, 137, "OOMKilled"),
        (137, "", {"reason": "Error"}, EndReason.LOST, 137, "killed with the guard"),
        (127, "x: not found", {"reason": "StartError"}, EndReason.DRIVER_FAILED, None, "not found"),
        (1, "nonsense 1 1", {}, EndReason.LOST, 1, ""),
    ],
)
def test_each_ending_has_its_reason(
    bench: Bench,
    code: int,
    words: str,
    terminated: Json,
    reason: EndReason,
    exit_code: int | None,
    why: str,
) -> None:
    over = bench.end(bench.begun(), code, words, **terminated)
    assert (over.reason, over.exit_code) == (reason, exit_code)
    assert why in over.message
    assert over.ended is not None


def test_the_end_waits_for_the_last_progress(bench: Bench) -> None:
    """The forwarder tells the last lines after the job's container has ended."""
    handle = bench.begun()
    bench.stub.end("a1", 0, "exited 0 1")
    statuses = bench.stub.pod("a1")["status"]["containerStatuses"]
    statuses[1]["state"] = {"running": {}}
    assert bench.look(handle) is None
    bench.stub.say("a1", "progress", '> {"samples": 9}\n')
    statuses[1]["state"] = {"terminated": {"exitCode": 0}}
    assert bench.look(handle) is not None
    assert bench.driver.progress("a1", 0, 100) == b'{"samples": 9}\n'


def test_an_end_is_kept_when_the_cluster_has_forgotten_it(bench: Bench) -> None:
    handle = bench.begun()
    over = bench.end(handle, 3, "exited 3 1")
    bench.stub.remove(f"{JOBS}/hanse-a1")
    bench.make()
    assert bench.look(handle) == over


def test_an_image_may_take_a_while_but_not_for_ever(bench: Bench) -> None:
    handle = bench.start()
    bench.stub.wait("a1", "ImagePullBackOff", 'Back-off pulling image "i:1"')
    assert bench.look(handle, 30.0) is None
    over = bench.look(handle, 61.0)
    assert over is not None
    assert (over.reason, over.message) == (
        EndReason.DRIVER_FAILED,
        'ImagePullBackOff: Back-off pulling image "i:1"',
    )
    assert f"{JOBS}/hanse-a1" not in bench.stub.objects


def test_a_second_pod_of_the_job_is_never_let_begin(bench: Bench) -> None:
    handle = bench.begun()
    job = bench.stub.objects[f"{JOBS}/hanse-a1"]
    bench.stub.remove(f"{PODS}/{bench.stub.pod('a1')['metadata']['name']}")
    bench.stub._add_pod(job, 0)
    bench.stub.begin("a1", clock=bench.clock.boottime() + AHEAD)
    assert bench.look(handle) is None
    over = bench.look(handle, 4.0)
    assert over is not None
    assert over.reason is EndReason.DRIVER_FAILED
    assert bench.stub.orders("a1") == ""


def test_a_pod_that_saves_its_work_after_its_job_was_deleted_is_not_over(bench: Bench) -> None:
    handle = bench.begun()
    del bench.stub.objects[f"{JOBS}/hanse-a1"]
    bench.stub.pod("a1")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert bench.look(handle, 10.0) is None
    assert bench.look(handle, 10.0) is None
    bench.stub.end("a1", 0, "deleted 0 1")
    over = bench.look(handle)
    assert over is not None
    assert (over.reason, over.exit_code) == (EndReason.DRIVER_FAILED, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', '{"reason": "no", "why": 1}', "null"])
def test_annotations_that_somebody_spoilt_break_nothing(bench: Bench, text: str) -> None:
    bench.start()
    notes = bench.stub.objects[f"{JOBS}/hanse-a1"]["metadata"]["annotations"]
    notes.update({f"hanse/{name}": text for name in ("terms", "stop", "confirmed")})
    bench.make(root="a-lost-disk")
    handle = bench.driver.readopt("a1")
    assert handle is not None
    assert bench.look(handle) is None


# -- gangs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("minor", [20, 29])
def test_a_gang_begins_when_all_its_pods_are_there(make: Callable[..., Bench], minor: int) -> None:
    bench = make(minor, pools={"a100": {"gpus_per_node": 4}}, queue="tenants")
    handle = bench.start(gpus=12)
    jobs = [path for path in bench.stub.objects if path.startswith(f"{JOBS}/")]
    assert len(jobs) == (1 if minor == 29 else 3)
    assert f"{SERVICES}/hanse-a1" in bench.stub.objects
    queue = bench.stub.objects[jobs[0]]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert queue == "tenants"
    for rank in (0, 1):
        bench.stub.begin("a1", rank, clock=1000.0 * rank)
    assert bench.look(handle) is None
    assert bench.stub.orders("a1", 0) == ""
    bench.stub.begin("a1", 2, clock=5.0)
    bench.look(handle)
    assert all(bench.stub.orders("a1", rank) for rank in range(3))
    bench.stub.end("a1", 9, "exited 9 1", rank=1)
    bench.look(handle)
    assert bench.stub.orders("a1", 0).endswith(" 500 gang")
    for rank in (0, 2):
        bench.stub.end("a1", 143, "gang 143 1", rank=rank)
    over = bench.look(handle)
    assert over is not None
    assert (over.reason, over.exit_code, over.message) == (
        EndReason.EXITED,
        9,
        "rank 1 on node n1: exit code 9",
    )


# -- a server that is away or says no --------------------------------------------------------------


def test_nothing_is_concluded_while_the_server_is_away(bench: Bench) -> None:
    handle = bench.begun()
    bench.stub.away = True
    for _ in range(3):
        assert bench.look(handle, 100.0) is None
    assert bench.driver.known() == {"a1"}
    assert bench.driver.readopt("a1") is not None
    bench.stub.away = False
    assert bench.look(handle, 3.0) is None
    assert bench.end(handle, 0, "exited 0 1").exit_code == 0


@pytest.mark.parametrize("token", ["", "withdrawn"])
def test_refused_credentials_end_no_job(bench: Bench, token: str) -> None:
    handle = bench.begun()
    good, bench.stub.token = bench.stub.token, token
    assert bench.look(handle, 100.0) is None
    bench.stub.token = good
    assert bench.look(handle, 3.0) is None
    assert bench.driver.poll(handle).phase is Phase.RUNNING


def test_a_create_whose_answer_is_lost_is_made_once(bench: Bench) -> None:
    bench.stub.drops = lambda method, path: method == "POST"
    handle = bench.start()
    bench.stub.drops = lambda method, path: False
    assert bench.look(handle, 3.0) is None
    assert bench.stub.calls.count(("POST", JOBS)) == 2
    assert sum(path.startswith(f"{JOBS}/") for path in bench.stub.objects) == 1
    bench.stub.begin("a1", clock=1.0)
    bench.look(handle)
    assert bench.stub.orders("a1")


def test_what_another_start_made_is_not_taken_for_ours(bench: Bench) -> None:
    bench.start()
    bench.clock.advance(1.0)
    bench.make(root="another-agent")
    with pytest.raises(DriverFailed, match="started before"):
        bench.start()


def test_clean_up_waits_for_the_server_and_is_done_once_it_is_back(bench: Bench) -> None:
    handle = bench.begun()
    bench.end(handle, 0, "exited 0 1")
    other = bench.begun("a2")
    bench.stub.away = True
    bench.clock.advance(1.0)
    bench.driver.cleanup("a1")
    assert f"{JOBS}/hanse-a1" in bench.stub.objects
    bench.stub.away = False
    bench.look(other, 3.0)
    assert f"{JOBS}/hanse-a1" not in bench.stub.objects
    assert f"{JOBS}/hanse-a2" in bench.stub.objects


def test_a_quiet_site_costs_two_calls_a_look(bench: Bench) -> None:
    handles = [bench.begun(f"a{i}") for i in range(5)]
    bench.clock.advance(100.0)
    for handle in handles:  # what is told once has been told
        bench.driver.renew(handle, bench.clock.boottime() + 600.0)
        bench.driver.poll(handle)
    bench.clock.advance(0.6)
    bench.stub.calls.clear()
    for handle in handles:
        bench.driver.poll(handle)
    assert sorted(bench.stub.calls) == [("GET", PODS), ("GET", JOBS)]


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"image": ""}, "driver.image"),
        ({"namespace": "Not A Name"}, "driver.namespace"),
        ({"pools": {"b": {}}}, "driver.pools.b: no pool has this name"),
        ({"pools": {"a100": {"gpus_per_node": 0}}}, "driver.pools.a100.gpus_per_node"),
        ({"pools": {"a100": {"product": "a b"}}}, "driver.pools.a100.product"),
        ({"work_volume": {"claim": "c", "host_path": "/x"}}, "either claim or host_path"),
        ({"work_volume": {"host_path": "/x/../y"}}, "a path from the root"),
        ({"resource": "two words"}, "driver.resource"),
        ({"kubeconfi": "x"}, "unknown key"),
        ({"look_s": 0}, "driver.look_s"),
    ],
)
def test_a_mistake_in_the_configuration_is_a_sentence(tmp_path: Path, own: Json, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        a_config(tmp_path, driver={"kind": "kubernetes", "image": "i:1", **own})


@pytest.mark.parametrize(
    ("cluster", "user", "why"),
    [
        ({"server": "http://192.0.2.1"}, {}, "https address is expected"),
        ({"server": "https://x", "insecure-skip-tls-verify": True}, {}, "not supported"),
        ({"server": "https://x"}, {"exec": {"command": "aws"}}, "not supported"),
        ({"server": "https://x"}, {"username": "u", "password": "p"}, "not supported"),
        ({"server": "https://x"}, {"client-certificate-data": "QUJD"}, "go together"),
        ({"server": "https://x", "certificate-authority-data": "!"}, {}, "cannot be read"),
    ],
)
def test_a_kubeconfig_that_would_weaken_us_is_refused(
    bench: Bench, cluster: Json, user: Json, why: str
) -> None:
    file = bench.config.driver.own.kubeconfig
    value = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(json.dumps(value))
    with pytest.raises(ConfigError, match=why):
        bench.start()


def test_a_value_that_looks_like_a_reference_is_escaped(bench: Bench) -> None:
    bench.start(env={"V": "$(HOME) $$ $X"}, command="", argv=("echo", "$(V)"))
    container = bench.stub.pod("a1")["spec"]["containers"][0]
    assert {"name": "V", "value": "$$(HOME) $$$$ $$X"} in container["env"]
    assert container["command"][-2:] == ["echo", "$$(V)"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", 4), ("250m", 0.25), ("16Gi", 16 * 1024**3), ("1e3", 1000), ("2k", 2000), ("x", 0)],
)
def test_quantities(text: str, value: float) -> None:
    assert float(quantity(text)) == value
