"""A held sync, against the real application behind a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.utils import timezone

from broker.gateway.doorbell import Doorbell
from federation.models import Lease, Site
from federation.services.access import credentials_revoke
from tests.broker.api_world import (
    a_running_job,
    a_site_now,
    a_sync,
    an_agent_of,
    problem,
    serving,
)
from tests.support import world

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
LONG_S = 40.0
PATIENCE_S = 15.0


class Watched(Doorbell):
    """The doorbell itself; it only tells that somebody began to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)

    async def wait(self, site_id: Any, version: int, timeout_s: float) -> bool:
        self.waiting.release()
        return await super().wait(site_id, version, timeout_s)


class Gateway:
    """One agent's calls, some of them held."""

    def __init__(self, url: str, bell: Watched, threads: ThreadPoolExecutor) -> None:
        self.url = url
        self.bell = bell
        self.threads = threads

    def sync(self, token: str, **changes: Any) -> httpx.Response:
        return httpx.post(
            self.url + "/gateway/v1/sync",
            json=a_sync(**changes),
            headers={"Authorization": f"Bearer {token}"},
            timeout=LONG_S + PATIENCE_S,
            trust_env=False,
        )

    def hold(self, token: str, **changes: Any) -> Future[httpx.Response]:
        """A sync with nothing new for it; returns once the broker holds it."""
        seen = self.sync(token, **changes).json()["orders"]
        held = self.threads.submit(self.sync, token, orders_seen=seen, wait_s=LONG_S, **changes)
        assert self.bell.waiting.acquire(timeout=PATIENCE_S)
        assert not held.done()
        return held


@pytest.fixture
def gateway(monkeypatch) -> Iterator[Gateway]:
    bell = Watched()
    monkeypatch.setattr("broker.gateway.views.doorbell", lambda: bell)
    with serving() as url, ThreadPoolExecutor(4) as threads:
        yield Gateway(url, bell, threads)


def test_a_held_sync_returns_as_soon_as_there_is_a_lease(gateway):
    site = a_site_now("north")
    held = gateway.hold(an_agent_of(site).token)

    lease = a_running_job(world.a_tenant("ann"), site)

    [order] = held.result(PATIENCE_S).json()["leases"]
    assert order["attempt"] == str(lease.pk)


def test_a_held_sync_returns_as_soon_as_a_lease_is_asked_back(gateway):
    from federation.services.jobs import job_cancel

    site = a_site_now("north")
    lease = a_running_job(world.a_tenant("ann"), site)
    listed = [{"attempt": str(lease.pk), "state": "running"}]
    token = an_agent_of(site).token
    gateway.sync(token)
    held = gateway.hold(token, attempts=listed)

    job_cancel(job=lease.job, actor="test", now=timezone.now())

    [revoke] = held.result(PATIENCE_S).json()["revokes"]
    assert (revoke["attempt"], revoke["code"]) == (str(lease.pk), "cancelled")


def test_only_the_site_whose_orders_changed_is_woken(gateway):
    north, south = a_site_now("north"), a_site_now("south", speeds={})
    woken = gateway.hold(an_agent_of(north).token)
    sleeping = gateway.hold(an_agent_of(south).token, boot="south.1")

    a_running_job(world.a_tenant("ann"), north)

    assert woken.result(PATIENCE_S).json()["leases"]
    assert not sleeping.done()
    Site.objects.filter(pk=south.pk).update(orders_version=99)  # let it go
    assert sleeping.result(PATIENCE_S).json()["leases"] == []


def test_a_sync_is_held_for_its_time_while_nothing_changes(gateway):
    token = an_agent_of(a_site_now("north")).token
    seen = gateway.sync(token).json()["orders"]

    began = time.monotonic()
    answer = gateway.sync(token, orders_seen=seen, wait_s=0.7)

    assert time.monotonic() - began >= 0.7
    assert answer.json()["orders"] == seen


@pytest.mark.parametrize("wait_s", [0, -5])
def test_a_sync_that_does_not_want_to_wait_is_answered_at_once(gateway, wait_s):
    token = an_agent_of(a_site_now("north")).token
    seen = gateway.sync(token).json()["orders"]

    assert gateway.sync(token, orders_seen=seen, wait_s=wait_s).status_code == 200
    assert not gateway.bell.waiting.acquire(blocking=False)


def test_news_are_answered_at_once_however_long_the_agent_would_wait(gateway):
    token = an_agent_of(a_site_now("north")).token

    assert gateway.sync(token, orders_seen="older", wait_s=LONG_S).status_code == 200
    assert not gateway.bell.waiting.acquire(blocking=False)


def test_a_credential_revoked_meanwhile_gets_no_lease(gateway):
    site = a_site_now("north")
    held = gateway.hold(an_agent_of(site).token)

    credentials_revoke(site=site, actor="test", now=timezone.now())
    lease = a_running_job(world.a_tenant("ann"), site)

    problem(Answer(held.result(PATIENCE_S)), 401, "credential_invalid")
    assert Lease.objects.get(pk=lease.pk).delivered_at is None


def test_an_agent_replaced_meanwhile_gets_no_lease(gateway):
    site = a_site_now("north")
    token = an_agent_of(site).token
    held = gateway.hold(token)
    gateway.sync(token, boot="another.1")

    lease = a_running_job(world.a_tenant("ann"), site)

    problem(Answer(held.result(PATIENCE_S)), 409, "superseded_agent")
    assert Lease.objects.get(pk=lease.pk).delivered_at is None
    [order] = gateway.sync(token, boot="another.1").json()["leases"]
    assert order["attempt"] == str(lease.pk)


class Answer:
    """A response of httpx, read as one of Django's test client."""

    def __init__(self, response: httpx.Response) -> None:
        self.status_code = response.status_code
        self.content = response.content
        self._headers = response.headers

    def __getitem__(self, name: str) -> str:
        return str(self._headers[name])
