"""Sites with rules of their own, and one that leaves in mid-round: real processes throughout."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.realm import ran_alone

pytestmark = pytest.mark.slow


def agent(realm, name: str, *words: str) -> str:
    config = realm.home / name / "agent.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "agents", *words, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + realm.last_words()
    return done.stdout


def site_of(realm, job: str) -> list[str]:
    """Sites of a job's attempts, in their order."""
    rows = realm.rows(
        "SELECT l.job_id AS job, s.name AS site FROM federation_lease l "
        "JOIN federation_site s ON s.id = l.site_id ORDER BY l.attempt"
    )
    wanted = job.replace("-", "")
    return [row["site"] for row in rows if str(row["job"]).replace("-", "") == wanted]


def test_a_site_that_leaves_in_mid_round_loses_no_job_and_no_money(realm):
    r = realm(sites={"north": "alder", "south": "clover"})
    r.site("north", speed=2000.0, gpus=2)
    jobs = [r.submit(f"long-{n}", samples=9_000) for n in range(2)]
    for job in jobs:
        r.wait_for_samples(job, 1_000)
    r.site("south", speed=1000.0, gpus=2)

    assert agent(r, "north", "leave", "--reason", "its hall is closed").startswith("Left:")

    before = {job: r.job(job)["samples_done"] for job in jobs}
    for job in jobs:
        row = r.wait_for(job, "succeeded", patience_s=90)
        assert row["samples_done"] == 9_000 >= before[job] >= 1_000
        assert row["site_failures"] == 0
        places = site_of(r, job)  # a round may have moved it before
        assert (places[0], places[-1]) == ("north", "south")
        mine = [beat for beat in r.beats() if beat[0] in attempts(r, job)]
        assert len({attempt for attempt, _, _ in mine}) >= 2
        assert ran_alone(mine)
        with r.tenant as client:
            story = client.why(job)["story"]
        [left] = [line for line in story if line["code"] == "leaving"]
        assert "its hall is closed" in left["why"]
    r.settled()


def attempts(realm, job: str) -> set[str]:
    rows = realm.rows("SELECT id, job_id FROM federation_lease")
    wanted = job.replace("-", "")
    found = {str(row["id"]) for row in rows if str(row["job_id"]).replace("-", "") == wanted}
    return found | {_dashed(one) for one in found}


def _dashed(text: str) -> str:
    plain = text.replace("-", "")
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def test_a_refused_tenant_reads_why_runs_elsewhere_and_comes_back_when_the_rules_change(realm):
    r = realm(
        sites={"north": "alder", "south": "clover"}, tenants={"bob": "birch"}, venue={"round_s": 2}
    )
    home = r.home / "north"
    home.mkdir()
    rules = home / "policy.yaml"
    rules.write_text("tenants: {deny: [ann]}\npublish: false\n")
    r.site("north", speed=4000.0, gpus=2, policy="policy.yaml")
    r.site("south", speed=1000.0, gpus=2)

    first = r.submit("first", samples=3_000)
    r.wait_for(first, "succeeded")
    assert site_of(r, first) == ["north", "south"]
    with r.tenant as client:
        [refusal] = client.why(first)["refusals"]
    assert (refusal["site"], refusal["code"]) == ("north", "tenant_not_admitted")
    assert refusal["why"] == "this site takes no jobs of ann"

    second = r.submit("second", samples=1_000)
    others = r.submit("others", samples=1_000, tenant="bob")
    r.wait_for(second, "succeeded")
    r.wait_for(others, "succeeded")
    assert site_of(r, second) == ["south"]
    assert site_of(r, others) == ["north"]

    rules.write_text("tenants: {deny: [eve]}\n")
    r.wait(
        lambda: r.rows(
            "SELECT 1 FROM federation_offer WHERE state='active' AND rules LIKE '%eve%'"
        ),
        "the new rules on the market",
    )
    third = r.submit("third", samples=1_000)
    r.wait_for(third, "succeeded")
    assert site_of(r, third) == ["north"]
    rows = r.rows("SELECT end_reason FROM federation_lease WHERE state = 'declined'")
    assert [row["end_reason"] for row in rows] == ["vetoed_unannounced"]
    r.settled()
