"""The same processes under production settings, on a real PostgreSQL and a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.servers import Postgres, Valkey

pytestmark = pytest.mark.slow


@pytest.fixture
def servers() -> Iterator[tuple[Postgres, Valkey]]:
    postgres, valkey = Postgres(), Valkey()
    postgres.create()
    postgres.start()
    valkey.start()
    yield postgres, valkey
    valkey.stop()
    postgres.remove()


@pytest.fixture
def production(realm, servers, tmp_path):
    """A realm on PostgreSQL and Valkey; plain HTTP on loopback stands for the TLS proxy."""
    postgres, valkey = servers

    def make(**wish):
        return realm(
            settings="broker.settings.prod",
            HANSE_DATABASE_URL=postgres.url,
            HANSE_REDIS_URL=valkey.url,
            HANSE_SECRET_KEY="a key for this test only, long enough for Django's checks 0123456789",
            HANSE_SSL_REDIRECT="false",
            HANSE_STATIC_ROOT=str(tmp_path / "static"),
            **wish,
        )

    return make


def test_the_story_on_postgresql_and_valkey(production):
    r = production(sites={"north": "alder", "south": "clover"})
    r.site("north", speed=1500.0)
    r.site("south", speed=1000.0)
    jobs = [r.submit(f"j{i}", samples=3_000) for i in range(4)]
    for job in jobs:
        row = r.wait_for(job, "succeeded")
        assert row["samples_done"] == 3_000
    rounds = r.rows("SELECT certified FROM federation_round WHERE state IN ('published','settled')")
    assert rounds
    assert all(round["certified"] for round in rounds)
    r.settled()
    base = r.federation.url
    assert httpx.get(f"{base}/healthz").json() == {"status": "alive"}
    assert httpx.get(f"{base}/readyz").json() == {"status": "ready"}
    assert httpx.get(f"{base}/api/docs").status_code == 200
    assert httpx.get(f"{base}/admin/login/").status_code == 200


def test_a_restart_of_the_database_in_mid_job_loses_nothing(production, servers):
    postgres, _ = servers
    r = production(sites={"north": "alder"})
    r.site("north", gpus=2)
    jobs = [r.submit(f"j{i}", samples=9_000) for i in range(2)]
    for job in jobs:
        r.wait_for_samples(job, 1_000)
    for _ in range(2):
        postgres.stop("immediate")
        beats = len(r.beats())
        r.wait(lambda seen=beats: len(r.beats()) > seen + 20, "work without a database")
        postgres.start()
        done = r.job(jobs[0])["samples_done"]
        r.wait_for_samples(jobs[0], min(done + 300, 9_000))
    for job in jobs:
        row = r.wait_for(job, "succeeded")
        assert (row["samples_done"], row["attempts"]) == (9_000, 1)
    assert len({attempt for attempt, _, _ in r.beats()}) == 2
    r.settled()


def test_a_queue_that_is_lost_costs_a_tick_and_nothing_else(production, servers):
    _, valkey = servers
    r = production(sites={"north": "alder"})
    r.site("north")
    job = r.submit("j", samples=4_000)
    r.wait_for_samples(job, 500)
    port = valkey.port
    valkey.stop()  # everything queued is gone
    valkey.port = port
    valkey.start()
    worker = next(c for c in r.federation.children if c.name == "worker")

    def ended(job_id):
        if not worker.running():
            worker.start()  # it ends a while after its queue: whoever watches over it starts it
        return r.job(job_id)["state"] == "succeeded"

    r.wait(lambda: ended(job), "the end of the first job")
    assert r.job(job)["samples_done"] == 4_000
    second = r.submit("k", samples=500)
    r.wait(lambda: ended(second), "the end of the second job")
    r.settled()
