"""The calls to the broker. Every failure becomes one of three facts: away, refused, mismatch."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from agents.config import is_loopback
from agents.errors import BrokerRefused, BrokerUnreachable, ProtocolMismatch
from agents.protocol import (
    JOIN_PATH,
    PROTOCOL,
    REPORTS_PATH,
    ROTATE_PATH,
    SYNC_PATH,
    BadMessage,
    JoinReply,
    JoinRequest,
    ReportBatch,
    ReportReply,
    RotateReply,
    SyncReply,
    SyncRequest,
    canonical,
    decode,
    encode,
)

T = TypeVar("T")
MARGIN_S = 15.0  #: beyond the long-poll: the broker's own work and the way back
MAX_ANSWER = 32 * 1024 * 1024  #: bytes of one answer


class BrokerClient:
    """One connection to one broker. `credential` is asked before each call: it may be rotated."""

    def __init__(
        self, url: str, credential: Callable[[], str], *, ca_file: Path | None = None
    ) -> None:
        parts = urlsplit(url)
        local = is_loopback(parts.hostname or "")
        verify: ssl.SSLContext | bool = True
        if parts.scheme == "https":
            verify = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        self._credential = credential
        self._http = httpx.Client(base_url=url, verify=verify, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def join(self, token: str, *, version: str) -> JoinReply:
        """Trade a one-time token for the site's credential."""
        request = JoinRequest(PROTOCOL, token, version)
        return self._call(JOIN_PATH, request, JoinReply, credential=None)

    def sync(self, request: SyncRequest) -> SyncReply:
        return self._call(SYNC_PATH, request, SyncReply, wait_s=request.wait_s)

    def reports(self, batch: ReportBatch) -> ReportReply:
        return self._call(REPORTS_PATH, batch, ReportReply)

    def rotate(self) -> RotateReply:
        return self._call(ROTATE_PATH, {"protocol": PROTOCOL}, RotateReply)

    def _call(
        self,
        path: str,
        message: Any,
        kind: type[T],
        *,
        wait_s: float = 0.0,
        credential: str | None = "",
    ) -> T:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if credential is not None:
            headers["Authorization"] = f"Bearer {self._credential()}"
        timeout = httpx.Timeout(wait_s + MARGIN_S, connect=MARGIN_S)
        try:
            body = canonical(encode(message))
            with self._http.stream(
                "POST", path, content=body, headers=headers, timeout=timeout
            ) as answer:
                content = _bounded(answer)
        except httpx.HTTPError as error:
            raise BrokerUnreachable(f"{type(error).__name__}: {error}") from error
        if answer.status_code != httpx.codes.OK:
            raise _refusal(answer, content)
        return _read(kind, content)


def _bounded(answer: httpx.Response) -> bytes:
    content = bytearray()
    for part in answer.iter_bytes():
        content += part
        if len(content) > MAX_ANSWER:
            raise BrokerUnreachable(f"the answer is larger than {MAX_ANSWER} bytes")
    return bytes(content)


def _read(kind: type[T], content: bytes) -> T:
    """An answer that is not the broker's (a proxy's page, say) counts as no answer."""
    value = _json(content)
    if not isinstance(value, dict) or "protocol" not in value:
        raise BrokerUnreachable("something that is not the broker answered")
    if value["protocol"] != PROTOCOL:
        raise ProtocolMismatch(
            f"the broker speaks {value['protocol']!r}, this agent {PROTOCOL}: update the agent"
        )
    try:
        return decode(kind, value)
    except BadMessage as error:
        raise BrokerUnreachable(f"the answer cannot be read: {error}") from error


def _refusal(answer: httpx.Response, content: bytes) -> Exception:
    status = answer.status_code
    problem = _json(content)
    problem = problem if isinstance(problem, dict) else {}
    code = str(problem.get("code") or f"http_{status}")[:200]
    why = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)[:2000]
    if code == "protocol_mismatch" or status == httpx.codes.UPGRADE_REQUIRED:
        return ProtocolMismatch(why)
    if status == httpx.codes.TOO_MANY_REQUESTS or not 400 <= status < 500:
        after = _seconds(answer.headers.get("Retry-After"))
        return BrokerUnreachable(f"HTTP {status}: {why}", retry_after_s=after)
    return BrokerRefused(code, why, status=status)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _seconds(text: str | None) -> float | None:
    try:
        return min(max(float(text or ""), 0.0), 3600.0)
    except ValueError:
        return None
