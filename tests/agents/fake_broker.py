"""A broker that does as the test says: a real HTTP server on loopback, no state machine behind it.

`answer_with` may drop, replay or reorder answers; the broker's own record (`reports`) stays as the
protocol wants it: one fact per (attempt, seq).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agents.protocol import (
    JOIN_PATH,
    PROTOCOL,
    REPORTS_PATH,
    ROTATE_PATH,
    SYNC_PATH,
    JoinReply,
    JoinRequest,
    LeaseOrder,
    Receipt,
    Report,
    ReportBatch,
    ReportKind,
    ReportReply,
    RevokeOrder,
    RotateReply,
    SyncReply,
    SyncRequest,
    canonical,
    decode,
    encode,
)


class Dropped(Exception):
    """The answer is lost on its way."""


class FakeBroker:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.credential = "hs_first"
        self.old_credential = ""  # still works for a while after a rotation
        self.token = "one-time"
        self.renew_s = 60.0
        self.protocol = PROTOCOL
        self.clock_offset_s = 0.0
        self.leases: dict[str, LeaseOrder] = {}
        self.revokes: dict[str, RevokeOrder] = {}
        self.forget: set[str] = set()
        self.asks: tuple[str, ...] = ()
        self.syncs: list[SyncRequest] = []
        self.offers: list[Any] = []
        self.reports: dict[tuple[str, int], Report] = {}
        self.arrivals: list[tuple[str, int]] = []
        self.problem: tuple[int, str, str] | None = None  # status, code, detail of every answer
        self.refuses_offers = False
        self.away = False
        self.answer_with: Callable[[str, Any, Any], Any] | None = None  # path, request, reply
        self.url = ""

    # what a test says and asks

    def lease(self, order: LeaseOrder) -> None:
        with self.changed:
            self.leases[order.attempt] = order
            self.changed.notify_all()

    def revoke(self, attempt: str, *, grace_s: float = 1.0, why: str = "outbid") -> None:
        with self.changed:
            self.leases.pop(attempt, None)
            self.revokes[attempt] = RevokeOrder(attempt, "not_awarded", why, grace_s)
            self.changed.notify_all()

    def of(self, attempt: str, kind: ReportKind | None = None) -> list[Report]:
        with self.changed:
            found = [r for (name, _), r in sorted(self.reports.items()) if name == attempt]
        return [r for r in found if kind is None or r.kind is kind]

    def end(self, attempt: str) -> Report | None:
        return next(iter(self.of(attempt, ReportKind.ENDED)), None)

    def log(self, attempt: str) -> bytes:
        out = b""
        for report in self.of(attempt, ReportKind.LOG):
            assert report.log is not None
            assert report.log.offset == len(out)
            out += report.log.raw()
        return out

    # what it does

    def reply_to(self, path: str, body: Any) -> Any:
        if path == JOIN_PATH:
            request = decode(JoinRequest, body)
            assert request.token == self.token
            return JoinReply(PROTOCOL, "birch", "site-1", self.credential)
        if path == ROTATE_PATH:
            self.old_credential, self.credential = self.credential, self.credential + "+"
            return RotateReply(PROTOCOL, self.credential, 300.0)
        if path == SYNC_PATH:
            return self.sync(decode(SyncRequest, body))
        return self.take(decode(ReportBatch, body))

    def spoilt(self, path: str, request: Any, reply: Any) -> Any:
        """What of the answer arrives; None: nothing."""
        try:
            return reply if self.answer_with is None else self.answer_with(path, request, reply)
        except Dropped:
            return None

    def sync(self, request: SyncRequest) -> SyncReply:
        with self.changed:
            self.syncs.append(request)
            if request.offer is not None:
                assert request.offer.digest() == request.offer_digest
                self.offers.append(request.offer)
                self.asks = ()
            deadline = time.monotonic() + request.wait_s
            reply = self._orders()
            while reply.orders == request.orders_seen and not self.away:
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    break
                reply = self._orders()
            return reply

    def _orders(self) -> SyncReply:
        parts = {
            "leases": encode(tuple(self.leases.values())),
            "revokes": encode(tuple(self.revokes.values())),
            "forget": sorted(self.forget),
            "asks": list(self.asks),
        }
        moment = datetime.now(UTC) + timedelta(seconds=self.clock_offset_s)
        return SyncReply(
            protocol=self.protocol,
            server_time=moment.isoformat(),
            renew_s=self.renew_s,
            orders=hashlib.sha256(canonical(parts)).hexdigest(),
            leases=tuple(self.leases.values()),
            revokes=tuple(self.revokes.values()),
            forget=tuple(sorted(self.forget)),
            asks=self.asks,
        )

    def take(self, batch: ReportBatch) -> ReportReply:
        with self.changed:
            receipts = []
            for report in batch.reports:
                key = (report.attempt, report.seq)
                self.arrivals.append(key)
                known = self.reports.setdefault(key, report)
                assert known == report, "one number, two facts"
                if report.kind is ReportKind.ENDED:
                    self.leases.pop(report.attempt, None)
                    self.revokes.pop(report.attempt, None)
                receipts.append(Receipt(report.attempt, report.seq, True))
            self.changed.notify_all()
            return ReportReply(PROTOCOL, tuple(receipts))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        broker = self.server.broker
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if broker.away:
            return  # the connection closes without a word
        if broker.problem is not None:
            status, code, detail = broker.problem
            self._answer(status, {"code": code, "detail": detail, "status": status})
            return
        if self.path != JOIN_PATH and not self._known():
            self._answer(401, {"code": "bad_credential", "detail": "Who are you?"})
            return
        if broker.refuses_offers and body.get("offer"):
            self._answer(422, {"code": "bad_input", "detail": "offer.affinities[0].job_class: no"})
            return
        reply = broker.spoilt(self.path, body, broker.reply_to(self.path, body))
        if reply is not None and not broker.away:
            self._answer(200, encode(reply))

    def _known(self) -> bool:
        broker = self.server.broker
        known = (broker.credential, broker.old_credential or broker.credential)
        return self.headers["Authorization"] in {f"Bearer {secret}" for secret in known}

    def _answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, broker: FakeBroker) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.broker = broker


@contextmanager
def serving(broker: FakeBroker) -> Iterator[FakeBroker]:
    server = Server(broker)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    broker.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield broker
    finally:
        with broker.changed:
            broker.away = True
            broker.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()


__all__ = ["REPORTS_PATH", "SYNC_PATH", "Dropped", "FakeBroker", "serving"]
