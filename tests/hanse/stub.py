"""A small broker on loopback: answers from a script, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "hst_made-up"


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: Any = None  # bytes as they are, None = nothing, anything else as JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class StubBroker:
    url: str
    asked: list[Asked] = field(default_factory=list)
    answers: dict[tuple[str, str], Callable[[Asked], Answer]] = field(default_factory=dict)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Give these answers one after the other, the last one for ever."""
        left = list(answers)
        self.answers[method, path] = lambda _: left.pop(0) if len(left) > 1 else left[0]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.get((asked.method, asked.path))
        if found is None:
            return problem(404, "not_found", f"nothing at {asked.path}")
        return found(asked)


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    return Answer(status, {"status": status, "code": code, "detail": detail, **more})


@contextmanager
def serving() -> Iterator[StubBroker]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            parts = urlsplit(self.path)
            answer = stub.answer(
                Asked(
                    self.command,
                    parts.path,
                    dict(parse_qsl(parts.query)),
                    dict(self.headers),
                    json.loads(raw) if raw else None,
                )
            )
            body = answer.body if isinstance(answer.body, bytes) else _json(answer.body)
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _serve  # noqa: N815 - the names http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = StubBroker(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _json(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def a_job(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0190d3c2-0000-7000-8000-000000000001",
        "name": "resnet-a",
        "job_class": "resnet50-b64",
        "tenant": "clover",
        "state": "PENDING",
        "reason": None,
        "gpus": [4],
        "gpu_kinds": ["A100"],
        "samples": 1000,
        "samples_done": 250,
        "value": "12.0",
        "max_cost": "80.00",
        "spent": "1.50",
        "deadline": None,
        "preemptible": True,
        "created_at": "2026-11-21T10:00:00Z",
        "updated_at": "2026-11-21T10:00:00.123456Z",
        "attempt": 1,
        "site": "alder",
        "pool": "alder.a100",
        "predicted_samples_per_s": 1200.0,
        "samples_per_s": 1100.0,
        "price": "8.374",
    } | changes


def a_page(*rows: Any, following: str | None = None) -> Answer:
    return Answer(200, {"results": list(rows), "next": following, "previous": None})


def a_quote(**changes: Any) -> dict[str, Any]:
    return {
        "id": "0190d3c2-0000-7000-8000-0000000000aa",
        "name": "resnet-a",
        "round": 7,
        "state": "DONE",
        "created_at": "2026-11-21T10:00:00Z",
        "finished_at": "2026-11-21T10:00:01Z",
        "job_class": "resnet50-b64",
        "gpus": [4],
        "value": "12.000000",
        "expires_at": "2026-11-21T10:20:00Z",
        "offers": [{"site": "alder", "version": 3, "offer": "0190d3c2"}],
        "plans": None,
        "failed": None,
        "answer": {
            "runs": True,
            "placed": [
                {
                    "pool": "alder.a100",
                    "gpus": 4,
                    "samples": 720_000,
                    "price": "8.374000",
                    "price_before": "8.000000",
                    "samples_per_s": 1200.0,
                    "payment": "5.582667",
                    "price_per_million": "7.753704",
                    "plan": None,
                }
            ],
            "reason": None,
            "would_run_at": None,
            "displaces_own": [],
            "displaces_others": 2,
        },
    } | changes
