"""Solvers and fan-out with real processes: killed, stopped, pinned, several venues at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.embedded import Child
from tests.support.realm import Realm
from tests.support.servers import Postgres, Valkey

pytestmark = pytest.mark.slow
PATIENCE = {"round_s": 3.0, "solve_patience_s": 5.0}


def rounds(realm: Realm, *states: str) -> list[dict[str, Any]]:
    names = ", ".join(f"'{state}'" for state in states)
    return realm.rows(
        "SELECT number, state, void_code, claims, certified FROM federation_round "
        f"WHERE state IN ({names}) ORDER BY number"
    )


def signal_solvers(realm: Realm, number: int) -> list[int]:
    """Send a signal to both solvers of the embedded worker, once they are there."""
    found = realm.wait(lambda: len(realm.solvers()) == 2 and realm.solvers(), "two solvers")
    for pid in found:
        os.kill(pid, number)
    return list(found)


def a_stuck_round(realm: Realm) -> list[int]:
    """A round whose solver stands still in the middle of it. Returns the solvers."""
    realm.site("north", gpus=4)
    realm.submit("j", samples=60_000)
    realm.wait(lambda: rounds(realm, "published", "settled"), "a first round: solvers are warm")
    stopped = signal_solvers(realm, signal.SIGSTOP)
    realm.wait(lambda: rounds(realm, "solving"), "a round in the middle of its solve")
    return stopped


def test_a_solver_killed_in_mid_round_voids_it_and_the_next_round_is_decided(realm):
    r = realm(sites={"north": "alder"}, venue=PATIENCE)
    stopped = a_stuck_round(r)
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    [void] = r.wait(lambda: rounds(r, "void"), "the void round")
    assert (void["void_code"], void["claims"]) == ("solver_died", 1)

    def later() -> list[dict[str, Any]]:
        return [x for x in rounds(r, "published", "settled") if x["number"] > void["number"]]

    [after] = r.wait(later, "the next round")[:1]
    assert after["certified"]
    assert r.worker.running()
    assert not set(stopped) & set(r.solvers())


def test_a_solver_that_stands_still_is_killed_from_outside_and_the_round_still_ends(realm):
    r = realm(sites={"north": "alder"}, venue=PATIENCE)
    stopped = a_stuck_round(r)
    [void] = r.wait(lambda: rounds(r, "void"), "the void round")[:1]
    assert (void["void_code"], void["claims"]) == ("solver_timed_out", 1)
    r.wait(lambda: not set(stopped) <= set(r.solvers()), "the end of the solver that stood still")
    for pid in set(stopped) & set(r.solvers()):
        os.kill(pid, signal.SIGCONT)
    good = len(rounds(r, "published", "settled"))
    r.wait(lambda: len(rounds(r, "published", "settled")) > good, "the next round")


def test_no_solver_outlives_its_worker(realm):
    r = realm(sites={"north": "alder"}, venue=PATIENCE)
    old = r.wait(lambda: len(r.solvers()) == 2 and r.solvers(), "two solvers")
    r.kill(r.worker)  # the parent of the worker's processes, alone
    r.worker.signal(signal.SIGKILL)
    r.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old), "their end")


TENANTS = {f"tenant-{n:02d}": "birch" for n in range(16)}


def ask(realm: Realm, method: str, path: str, tenant: str = "ann", **body: Any) -> httpx.Response:
    token = realm.tokens["api"][tenant]
    return httpx.request(
        method,
        f"{realm.federation.url}/api/v1{path}",
        headers={"Authorization": f"Bearer {token}"},
        json=body or None,
        timeout=30,
    )


def studies(realm: Realm, kind: str, state: str) -> list[dict[str, Any]]:
    return realm.rows(
        "SELECT claims, finished_at FROM federation_study "
        f"WHERE kind = '{kind}' AND state = '{state}'"
    )


def test_a_worker_killed_in_the_middle_of_a_fan_out_costs_time_only(realm):
    r = realm(
        sites={"north": "alder"},
        tenants=TENANTS,
        venue=PATIENCE,
        HANSE_STUDY_SHARE="0",
    )
    r.site("north", gpus=len(TENANTS))
    os.kill(r.worker.process.pid, signal.SIGSTOP)  # so that the book fills before it is frozen
    for name in TENANTS:
        r.submit(f"{name}-job", tenant=name, samples=2_000)
    os.kill(r.worker.process.pid, signal.SIGCONT)
    published = r.wait(lambda: rounds(r, "published", "settled"), "the round")[0]
    path = f"/rounds/{published['number']}/contributions"
    assert ask(r, "POST", path).status_code == 202

    r.wait(lambda: studies(r, "contribution", "done"), "the first contribution")
    r.worker.signal(signal.SIGKILL)
    r.worker.process.wait()
    done = len(studies(r, "contribution", "done"))
    assert 0 < done < len(TENANTS)
    assert not studies(r, "report", "done")
    first = {row["finished_at"] for row in studies(r, "contribution", "done")}
    r.worker.start()

    r.wait(lambda: studies(r, "report", "done"), "the report")
    after = studies(r, "contribution", "done")
    assert len(after) == len(TENANTS)
    assert first <= {row["finished_at"] for row in after}  # what was done was not done again
    [row] = ask(r, "GET", path, "tenant-07").json()["tenants"]
    assert row["tenant"] == "tenant-07"
    assert float(row["marginal"]) >= float(row["at_least"])

    draft = r.draft("what-if", samples=1_000, value="5000")
    told = ask(r, "POST", "/quotes", **draft)
    assert told.status_code == 202
    quote = told.headers["Location"].removeprefix("/api/v1")
    r.wait(lambda: ask(r, "GET", quote).json()["state"] == "DONE", "the quote")
    assert ask(r, "GET", quote).json()["answer"]["runs"]


def test_rounds_of_two_venues_are_solved_at_the_same_time(realm):
    r = realm(sites={"north": "alder"}, venue={"round_s": 3.0, "solve_patience_s": 60.0})
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.second_venue"],
        env=r.federation.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    r.site("north", gpus=4)
    r.submit("j", samples=60_000)

    def published() -> int:
        return len(
            r.rows(
                "SELECT DISTINCT venue_id FROM federation_round "
                "WHERE state IN ('published', 'settled')"
            )
        )

    r.wait(lambda: published() == 2, "a first round in each venue: both solvers are warm")
    stopped = signal_solvers(r, signal.SIGSTOP)
    r.wait(lambda: len(rounds(r, "solving")) == 2, "two rounds in the middle of their solves")
    before = len(rounds(r, "published", "settled"))
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    r.wait(lambda: len(rounds(r, "published", "settled")) >= before + 2, "both rounds")
    assert not rounds(r, "void")


def test_rounds_of_a_pinned_venue_wait_for_its_own_worker(realm, tmp_path):
    postgres, valkey = Postgres(), Valkey()
    postgres.create()
    postgres.start()
    valkey.start()
    try:
        r = realm(
            sites={"north": "alder"},
            settings="broker.settings.prod",
            HANSE_DATABASE_URL=postgres.url,
            HANSE_REDIS_URL=valkey.url,
            HANSE_SECRET_KEY="a key for this test only, long enough for Django's checks 0123456789",
            HANSE_SSL_REDIRECT="false",
            HANSE_STATIC_ROOT=str(tmp_path / "static"),
            HANSE_SOLVE_PINS="main=big",
        )
        # the embedded worker takes everything: it is replaced by two with queues of their own
        r.worker.stop()
        others = r.worker
        others.command = [*others.command, "--queues=hanse,studies"]
        others.start()
        r.site("north", gpus=2)
        job = r.submit("j", samples=1_000)
        r.wait(lambda: rounds(r, "closed"), "a round that nobody may solve")
        ticks = "SELECT last_at AS at FROM federation_pulse WHERE name = 'ticks'"
        [before] = r.rows(ticks)
        r.wait(lambda: r.rows(ticks)[0]["at"] > before["at"], "another look at what is due")
        assert rounds(r, "closed")
        pinned = Child(
            "pinned",
            [
                *(sys.executable, "-m", "celery", "--app=broker.celery", "--quiet", "worker"),
                *("--queues=solve-big", "--pool=solo", "--loglevel=WARNING"),
            ],
            r.federation.env,
            tmp_path / "pinned.log",
        )
        pinned.start()
        r.federation.children.append(pinned)
        r.wait_for(job, "succeeded")
    finally:
        for old in [*r.agents.values(), *r.federation.children]:
            old.stop()
        valkey.stop()
        postgres.remove()
