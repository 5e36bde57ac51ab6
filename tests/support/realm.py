"""A whole federation of real processes for one test: broker, worker, agents, jobs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import yaml

from broker.embedded import Child, Federation, free_port
from hanse.client import Client

STEADY = Path(__file__).with_name("steady.py")
PATIENCE_S = 60.0
VENUE = {
    "round_s": 2.0,
    "renew_s": 2.0,
    "fence_s": 60.0,
    "fence_margin_s": 2.0,
    "grace_s": 2.0,
    "restart_s": 1.0,
    "probe_s": 2.0,
    "solve_patience_s": 5.0,
}


class Realm:
    """Start with `furnish`, `start` and `site`; everything is stopped by `close`."""

    def __init__(self, home: Path, *, settings: str = "broker.settings.dev", **env: str) -> None:
        self.home = home
        extra = {"HANSE_TICK_S": "0.3", "HANSE_PULSE_GAP_S": "3", "HANSE_RATE_USER": "100000/min"}
        self.federation = Federation(
            home / "broker", free_port(), settings=settings, extra_env={**extra, **env}
        )
        self.agents: dict[str, Child] = {}
        self.witness = home / "witness"
        self.tokens: dict[str, dict[str, str]] = {}
        home.mkdir(parents=True, exist_ok=True)
        self.federation.__enter__()

    def furnish(
        self,
        *,
        sites: dict[str, str],
        venue: dict[str, Any] | None = None,
        tenants: dict[str, str] | None = None,
    ) -> None:
        """Tables, a venue, members, sites, a tenant `ann` of member birch, class `steady`."""
        self.federation.migrate()
        wish = {
            "venue": {**VENUE, **(venue or {})},
            "sites": sites,
            "tenants": {"ann": "birch", **(tenants or {})},
            "classes": ["steady", "other"],
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.furnish", json.dumps(wish)],
            env=self.federation.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.tokens = json.loads(done.stdout.splitlines()[-1])

    def start(self) -> None:
        if self.federation.settings.endswith("prod"):
            self.federation.manage("collectstatic", "--noinput", "--verbosity", "0")
        self.federation.start()

    @property
    def tenant(self) -> Client:
        return self.client("ann")

    def client(self, tenant: str) -> Client:
        return Client(self.federation.url, self.tokens["api"][tenant])

    def agent_yaml(self, name: str, *, speed: float, gpus: int, port: int, **more: Any) -> Path:
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        path = folder / "agent.yaml"
        config = {
            "broker": f"http://127.0.0.1:{port}",
            "state": str(folder / "state"),
            "pools": [{"name": "gpu", "gpu": "sim", "gpus": gpus, "reserve": "100"}],
            "classes": {"steady": {"samples_per_s": {"gpu": speed}}},
            "driver": {"kind": "process", "work": str(folder / "work"), "threads_per_gpu": 1},
            "sync": {"wait_s": 0.3, "gap_s": 0.1, "report_s": 0.3, "tick_s": 0.1},
            "grace_s": 5,
            **more,
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def site(
        self,
        name: str,
        *,
        speed: float = 1000.0,
        gpus: int = 1,
        port: int | None = None,
        **more: Any,
    ) -> Child:
        """Enrol and start an agent; returns when its offer is on the market.

        `more`: further keys of its configuration.
        """
        port = port or self.federation.port
        config = self.agent_yaml(name, speed=speed, gpus=gpus, port=port, **more)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "agents", "join", f"http://127.0.0.1:{port}"),
                *(self.tokens["join"][name], "--config", str(config)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        child = self.agent(name, config)
        child.start()
        self.wait(
            lambda: self.rows(
                "SELECT 1 FROM federation_offer o JOIN federation_site s ON s.id = o.site_id "
                f"WHERE o.state = 'active' AND s.state = 'online' AND s.name = '{name}'"
            ),
            f"the offer of {name}",
        )
        return child

    def agent(self, name: str, config: Path, *prefix: str) -> Child:
        command = [sys.executable, *(prefix or ("-m", "agents")), "run", "--config", str(config)]
        child = Child(f"agent {name}", command, dict(os.environ), self.home / f"{name}.log")
        self.agents[name] = child
        return child

    def submit(self, name: str, *, tenant: str = "ann", **fields: Any) -> str:
        """Send one steady job to market; returns its id."""
        with self.client(tenant) as client:
            return client.submit(self.draft(name, **fields))["id"]

    def draft(
        self, name: str, *, samples: int, rate: float = 1000.0, **fields: Any
    ) -> dict[str, Any]:
        """The body of a submission."""
        return {
            "name": name,
            "job_class": "steady",
            "command": f"exec {sys.executable} {STEADY} {rate} {self.witness}",
            "gpus": [1],
            "samples": samples,
            "value": "1000",
            "max_cost": "100000",
            "max_runtime_s": 300,
            "grace_s": 2,
            **fields,
        }

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Read the broker's database, past all of its code."""
        url = self.federation.env.get("HANSE_DATABASE_URL", "")
        if url.startswith("postgres"):
            connection = psycopg2.connect(url.replace("postgres://", "postgresql://"))
            try:
                with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                    cursor.execute(sql)
                    return [dict(row) for row in cursor.fetchall()]
            finally:
                connection.close()
        database = sqlite3.connect(f"file:{self.federation.home}/hanse.sqlite3?mode=ro", uri=True)
        database.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in database.execute(sql).fetchall()]
        finally:
            database.close()

    def job(self, job_id: str) -> dict[str, Any]:
        key = job_id
        if "sqlite" in self.federation.settings or not self.federation.env.get(
            "HANSE_DATABASE_URL"
        ):
            key = job_id.replace("-", "")
        [row] = self.rows(f"SELECT * FROM federation_job WHERE id = '{key}'")
        return row

    def wait(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Look until `condition` is true; fails with every process's last words."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                found = condition()
            except (sqlite3.OperationalError, psycopg2.OperationalError):
                found = None  # the database is being made, or away
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come about\n{self.last_words()}")
            time.sleep(0.05)

    def wait_for(self, job_id: str, *states: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        self.wait(lambda: self.job(job_id)["state"] in states, f"{job_id} in {states}", patience_s)
        return self.job(job_id)

    def wait_for_samples(self, job_id: str, count: int) -> None:
        self.wait(lambda: self.job(job_id)["samples_done"] >= count, f"{count} samples")

    def last_words(self) -> str:
        children = [*self.federation.children, *self.agents.values()]
        tails = [f"--- {c.name}\n{c.last_lines(12)}" for c in children]
        jobs = self.rows("SELECT name, state, reason, outcome_why FROM federation_job")
        return "\n".join([*tails, *(str(j) for j in jobs)])

    def beats(self) -> list[tuple[str, float, int]]:
        """What the jobs themselves witnessed: (attempt, time of day, samples)."""
        if not self.witness.exists():
            return []
        lines = [line.split() for line in self.witness.read_text().splitlines()]
        return [(a, float(t), int(n)) for a, t, n in lines]

    def settled(self) -> None:
        """Wait until every contract is paid, then hold the ledger to its word."""
        self.wait(
            lambda: (
                not self.rows(
                    "SELECT 1 FROM federation_contract "
                    "WHERE state NOT IN ('settled', 'final', 'voided')"
                )
            ),
            "every contract settled",
        )
        [total] = self.rows("SELECT SUM(amount_micro) AS s FROM federation_entry")
        assert int(total["s"]) == 0
        assert not self.rows(
            "SELECT group_id FROM federation_entry GROUP BY group_id HAVING SUM(amount_micro) <> 0"
        )
        assert not self.rows(
            "SELECT a.id FROM federation_account a LEFT JOIN federation_entry e "
            "ON e.account_id = a.id GROUP BY a.id, a.balance_micro "
            "HAVING COALESCE(SUM(e.amount_micro), 0) <> a.balance_micro"
        )
        assert not self.rows("SELECT id FROM federation_job WHERE held_micro <> 0")

    @property
    def worker(self) -> Child:
        return next(child for child in self.federation.children if child.name == "worker")

    def solvers(self) -> list[int]:
        """Process ids of the solvers of this realm's workers."""
        groups = {c.process.pid for c in self.federation.children if c.process is not None}
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _is_solver(entry, groups)
        ]

    def kill(self, child: Child) -> None:
        """`kill -9`, the process alone: what it started lives on."""
        assert child.process is not None
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait()

    def close(self) -> None:
        for child in self.agents.values():
            child.stop()
        self.federation.__exit__(None, None, None)


def _is_solver(entry: Path, groups: set[int]) -> bool:
    """A `python -m broker.solving` of one of these process groups, as /proc tells it."""
    try:
        command = (entry / "cmdline").read_bytes().split(b"\0")
        group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
    except (FileNotFoundError, ProcessLookupError):
        return False  # it ended meanwhile
    return command[1:3] == [b"-m", b"broker.solving"] and group in groups


def ran_alone(beats: list[tuple[str, float, int]]) -> bool:
    """True when no two attempts were ever alive at once."""
    spans: dict[str, tuple[float, float]] = {}
    for attempt, at, _ in beats:
        first, last = spans.get(attempt, (at, at))
        spans[attempt] = (min(first, at), max(last, at))
    ordered = sorted(spans.values())
    return all(a[1] < b[0] for a, b in pairwise(ordered))
