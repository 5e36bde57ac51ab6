"""`docker-compose.yml`: well-formed, and its own commands run on a real PostgreSQL and Valkey."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import yaml

from broker.embedded import Child, free_port, wait_until
from broker.queues import queues
from tests.support.servers import Postgres, Valkey

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = ("migrate", "web", "worker", "beat")
#: keys of a service in the Compose specification, as far as this file uses them
SERVICE_KEYS = {
    *("build", "image", "restart", "init", "read_only", "tmpfs", "cap_drop", "security_opt"),
    *("environment", "command", "depends_on", "ports", "healthcheck", "volumes"),
}
CONDITIONS = {"service_healthy", "service_started", "service_completed_successfully"}


def test_the_file_is_well_formed():
    services = COMPOSE["services"]
    assert set(services) == {*OURS, "postgres", "redis"}
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_no_secret_stands_in_the_file_and_each_is_demanded():
    for key in ("HANSE_SECRET_KEY", "POSTGRES_PASSWORD"):
        uses = re.findall(rf"\$\{{{key}[^}}]*\}}", (ROOT / "docker-compose.yml").read_text())
        assert uses
        assert all(":?" in use for use in uses)


def test_only_loopback_is_published_and_nothing_runs_with_privileges():
    for name in OURS:
        service = COMPOSE["services"][name]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True


def test_the_overlay_that_pins_a_venue_leaves_no_queue_without_a_worker():
    overlay = yaml.safe_load((ROOT / "deploy" / "compose.pinned.yml").read_text())["services"]
    pins = {
        service["environment"]["HANSE_SOLVE_PINS"]
        for service in overlay.values()
        if "environment" in service
    }
    assert pins == {"main=main"}, "every process must know the same pins"
    taken: list[str] = []
    for service in overlay.values():
        for part in service.get("command", []):
            if part.startswith("--queues="):
                taken += part.removeprefix("--queues=").split(",")
        if "extends" in service:
            assert service["extends"]["service"] in COMPOSE["services"]
    everything = [queue.name for queue in queues(count=4, pins={"main": "main"})]
    assert sorted(taken) == sorted(everything)


def command_of(name: str, port: int, scratch: Path) -> list[str]:
    """The service's own command, on this machine's Python, port and scratch folder."""
    command = [
        re.sub(r"\$\{[^:}]+:-([^}]*)\}", r"\1", part)
        for part in COMPOSE["services"][name]["command"]
    ]
    program = Path(sys.executable).with_name(command[0])
    command[0] = str(program) if program.exists() else command[0]
    swaps = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=8400": f"--port={port}"}
    swaps["--schedule=/tmp/beat"] = f"--schedule={scratch / 'beat'}"
    return [swaps.get(part, part) for part in command]


@pytest.mark.slow
def test_the_file_s_own_commands_run(tmp_path):
    postgres, valkey = Postgres(), Valkey()
    postgres.create()
    postgres.start()
    valkey.start()
    port = free_port()
    wanted: dict[str, Any] = COMPOSE["services"]["web"]["environment"]
    env = {
        **os.environ,
        **dict.fromkeys(wanted, ""),
        "DJANGO_SETTINGS_MODULE": wanted["DJANGO_SETTINGS_MODULE"],
        "HANSE_SECRET_KEY": "a key for this test only, long enough for Django's checks 0123456789",
        "HANSE_DATABASE_URL": postgres.url,
        "HANSE_REDIS_URL": valkey.url,
        "HANSE_ALLOWED_HOSTS": "127.0.0.1",
        "HANSE_STATIC_ROOT": str(tmp_path / "static"),
        "HANSE_SSL_REDIRECT": "false",
        "HANSE_TICK_S": "0.3",
    }
    env.pop("HANSE_TRUSTED_ORIGINS")
    children: list[Child] = []
    try:
        for arguments in (
            command_of("migrate", port, tmp_path),
            [sys.executable, "-m", "django", "collectstatic", "--noinput", "-v", "0"],
        ):
            done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        for name in ("web", "worker", "beat"):
            child = Child(name, command_of(name, port, tmp_path), env, tmp_path / f"{name}.log")
            child.start()
            children.append(child)

        def ready() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except httpx.HTTPError:
                return False

        def ticked() -> bool:
            connection = psycopg2.connect(postgres.url.replace("postgres://", "postgresql://"))
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT COUNT(*) FROM federation_pulse")
                    return cursor.fetchone() == (2,)
            finally:
                connection.close()

        wait_until(ready, what="the web service", patience_s=60, children=children)
        wait_until(ticked, what="beat and worker", patience_s=60, children=children)
    finally:
        for child in children:
            child.stop()
        valkey.stop()
        postgres.remove()
