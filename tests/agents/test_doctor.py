"""`hanse agent doctor`: one line for each look, and nothing changed anywhere."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agents.cli import app
from agents.clock import SystemClock, VirtualClock
from agents.config import parse
from agents.doctor import host, network, scheduler
from agents.doctor.findings import Finding, Grade
from agents.drivers.base import Capacity
from agents.drivers.fake import FakeDriver
from agents.drivers.process import ProcessDriver
from agents.errors import DriverFailed
from agents.protocol import PROTOCOL
from agents.state import Membership, StateFolder
from tests.agents.fake_broker import FakeBroker
from tests.agents.making import a_config, settings

Findings = dict[str, dict[str, str]]


def write(folder: Path, url: str, *, credential: str = "hs_first", **changes: Any) -> Path:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(settings(url, **changes)))
    if credential:
        StateFolder(folder / "state").save(Membership(url, "birch", "site-1", credential))
    return file


def doctor(file: Path) -> tuple[int, Findings]:
    """Exit code and findings by check; of several the worst counts."""
    done = CliRunner().invoke(app, ["doctor", "--config", str(file), "-o", "json"])
    order = ("ok", "warn", "fail")
    findings: Findings = {}
    for one in json.loads(done.stdout)["findings"]:
        assert bool(one["fix"]) is (one["grade"] != "ok"), one
        old = findings.get(one["check"])
        if old is None or order.index(one["grade"]) > order.index(old["grade"]):
            findings[one["check"]] = one
    return done.exit_code, findings


def grade(findings: Findings, check: str) -> str:
    return findings[check]["grade"]


# -- the whole ------------------------------------------------------------------------------------


def test_a_site_in_order(broker: FakeBroker, tmp_path: Path) -> None:
    code, found = doctor(write(tmp_path, broker.url))
    assert code == 0
    fine = ("release", "name", "connection", "broker", "version", "credential", "clock", "gpus")
    assert {grade(found, check) for check in fine} == {"ok"}
    assert {grade(found, check) for check in ("scheduler", "boot clock", "state")} == {"ok"}
    assert grade(found, "tls") == "warn"  # plain http, on loopback
    assert broker.syncs == []
    assert broker.reports == {}
    assert broker.credential == "hs_first"
    assert not (tmp_path / "state" / "journal.sqlite3").exists()
    shown = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "agent.yaml")])
    assert shown.exit_code == 0
    assert "the broker knows this site" in shown.output
    assert "hs_first" not in shown.output


@pytest.mark.parametrize(
    ("change", "check", "fix"),
    [
        ("withdrawn", "credential", "join --again"),
        ("not joined", "credential", "hanse agent join"),
        ("away", "broker", "firewall"),
        ("newer", "version", "install the release"),
        ("broken", "broker", "tell the broker's operators"),
    ],
)
def test_what_is_wrong_on_the_way_has_its_fix(
    broker: FakeBroker, tmp_path: Path, change: str, check: str, fix: str
) -> None:
    file = write(tmp_path, broker.url, credential="" if change == "not joined" else "hs_first")
    if change == "withdrawn":
        broker.credential = "hs_other"
    broker.away = change == "away"
    broker.problem = {
        "newer": (409, "protocol_mismatch", "This broker speaks hanse.agent/2."),
        "broken": (500, "internal", "The broker failed."),
    }.get(change)
    code, found = doctor(file)
    assert code == 1
    assert grade(found, check) == "fail"
    assert fix in found[check]["fix"]


def test_an_address_that_nobody_has(tmp_path: Path) -> None:
    code, found = doctor(write(tmp_path, "https://broker.invalid"))
    assert (code, grade(found, "name")) == (1, "fail")
    assert "connection" not in found
    code, found = doctor(write(tmp_path, "http://127.0.0.1:1"))
    assert (code, grade(found, "connection")) == (1, "fail")


def test_what_is_allowed_and_seldom_meant_is_told(broker: FakeBroker, tmp_path: Path) -> None:
    pools = [
        {"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "0.00"},
        {"name": "idle", "gpu": "A100", "gpus": 2, "reserve": "1"},
    ]
    file = write(tmp_path, broker.url, pools=pools, metrics={"port": 1, "bind": "0.0.0.0"})  # noqa: S104
    file.chmod(0o666)
    (tmp_path / "state" / "credential.json").chmod(0o644)
    done = CliRunner().invoke(app, ["doctor", "--config", str(file)])
    assert done.exit_code == 1
    text = " ".join(done.output.split())
    assert "a100 has a reserve of 0" in text
    assert "a probe in pool idle" in text
    assert "can be written by others" in text
    assert "metrics are open to whoever reaches 0.0.0.0" in text
    assert "has mode 644: others on this host can speak for the site" in text


def test_a_bad_configuration_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("brokr: x")
    done = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "agent.yaml")])
    assert done.exit_code == 2
    assert "brokr: unknown key" in done.output


# -- TLS and clock --------------------------------------------------------------------------------


class Knows(BaseHTTPRequestHandler):
    """A broker's answer to an empty batch, by TLS."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"protocol": PROTOCOL, "receipts": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving_tls(certificate: Path, key: Path) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Knows)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] - a refused handshake
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[int], tuple[Path, Path]]:
    """Makes a certificate of its own authority for localhost, good for so many days."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")

    def make(days: int) -> tuple[Path, Path]:
        paths = tmp_path / f"cert-{days}.pem", tmp_path / f"key-{days}.pem"
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        words += ["ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
        words += ["-addext", "subjectAltName=DNS:localhost", "-days", str(days)]
        words += ["-out", str(paths[0]), "-keyout", str(paths[1])]
        subprocess.run(words, check=True, capture_output=True)
        return paths

    return make


def test_a_private_authority_is_believed_when_named(
    tmp_path: Path, certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    paths = certificate(90)
    with serving_tls(*paths) as url:
        _, found = doctor(write(tmp_path, url))
        assert grade(found, "tls") == "fail"
        assert "ca_file" in found["tls"]["fix"]
        assert "credential" not in found  # it is not sent to somebody who is not believed
        code, found = doctor(write(tmp_path, url, ca_file=str(paths[0])))
        assert (code, grade(found, "tls"), grade(found, "credential")) == (0, "ok", "ok")
        assert "good for 90 days" in found["tls"]["text"]
        (tmp_path / "junk.pem").write_text("junk")
        _, found = doctor(write(tmp_path, url, ca_file="junk.pem"))
        assert grade(found, "tls") == "fail"


def test_a_certificate_about_to_end_is_told(
    tmp_path: Path, certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    paths = certificate(3)
    with serving_tls(*paths) as url:
        code, found = doctor(write(tmp_path, url, ca_file=str(paths[0])))
    assert (code, grade(found, "tls")) == (0, "warn")


@pytest.mark.parametrize(
    ("ahead_s", "expected"), [(1.0, "ok"), (-30.0, "warn"), (3600.0, "fail"), (-3600.0, "fail")]
)
def test_a_clock_that_is_wrong_is_told(
    broker: FakeBroker, tmp_path: Path, ahead_s: float, expected: str
) -> None:
    class Wrong(SystemClock):
        def wall(self) -> Any:
            return super().wall() + timedelta(seconds=ahead_s)

    write(tmp_path, broker.url)
    config = parse(settings(broker.url), folder=tmp_path)
    found = {f.check: f for f in network.broker_findings(config, "hs_first", Wrong())}
    assert found["clock"].grade == expected
    assert ("ahead of" if ahead_s > 0 else "behind") in found["clock"].text


def test_a_date_header() -> None:
    now = 784111777.0  # the example of RFC 9110
    assert network.skew("Sun, 06 Nov 1994 08:49:37 GMT", now) == -0.5
    assert network.skew("Sun, 06 Nov 1994 08:49:37 GMT", now + 60.0) == 59.5
    assert network.skew(None, now) is None
    assert network.skew("yesterday", now) is None


def test_a_boot_clock_that_stands_is_told() -> None:
    assert host.boot_clock(SystemClock(), pause_s=0.01).grade is Grade.OK
    assert host.boot_clock(VirtualClock(), pause_s=0.0).grade is Grade.FAIL


# -- the host -------------------------------------------------------------------------------------


def test_file_systems(tmp_path: Path) -> None:
    mounts = "/dev/a / ext4 rw 0 0\nsrv:/x /srv nfs4 rw 0 0\ntmpfs /srv/a\\040b tmpfs rw 0 0\n"
    assert host.file_system(Path("/var/lib/hanse"), mounts) == "ext4"
    assert host.file_system(Path("/srv/hanse"), mounts) == "nfs4"
    assert host.file_system(Path("/srv/a b/hanse"), mounts) == "tmpfs"
    assert host.file_system(Path("/srvx"), mounts) == "ext4"
    assert host.nearest(tmp_path / "not" / "there") == tmp_path


def test_a_full_disk_fails(tmp_path: Path) -> None:
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root and is not allowed here")
    try:
        found = list(host.folder_findings("state", tmp_path / "state"))
        assert [(f.grade, f.check) for f in found] == [
            (Grade.FAIL, "state"),
            (Grade.WARN, "state"),  # and in memory, too
        ]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_memory_and_limits(tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    assert host.memory(meminfo, limit).grade is Grade.OK
    limit.write_text("max\n")
    assert host.memory(meminfo, limit).grade is Grade.OK
    limit.write_text(f"{64 * 1024 * 1024}\n")
    assert host.memory(meminfo, limit).grade is Grade.WARN
    assert host.open_files().grade in (Grade.OK, Grade.WARN)


def test_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "hanse-agent.service"
    assert host.systemd(tmp_path / "none", [unit]).grade is Grade.OK
    assert host.systemd(tmp_path, [unit]).grade is Grade.WARN
    unit.write_text("[Service]\nKillMode=mixed\n")
    assert host.systemd(tmp_path, [unit]).grade is Grade.FAIL
    unit.write_text("[Service]\nKillMode=process\n")
    assert host.systemd(tmp_path, [unit]).grade is Grade.OK


# -- scheduler and GPUs ---------------------------------------------------------------------------


class Cluster(ProcessDriver):
    """What a scheduler would say."""

    class Pool:
        left, gpus = 1, 1

    pools = {"a100": Pool()}
    why = ""
    cores = 8

    def capacity(self) -> Capacity:
        if self.why:
            raise DriverFailed(self.why)
        return Capacity(self.cores, 10**9)

    def supply(self) -> Any:
        return self


def scheduled(folder: Path, **changes: Any) -> list[Finding]:
    config = a_config(folder)

    def make() -> Cluster:
        made = Cluster(root=folder, site="", settings=config.driver, clock=SystemClock())
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    return list(scheduler.scheduler_findings(config, make))


def test_the_scheduler_is_asked_what_it_has(tmp_path: Path) -> None:
    answers, pool = scheduled(tmp_path)
    assert (answers.grade, answers.text) == (Grade.OK, "process answers: 8 cores, 1 GB")
    assert (pool.grade, pool.check) == (Grade.WARN, "pool a100")
    assert "2 GPUs in the configuration, 1 on nodes that are up" in pool.text
    assert scheduled(tmp_path, pools={})[1].grade is Grade.WARN
    assert [f.grade for f in scheduled(tmp_path, cores=0)] == [Grade.FAIL]
    [away] = scheduled(tmp_path, why="slurmctld is away")
    assert (away.grade, "slurmctld is away" in away.text) == (Grade.FAIL, True)


def test_a_rehearsal_is_told(tmp_path: Path) -> None:
    config = a_config(tmp_path, driver={"kind": "fake"})
    driver = FakeDriver(clock=VirtualClock(), speeds={})
    [found] = scheduler.scheduler_findings(config, lambda: driver)
    assert found.grade is Grade.WARN


def test_gpus_without_library_or_driver_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    [found] = scheduler.gpu_findings(a_config(tmp_path))
    assert found.grade is Grade.OK
    assert "hanse[gpu]" in found.text


def test_gpus_by_the_library_itself(tmp_path: Path) -> None:
    """Where there is a driver the GPUs are counted, where there is none a sentence says so."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py (the extra `gpu`) is not installed")
    found = list(scheduler.gpu_findings(a_config(tmp_path)))
    assert [f.check for f in found] == ["gpus"]
    assert found[0].grade in (Grade.OK, Grade.WARN)
    assert "not looked at" in found[0].text or "driver" in found[0].text
