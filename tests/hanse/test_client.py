"""The client against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from hanse.client import AsyncClient, Client, checked_address
from hanse.errors import (
    ApiRefused,
    BadAddress,
    BadAnswer,
    Conflict,
    Invalid,
    NotAllowed,
    NotConfigured,
    NotFound,
    NotLoggedIn,
    ServerFailed,
    TooManyRequests,
    Unreachable,
)
from tests.hanse.stub import TOKEN, Answer, a_job, a_page, problem

JOB = a_job()
PATH = f"/api/v1/jobs/{JOB['id']}"


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(broker, slept):
    with Client(broker.url, TOKEN, sleep=slept.append) as made:
        yield made


def test_submit_sends_the_body_the_token_and_an_idempotency_key(client, broker):
    broker.on("POST", "/api/v1/jobs", Answer(201, JOB))
    assert client.submit({"name": "a"}, "key-1") == JOB
    client.submit({"name": "a"})
    first, second = broker.asked
    assert first.body == {"name": "a"}
    assert first.headers["Authorization"] == f"Bearer {TOKEN}"
    assert first.headers["Idempotency-Key"] == "key-1"
    assert len(second.headers["Idempotency-Key"]) == 36


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_submit_is_tried_again_with_the_same_key(client, broker, slept, status):
    broker.on("POST", "/api/v1/jobs", Answer(status), Answer(status), Answer(201, JOB))
    assert client.submit({"name": "a"})["id"] == JOB["id"]
    assert len({asked.headers["Idempotency-Key"] for asked in broker.asked}) == 1
    assert len(slept) == 2
    assert 0.125 <= slept[0] <= 0.25 <= slept[1] <= 0.5


def test_retry_after_is_honoured_in_seconds_and_as_a_date(client, broker, slept):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    broker.on(
        "GET",
        PATH,
        Answer(429, headers={"Retry-After": "7"}),
        Answer(503, headers={"Retry-After": soon}),
        Answer(503, headers={"Retry-After": "whenever"}),
        Answer(200, JOB),
    )
    client.job(JOB["id"])
    assert slept[0] == 7.0
    assert 20.0 < slept[1] <= 30.0
    assert slept[2] <= 1.0


def test_an_unreasonable_retry_after_is_not_waited_for(client, broker, slept):
    wait = {"Retry-After": "86400"}
    broker.on("GET", PATH, Answer(429, {"code": "throttled", "detail": "Later."}, wait))
    with pytest.raises(TooManyRequests, match="Later"):
        client.job(JOB["id"])
    assert slept == []


def test_a_broker_that_stays_broken_is_given_up(client, broker, slept):
    broker.on("GET", PATH, Answer(502, b"<html>Bad gateway</html>"))
    with pytest.raises(ServerFailed) as caught:
        client.job(JOB["id"])
    assert (caught.value.status, caught.value.code) == (502, "http_502")
    assert (len(broker.asked), len(slept)) == (5, 4)


def test_a_failure_of_the_broker_itself_is_not_repeated(client, broker, slept):
    broker.on("POST", "/api/v1/jobs", problem(500, "internal", "The broker failed."))
    with pytest.raises(ServerFailed, match="The broker failed"):
        client.submit({})
    assert (len(broker.asked), slept) == (1, [])


def test_nobody_there_is_unreachable_after_all_tries(slept):
    with socket.socket() as taken:  # bound, never listening: connecting is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url, TOKEN, sleep=slept.append) as client, pytest.raises(Unreachable):
            client.me()
    assert len(slept) == 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Invalid), (401, NotLoggedIn), (403, NotAllowed), (404, NotFound), (409, Conflict),
     (410, ApiRefused), (422, Invalid)],
)  # fmt: skip
def test_a_problem_document_becomes_its_error(client, broker, status, kind):
    broker.on("GET", PATH, problem(status, "some_code", "A sentence."))
    with pytest.raises(kind, match="A sentence") as caught:
        client.job(JOB["id"])
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, "some_code")


def test_field_errors_keep_their_paths(client, broker):
    errors = [{"field": "env.KEY", "detail": "too long", "code": "max"}, "noise"]
    broker.on("POST", "/api/v1/jobs", problem(422, "bad_input", "Does not fit.", errors=errors))
    with pytest.raises(Invalid, match=r"Does not fit \(env\.KEY: too long\)") as caught:
        client.submit({})
    [error] = caught.value.errors
    assert (error.path, error.sentence, error.code) == ("env.KEY", "too long", "max")


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
def test_an_answer_that_is_no_object_is_refused(client, broker, body):
    broker.on("GET", PATH, Answer(200, body))
    with pytest.raises(BadAnswer):
        client.job(JOB["id"])


def test_lists_follow_their_cursor_page_by_page(client, broker):
    pages = {
        None: a_page(
            a_job(id="1"), following="https://elsewhere.example/steal?cursor=b%3D&state=X"
        ),
        "b=": a_page(a_job(id="2"), a_job(id="3"), following="/api/v1/jobs?cursor=c"),
        "c": a_page(),
    }
    broker.answers["GET", "/api/v1/jobs"] = lambda asked: pages[asked.query.get("cursor")]
    assert [job["id"] for job in client.jobs(state="X")] == ["1", "2", "3"]
    queries = [asked.query for asked in broker.asked]  # all at our broker, none elsewhere
    assert queries == [{"state": "X"}, {"cursor": "b=", "state": "X"}, {"cursor": "c"}]


def test_a_list_is_fetched_as_far_as_it_is_read(client, broker):
    broker.on("GET", "/api/v1/rounds", a_page({"number": 2}, following="?cursor=x"))
    assert next(client.rounds())["number"] == 2
    assert len(broker.asked) == 1


def test_a_list_without_results_is_refused(client, broker):
    broker.on("GET", "/api/v1/offers", Answer(200, {"results": "none"}))
    with pytest.raises(BadAnswer):
        list(client.offers())


def test_logs_come_as_bytes_with_what_the_headers_say(client, broker):
    headers = {
        "Hanse-Attempt": "2",
        "Hanse-Attempts": "3",
        "Hanse-Next-Offset": "14",
        "Hanse-Complete": "true",
        "Hanse-Truncated": "false",
    }
    broker.on("GET", f"{PATH}/logs", Answer(200, b"\xffend\n", headers))
    page = client.logs(JOB["id"], 9, 2)
    assert broker.asked[0].query == {"offset": "9", "attempt": "2"}
    assert (page.data, page.attempt, page.attempts, page.next_offset) == (b"\xffend\n", 2, 3, 14)
    assert (page.complete, page.truncated) == (True, False)


def test_every_other_endpoint_has_its_address(client, broker):
    broker.on("POST", f"{PATH}/cancel", Answer(200, JOB))
    for path in (f"{PATH}/why", "/api/v1/rounds/7", "/api/v1/me"):
        broker.on("GET", path, Answer(200, {"path": path}))
    broker.on("GET", "/api/v1/classes", a_page({"name": "lm"}))
    assert client.cancel(JOB["id"])["id"] == JOB["id"]
    assert client.why(JOB["id"]) == {"path": f"{PATH}/why"}
    assert client.round(7) == {"path": "/api/v1/rounds/7"}
    assert client.me() == {"path": "/api/v1/me"}
    assert list(client.classes()) == [{"name": "lm"}]


def test_an_id_cannot_reach_another_address(client, broker):
    with pytest.raises(NotFound):
        client.job("../me?x=")
    assert broker.asked[0].path == "/api/v1/jobs/..%2Fme%3Fx%3D"


def test_a_redirect_is_not_followed(client, broker):
    broker.on("GET", PATH, Answer(302, headers={"Location": "https://elsewhere.example/"}))
    with pytest.raises(BadAnswer, match="elsewhere"):
        client.job(JOB["id"])


@pytest.mark.parametrize(
    "url",
    ["http://hanse.example.org", "http://localhost.example.org", "http://127.0.0.1.example.org",
     "http://10.0.0.1", "http://[2001:db8::1]", "ftp://127.0.0.1", "hanse.example.org", "",
     "https://user:secret@hanse.example.org", "https://hanse.example.org/?a=b", "https://",
     "http://[::1", "http://localhost:port"],
)  # fmt: skip
def test_an_address_that_would_leak_the_token_is_refused(url):
    with pytest.raises(BadAddress):
        Client(url, TOKEN)


@pytest.mark.parametrize(
    "url",
    ["https://hanse.example.org/", "https://hanse.example.org/base", "http://localhost:8000",
     "http://127.0.0.2", "http://[::1]:8000"],
)  # fmt: skip
def test_https_anywhere_and_plain_http_at_home(url):
    assert checked_address(f" {url}") == url.rstrip("/")


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "é"])
def test_a_token_that_cannot_be_one_is_refused(token):
    with pytest.raises(NotConfigured):
        Client("https://hanse.example.org", token)


def test_a_proxy_of_the_environment_is_not_asked_for_our_own_machine(client, broker, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    broker.on("GET", "/api/v1/me", Answer(200, {"name": "clover"}))
    with Client(broker.url, TOKEN) as made:
        assert made.me()["name"] == "clover"


def test_the_async_client_says_the_same(broker):
    broker.on("POST", "/api/v1/jobs", Answer(503, headers={"Retry-After": "0"}), Answer(201, JOB))
    pages = {None: a_page(a_job(id="1"), following="?cursor=b"), "b": a_page(a_job(id="2"))}
    broker.answers["GET", "/api/v1/jobs"] = lambda asked: pages[asked.query.get("cursor")]
    broker.on("GET", PATH, problem(404, "not_found", "No such job."))

    async def story() -> list[str]:
        async with AsyncClient(broker.url, TOKEN) as client:
            submitted = await client.submit({"name": "a"})
            with pytest.raises(NotFound):
                await client.job(JOB["id"])
            return [submitted["id"]] + [job["id"] async for job in client.jobs()]

    assert asyncio.run(story()) == [JOB["id"], "1", "2"]
    keys = [asked.headers.get("Idempotency-Key") for asked in broker.asked[:2]]
    assert keys[0] == keys[1]
