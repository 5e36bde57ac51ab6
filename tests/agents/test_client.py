"""What an answer means: from the broker, from something else, or none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agents.client import BrokerClient
from agents.errors import AgentError, BrokerRefused, BrokerUnreachable, ProtocolMismatch
from agents.protocol import PROTOCOL, ReportBatch
from tests.agents.fake_broker import FakeBroker

BATCH = ReportBatch(PROTOCOL, ())


@contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """A server that says exactly this, once, to whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


def http(status: str, body: str, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def error_of(raw: bytes) -> AgentError:
    with answering(raw) as url, BrokerClient(url, lambda: "x") as client:
        with pytest.raises(AgentError) as caught:
            client.reports(BATCH)
        return caught.value


def test_join_and_rotate(broker: FakeBroker) -> None:
    with BrokerClient(broker.url, lambda: broker.credential) as client:
        reply = client.join("one-time", version="0")
        assert (reply.site, reply.credential) == ("birch", "hs_first")
        assert client.rotate().credential == "hs_first+"
        assert client.reports(BATCH).receipts == ()


def test_a_wrong_credential_is_refused_with_code_and_reason(broker: FakeBroker) -> None:
    with BrokerClient(broker.url, lambda: "wrong") as client, pytest.raises(BrokerRefused) as error:
        client.reports(BATCH)
    assert (error.value.code, error.value.why) == ("bad_credential", "Who are you?")
    assert "wrong" not in str(error.value)


def test_a_problem_without_a_body_still_has_a_code() -> None:
    error = error_of(http("403 Forbidden", "<html>"))
    assert isinstance(error, BrokerRefused)
    assert (error.code, error.why, error.status) == ("http_403", "Forbidden", 403)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        http("200 OK", "<html>welcome to the hotel</html>"),
        http("200 OK", "[1]"),
        http("200 OK", f'{{"protocol": "{PROTOCOL}"}}'),
        http("200 OK", f'{{"protocol": "{PROTOCOL}", "receipts": [1]}}'),
        http("302 Found", "", "Location: http://127.0.0.1:1/"),
        http("500 Oops", "{}"),
        http("429 Slow down", '{"detail": "later"}'),
    ],
)
def test_no_answer_of_the_brokers_is_no_answer(raw: bytes) -> None:
    assert isinstance(error_of(raw), BrokerUnreachable)


def test_retry_after_is_kept_in_bounds() -> None:
    for text, seconds in (("7", 7.0), ("1e9", 3600.0), ("-1", 0.0), ("soon", None)):
        error = error_of(http("503 Busy", "{}", f"Retry-After: {text}"))
        assert isinstance(error, BrokerUnreachable)
        assert error.retry_after_s == seconds


def test_another_version_is_a_mismatch() -> None:
    for raw in (
        http("200 OK", '{"protocol": "hanse.agent/9"}'),
        http("400 Bad", '{"code": "protocol_mismatch", "detail": "update"}'),
        http("426 Upgrade Required", "{}"),
    ):
        assert isinstance(error_of(raw), ProtocolMismatch)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with BrokerClient(url, lambda: "x") as client, pytest.raises(BrokerUnreachable):
        client.reports(BATCH)
