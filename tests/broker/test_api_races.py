"""The same request from many threads at once, each with a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from federation.models import Event, IdempotencyKey, Job
from tests.broker.api_world import a_caller, a_running_job, a_site_now
from tests.support import world

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
CALLERS = 20


@pytest.fixture
def at_once() -> Iterator[Callable[[Callable[[int], Any]], list[Any]]]:
    """Runs a call on all threads behind one barrier."""
    barrier = threading.Barrier(CALLERS)

    with ThreadPoolExecutor(CALLERS) as pool:

        def run(call: Callable[[int], Any]) -> list[Any]:
            def one(number: int) -> Any:
                barrier.wait(30)
                try:
                    return call(number)
                finally:
                    connection.close()

            return list(pool.map(one, range(CALLERS)))

        yield run


def test_one_key_twenty_times_at_once_makes_one_job(at_once):
    api = a_caller(world.a_tenant("ann"))

    answers = at_once(lambda _: api.submit(key="the-same"))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replay" not in answer for answer in answers) == 1
    assert Job.objects.count() == IdempotencyKey.objects.count() == 1
    assert Event.objects.filter(subject="job", event="submit").count() == 1


def test_one_key_with_twenty_bodies_at_once_makes_one_job(at_once):
    api = a_caller(world.a_tenant("ann"))

    answers = at_once(lambda number: api.submit(key="the-same", name=f"job-{number}"))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * (CALLERS - 1)
    assert Job.objects.count() == 1


def test_a_placed_job_cancelled_twenty_times_at_once_is_asked_back_once(at_once):
    tenant, site = world.a_tenant("ann"), a_site_now("north")
    api = a_caller(tenant)
    lease = a_running_job(tenant, site)
    world.SimAgent(site).sync(timezone.now())

    answers = at_once(lambda _: api.post(f"/jobs/{lease.job_id}/cancel"))

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["state"] for answer in answers} == {"CANCELLING"}
    assert Event.objects.filter(subject="job", event="cancel").count() == 1
    assert Event.objects.filter(subject="lease", event="revoke_ask").count() == 1


def test_twenty_different_jobs_at_once_are_twenty_jobs(at_once):
    api = a_caller(world.a_tenant("ann"))

    answers = at_once(lambda number: api.submit(key=f"key-{number}"))

    assert len({answer.json()["id"] for answer in answers}) == Job.objects.count() == CALLERS
