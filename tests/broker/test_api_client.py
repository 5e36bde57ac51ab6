"""The client that tenants import, against the real application behind a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from django.utils import timezone

from federation.models import Job
from federation.services.leases import Ending
from hanse.calls import jobs as list_jobs
from hanse.client import AsyncClient, Client
from hanse.errors import Conflict, Invalid, NotFound, NotLoggedIn, TooManyRequests
from hanse.exchange import Retry
from tests.broker.api_world import (
    BODY,
    a_caller,
    a_log,
    a_running_job,
    a_site_now,
    a_token,
    serving,
)
from tests.support import world

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")


@pytest.fixture
def url() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def client(url) -> Iterator[Client]:
    with Client(url, a_caller(world.a_tenant("ann")).token) as hanse:
        yield hanse


def test_a_job_is_submitted_read_and_cancelled(client):
    job = client.submit(BODY)

    assert (job["state"], job["tenant"], client.job(job["id"])) == ("PENDING", "ann", job)
    assert client.cancel(job["id"])["state"] == "CANCELLED"
    assert client.cancel(job["id"])["state"] == "CANCELLED"
    assert client.why(job["id"])["story"][-1]["event"] == "cancel"


def test_the_same_key_gives_the_same_job_and_another_body_a_conflict(client):
    first = client.submit(BODY, idempotency_key="k")

    assert client.submit(BODY, idempotency_key="k") == first
    with pytest.raises(Conflict) as caught:
        client.submit({**BODY, "samples": 5}, idempotency_key="k")
    assert (caught.value.status, caught.value.code) == (409, "idempotency_conflict")


def test_pages_are_followed_to_their_end(client):
    for number in range(7):
        client.submit({**BODY, "name": f"job-{number}"})

    pages = list(client.pages(list_jobs(limit="3")))

    assert [len(page.results) for page in pages] == [3, 3, 1]
    names = [job["name"] for page in pages for job in page.results]
    assert names == [job["name"] for job in client.jobs()] == [f"job-{n}" for n in range(7)][::-1]
    assert list(client.jobs(state="CANCELLED")) == []


def test_a_log_is_read_page_by_page(client):
    ann = world.Tenant.objects.get(name="ann")
    site = a_site_now("north")
    lease = a_running_job(ann, site)
    a_log(lease, (0, b"epoch 1\n"), (8, b"epoch 2\n"))
    agent = world.SimAgent(site)
    agent.sync(timezone.now())
    agent.report(lease, timezone.now(), ending=Ending("exited", 0))

    first = client.logs(str(lease.job_id))
    end = client.logs(str(lease.job_id), offset=first.next_offset, attempt=1)

    assert (first.data, first.attempt, first.attempts) == (b"epoch 1\nepoch 2\n", 1, 1)
    assert (end.data, end.next_offset, end.complete, end.truncated) == (b"", 16, True, False)


def test_the_market_is_read(client):
    a_site_now("north", speeds={"cnn": 500.0})
    a_running_job(world.a_tenant("bob"), world.Site.objects.get())

    [offer] = client.offers()
    round_ = next(iter(client.rounds()))

    assert (offer["site"], offer["affinities"][0]["believed"]) == ("north", 500.0)
    assert client.round(round_["number"]) == round_
    assert [row["name"] for row in client.classes()] == ["cnn"]
    assert client.me()["tenant"] == "ann"


def test_every_refusal_is_an_exception_with_its_code_and_fields(client, url):
    theirs = world.a_job(world.a_tenant("bob"), now=timezone.now())

    with pytest.raises(Invalid) as invalid:
        client.submit({**BODY, "gpus": [0], "name": "a/b"})
    assert {error.path for error in invalid.value.errors} == {"gpus[0]", "name"}
    for unknown in (str(theirs.pk), "no-such-job", "../me"):
        with pytest.raises(NotFound):
            client.job(unknown)
    done = client.submit(BODY)["id"]
    Job.objects.filter(pk=done).update(state="succeeded")
    with pytest.raises(Conflict) as conflict:
        client.cancel(done)
    assert conflict.value.code == "invalid_transition"
    with Client(url, "hst_stranger") as stranger, pytest.raises(NotLoggedIn):
        stranger.me()


def test_a_throttled_client_waits_as_long_as_it_was_told(client, url, monkeypatch):
    from rest_framework.throttling import UserRateThrottle

    monkeypatch.setattr(UserRateThrottle, "rate", "1/min", raising=False)
    waits: list[float] = []
    token = a_token(world.a_tenant("bob"))
    patience = Retry(tries=2, longest_ask_s=90)
    with Client(url, token, retry=patience, sleep=waits.append) as bob:
        bob.me()
        with pytest.raises(TooManyRequests):
            bob.me()
    assert len(waits) == 1
    assert 1 <= waits[0] <= 61


def test_the_client_for_asyncio_does_the_same(client, url):
    token = a_token(world.a_tenant("bob"))

    async def story() -> tuple[str, list[str]]:
        async with AsyncClient(url, token) as hanse:
            job = await hanse.submit(BODY)
            await hanse.cancel(job["id"])
            return job["id"], [row["state"] async for row in hanse.jobs()]

    job_id, states = asyncio.run(story())

    assert states == ["CANCELLED"]
    with pytest.raises(NotFound):
        client.job(job_id)
