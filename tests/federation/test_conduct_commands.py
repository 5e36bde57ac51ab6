"""`hanse conduct` and the ticks: the watch, owners and another probe, from outside."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from broker import tasks
from broker.commands import app
from federation.models import Alarm, Member, Rules, SiteRecord
from federation.services.guard import claims_review
from federation.services.jobs import job_cancel
from tests.federation.test_guard import measured, run_one
from tests.support.world import a_job, a_site, a_tenant, a_venue, later

pytestmark = pytest.mark.django_db


def run(*arguments):
    return CliRunner().invoke(app, ["conduct", *arguments])


def test_an_owner_is_set_and_taken_back():
    a_site("north")
    told = run("owner", "alder", "grove")
    assert (told.exit_code, told.stdout) == (0, "grove stands behind alder.\n")
    assert Member.objects.get(name="alder").owner == "grove"
    run("owner", "alder", "alder")
    assert Member.objects.get(name="alder").owner == ""
    assert run("owner", "nobody", "grove").exit_code == 1


def test_what_the_watch_sees_is_json():
    a_venue()
    told = run("show", "--days", "1")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["rings"]["gross_micro"] == 0


def test_a_claim_that_waits_is_probed_once_more():
    site = a_site("north", speeds={"cnn": 1000.0})
    refused = run("probe", "north.gpu", "cnn")
    assert (refused.exit_code, "not_found" in refused.output) == (1, True)
    measured(site, speed=400.0, leases=9)
    [alarm] = claims_review(venue=a_venue(), now=later(1))
    Alarm.objects.filter(pk=alarm.pk).update(figures={**alarm.figures, "probe": "had one"})
    assert run("probe", "north.gpu", "cnn").exit_code == 0
    assert "probe" not in Alarm.objects.get().figures
    assert run("probe", "nowhere", "cnn").exit_code == 1


def test_the_ticks_refit_records_give_earnest_money_back_and_review_conduct():
    site = a_site("north", speeds={"cnn": 1000.0})
    tenant = a_tenant("ann")
    run_one(site, a_job(tenant), 20)
    Rules.objects.create(
        venue=a_venue(), version=2, actor="test", why="a test", earnest_ppm=100_000,
        created_at=later(60),
    )  # fmt: skip
    job = a_job(tenant, now=later(61))
    job_cancel(job=job, actor="test", now=later(62))
    old = Alarm.objects.create(
        kind="ring", about="main: elm → oak → elm", why="a test", created_at=later(0)
    )
    tasks.tick_affinity()
    assert SiteRecord.objects.get(site=site).contracts == 1
    tasks.tick_clocks()
    job.refresh_from_db()
    assert job.earnest_micro == 0
    tasks.tick_housekeeping()
    old.refresh_from_db()
    assert old.closed_by == "broker"
