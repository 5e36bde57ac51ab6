"""Calls to the API server. A failure is one of two facts: it is away, or it said no.

Units: seconds. Objects are the API's own JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from agents.clock import Clock
from agents.drivers.kubernetes.access import Access
from agents.errors import AgentError

Json = dict[str, Any]
TIMEOUT = httpx.Timeout(10.0, connect=3.0)
PAGE = 500  #: objects in one part of a list
MERGE = "application/merge-patch+json"
BUSY = frozenset({408, 425, 429})  #: a no that means "later"


class ServerAway(AgentError):
    """No answer of the API server, or one that says "later": nothing is known."""


class ServerRefused(AgentError):
    """The API server said no. `status` is HTTP's, `reason` its word for machines."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ApiServer:
    """One cluster. Knows the server's clock, which decides nothing but its own deadlines."""

    def __init__(self, access: Access, clock: Clock, *, namespace: str) -> None:
        self.namespace = namespace
        self._token = access.token
        self._clock = clock
        self._server: tuple[datetime, float] | None = None  # its clock, and ours then
        local = access.tls is None
        self._http = httpx.Client(
            base_url=access.url,
            verify=access.tls if access.tls is not None else False,
            timeout=TIMEOUT,
            trust_env=not local,
        )

    def close(self) -> None:
        self._http.close()

    def now(self) -> datetime | None:
        """The server's time of day; None before its first answer."""
        if self._server is None:
            return None
        moment, then = self._server
        return datetime.fromtimestamp(
            moment.timestamp() + self._clock.boottime() - then, tz=moment.tzinfo
        )

    def get(self, path: str, **query: str) -> Json:
        return _object(self._call("GET", path, query=query))

    def all_of(self, path: str, **query: str) -> list[Json]:
        """A whole list, part by part; raises when it changes beyond repair in between."""
        found: list[Json] = []
        following = ""
        while True:
            more = {"continue": following} if following else {}
            part = self.get(path, limit=str(PAGE), **query, **more)
            found += part.get("items") or []
            following = (part.get("metadata") or {}).get("continue") or ""
            if not following:
                return found

    def create(self, path: str, value: Json) -> Json:
        return _object(self._call("POST", path, body=value))

    def patch(self, path: str, value: Json) -> Json:
        """A merge patch (RFC 7386)."""
        return _object(self._call("PATCH", path, body=value, kind=MERGE))

    def delete(self, path: str, *, grace_s: int | None = None) -> None:
        """With everything it owns; one that is not there is deleted already."""
        options: Json = {"propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._call("DELETE", path, body=options)
        except ServerRefused as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise

    def text(self, path: str, **query: str) -> bytes:
        """Plain bytes: a container's log."""
        return self._call("GET", path, query=query)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> bytes:
        headers = {"Accept": "application/json, */*"}
        token = self._token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = kind
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._http.request(
                method, path, content=content, params=query, headers=headers
            )
        except httpx.HTTPError as error:
            raise ServerAway(f"{type(error).__name__}: {error}") from error
        self._read_clock(answer.headers.get("Date", ""))
        if answer.is_success:
            return answer.content
        raise _refusal(answer)

    def _read_clock(self, text: str) -> None:
        try:
            self._server = (parsedate_to_datetime(text), self._clock.boottime())
        except ValueError:
            return


def _object(content: bytes) -> Json:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ServerAway("something that is not the API server answered")
    return value


def _refusal(answer: httpx.Response) -> AgentError:
    try:
        value = answer.json()
    except ValueError:
        value = None
    value = value if isinstance(value, dict) else {}
    message = str(value.get("message") or answer.reason_phrase)[:2000]
    status = answer.status_code
    if status in BUSY or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return ServerAway(f"HTTP {status}: {message}")
    return ServerRefused(status, str(value.get("reason") or ""), message)
