"""Faults with real processes: nothing lost, nothing run twice, money sums to zero."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.proxy import Proxy
from tests.support.realm import ran_alone

pytestmark = pytest.mark.slow


def leases(realm, columns="state, attempt, site_id"):
    return realm.rows(f"SELECT {columns} FROM federation_lease ORDER BY created_at")


def test_an_agent_killed_in_mid_job_adopts_it_again_and_every_report_counts_once(realm):
    r = realm(sites={"north": "alder"})
    agent = r.site("north")
    job = r.submit("long", samples=12_000)
    r.wait_for_samples(job, 2_000)

    for _ in range(3):
        r.kill(agent)
        beats = len(r.beats())
        r.wait(lambda seen=beats: len(r.beats()) > seen + 5, "the job to go on without its agent")
        agent = r.agent("north", r.home / "north" / "agent.yaml")
        agent.start()
        done = r.job(job)["samples_done"]
        r.wait_for_samples(job, min(done + 500, 12_000))

    row = r.wait_for(job, "succeeded")
    assert row["samples_done"] == 12_000
    assert len(leases(r)) == 1
    assert len({attempt for attempt, _, _ in r.beats()}) == 1
    r.settled()
    [lease] = leases(r, "reports_stored, reports_highest, end_seq, samples")
    assert lease["reports_stored"] == lease["reports_highest"] == lease["end_seq"]
    assert lease["samples"] == 12_000
    [sums] = r.rows("SELECT SUM(delivered) AS d FROM federation_contract")
    assert sums["d"] == 12_000


def test_a_broker_away_for_ten_renewal_periods_kills_no_job_and_restarts_the_clocks(realm):
    renew_s = 2.5
    r = realm(sites={"north": "alder"}, venue={"renew_s": renew_s, "fence_s": 90.0})
    r.site("north")
    job = r.submit("long", samples=42_000)
    r.wait_for_samples(job, 1_000)

    r.federation.stop()
    away = len(r.beats())
    r.wait(lambda: len(r.beats()) > away + 10 * 10 * renew_s, "ten periods without a broker")
    r.start()

    row = r.wait_for(job, "succeeded", patience_s=90)
    assert (row["attempts"], row["site_failures"], row["samples_done"]) == (1, 0, 42_000)
    assert len(leases(r)) == 1
    assert len({attempt for attempt, _, _ in r.beats()}) == 1
    # the first tick found a sync ten periods old and yet called nobody silent
    events = {e["event"] for e in r.rows("SELECT event FROM federation_event")}
    assert not events & {"fence", "requeue", "silence"}
    r.settled()


def test_a_site_cut_off_past_its_fence_stops_the_job_itself_and_only_then_it_runs_elsewhere(realm):
    r = realm(sites={"north": "alder", "south": "clover"}, venue={"renew_s": 2.0, "fence_s": 6.0})
    proxy = Proxy(r.federation.port)
    r.site("north", speed=2000.0, port=proxy.port)
    job = r.submit("long", samples=15_000)
    r.wait_for_samples(job, 1_000)
    r.site("south", speed=2000.0)  # as good: nothing is gained by moving back to north

    proxy.cut()
    r.wait(lambda: r.job(job)["state"] == "recovering", "silence noticed")
    assert len(leases(r)) == 1  # silent is not lost: nothing is placed elsewhere yet
    r.wait(lambda: len(leases(r)) == 2, "a second attempt")
    r.wait_for_samples(job, r.job(job)["samples_done"] + 500)
    proxy.mend()
    r.wait(
        lambda: r.rows("SELECT 1 FROM federation_site WHERE name='north' AND state='online'"),
        "north back",
    )

    r.wait_for(job, "succeeded")
    beats = r.beats()
    assert len({attempt for attempt, _, _ in beats}) == 2
    assert ran_alone(beats), "two attempts were alive at the same time"
    first, second = leases(r, "state, end_reason")
    assert (first["state"], second["state"]) == ("fenced", "done")
    r.settled()
    proxy.close()


def test_the_fence_holds_although_the_agent_is_dead(realm):
    r = realm(sites={"north": "alder", "south": "clover"}, venue={"renew_s": 2.0, "fence_s": 6.0})
    agent = r.site("north", speed=2000.0)
    job = r.submit("long", samples=12_000)
    r.wait_for_samples(job, 500)
    r.site("south", speed=1000.0)
    r.kill(agent)
    r.wait_for(job, "succeeded")
    assert len({attempt for attempt, _, _ in r.beats()}) == 2
    assert ran_alone(r.beats())
    r.settled()


def test_a_worker_killed_in_mid_solve_has_its_round_taken_over(realm):
    r = realm(sites={"north": "alder"}, venue={"round_s": 3.0, "solve_patience_s": 4.0})
    r.site("north", gpus=16)
    worker = next(c for c in r.federation.children if c.name == "worker")
    os.kill(worker.process.pid, signal.SIGSTOP)  # so that the book fills before it is frozen
    for i in range(60):
        r.submit(f"j{i:02d}", samples=2_000, gpus=[1, 2, 3, 4], value=str(300 + i))
    os.kill(worker.process.pid, signal.SIGCONT)
    r.wait(
        lambda: r.rows("SELECT 1 FROM federation_round WHERE state = 'solving'"),
        "a worker in mid-solve",
    )
    worker.signal(signal.SIGKILL)
    worker.process.wait()
    [round] = r.rows("SELECT number, state, claims FROM federation_round WHERE state = 'solving'")
    assert round["claims"] == 1
    assert not r.rows("SELECT 1 FROM federation_assignment")
    worker.start()

    def decided():
        return r.rows(
            "SELECT claims, certified FROM federation_round WHERE state IN "
            f"('published', 'settled') AND number = {round['number']}"
        )

    [taken] = r.wait(decided, "the round decided by the next worker")
    assert taken["claims"] == 2
    assert taken["certified"]
    stories = r.rows("SELECT code FROM federation_event WHERE subject='round' AND event='claim'")
    assert "taken_over" in {s["code"] for s in stories}
    doubles = r.rows(
        "SELECT job_id FROM federation_assignment "
        f"WHERE round_id IN (SELECT id FROM federation_round WHERE number = {round['number']}) "
        "GROUP BY job_id HAVING COUNT(*) > 1"
    )
    assert not doubles


def test_an_agent_whose_clock_is_an_hour_wrong_works_as_any_other(realm):
    r = realm(sites={"north": "alder"})
    agent = r.site("north")
    agent.stop()
    config = r.home / "north" / "agent.yaml"
    wrong = (
        "-c",
        "import sys, datetime as d, agents.clock as c; "
        "c.SystemClock.wall = lambda self: d.datetime.now(d.UTC) + d.timedelta(hours=1); "
        "from agents.cli import app; app()",
    )
    r.agent("north", config, *wrong).start()
    job = r.submit("any", samples=3_000)
    r.wait_for(job, "succeeded")
    [site] = r.rows("SELECT clock_skew_s, state FROM federation_site")
    assert 3500 < site["clock_skew_s"] < 3700
    assert site["state"] == "online"
    assert len(leases(r)) == 1
    r.settled()


def test_every_process_killed_at_once_and_started_again_loses_nothing(realm):
    r = realm(sites={"north": "alder"})
    agent = r.site("north", gpus=2)
    jobs = [r.submit(f"j{i}", samples=6_000) for i in range(3)]
    r.wait_for_samples(jobs[0], 500)
    for child in [*r.federation.children, agent]:
        child.process.send_signal(signal.SIGKILL)
        child.process.wait()
        if child is not agent:
            child.signal(signal.SIGKILL)
    r.federation.children = []
    r.start()
    r.agent("north", r.home / "north" / "agent.yaml").start()
    for job in jobs:
        assert r.wait_for(job, "succeeded")["samples_done"] == 6_000
    r.settled()
