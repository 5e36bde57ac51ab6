"""The tenants' API from Python, blocking (`Client`) and not (`AsyncClient`).

    with Client("https://hanse.example", token) as hanse:
        job = hanse.submit(draft.body())

Every method answers with the API's own JSON (`answers.py`) or raises a `HanseError`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from hanse import calls
from hanse.answers import Choice, Job, JobClass, LogPage, Me, Offer, Quote, Round, Why
from hanse.calls import Call, Page
from hanse.errors import BadAddress, NotConfigured
from hanse.exchange import Pause, Retry, exchange

T = TypeVar("T")
Row = TypeVar("Row")
TIMEOUT_S = 30.0
PATIENT = Retry()


def checked_address(url: str) -> str:
    """The base address without its last slash; plain HTTP only to this machine itself."""
    text = url.strip()
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadAddress(f"{text!r} is not an address") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise BadAddress(f"{text!r} is not an address such as https://hanse.example.org")
    if parts.username is not None or parts.password is not None:
        raise BadAddress("the address must not hold a user or a password")
    if parts.scheme == "http" and not is_loopback(host):
        raise BadAddress(f"plain HTTP would show the token to the network; use https://{host}")
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _options(url: str, token: str, timeout_s: float) -> dict[str, Any]:
    """What both kinds of `httpx` client are made with."""
    address = checked_address(url)
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise NotConfigured("the token is empty or has characters that no token has")
    return {
        "base_url": address,
        "headers": {"Authorization": f"Bearer {token}", "Accept": "application/json, text/plain"},
        "timeout": timeout_s,
        # A proxy from the environment has no business between us and our own machine.
        "trust_env": not is_loopback(urlsplit(address).hostname or ""),
    }


def _request(call: Call[Any]) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params or None,
        "json": call.body,
        "headers": call.headers,
    }


class Client:
    """Blocking client. Use as a context manager, or call `close`."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = TIMEOUT_S,
        retry: Retry = PATIENT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(**_options(url, token, timeout_s))
        self._retry = retry
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, body: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Create a job. The same key and body again give the first answer, not a second job."""
        return self._do(calls.submit(body, idempotency_key or str(uuid4())))

    def jobs(self, **filters: str) -> Iterator[Job]:
        """Newest first, over all pages."""
        for page in self.pages(calls.jobs(**filters)):
            yield from page.results

    def job(self, job_id: str) -> Job:
        return self._do(calls.job(job_id))

    def cancel(self, job_id: str) -> Job:
        return self._do(calls.cancel(job_id))

    def logs(self, job_id: str, offset: int = 0, attempt: int | None = None) -> LogPage:
        """Bytes from `offset` of an attempt's log, the newest attempt when none is named."""
        return self._do(calls.logs(job_id, offset, attempt))

    def why(self, job_id: str) -> Why:
        return self._do(calls.why(job_id))

    def plan(self, body: Mapping[str, Any]) -> Choice:
        """Where a described model would run, and how split; nothing is submitted."""
        return self._do(calls.plan(body))

    def ask_quote(self, body: Mapping[str, Any]) -> Quote:
        """What the last round would have said to this job; nothing is submitted. Its `answer`
        comes with `quote` later; a job cites it by `quote` in its body."""
        return self._do(calls.ask_quote(body))

    def quote(self, quote_id: str) -> Quote:
        return self._do(calls.quote(quote_id))

    def quotes(self, **filters: str) -> Iterator[Quote]:
        for page in self.pages(calls.quotes(**filters)):
            yield from page.results

    def offers(self, **filters: str) -> Iterator[Offer]:
        for page in self.pages(calls.offers(**filters)):
            yield from page.results

    def rounds(self, **filters: str) -> Iterator[Round]:
        for page in self.pages(calls.rounds(**filters)):
            yield from page.results

    def round(self, number: int) -> Round:
        return self._do(calls.round_(number))

    def classes(self, **filters: str) -> Iterator[JobClass]:
        for page in self.pages(calls.classes(**filters)):
            yield from page.results

    def me(self) -> Me:
        return self._do(calls.me())

    def pages(self, first: Call[Page[Row]]) -> Iterator[Page[Row]]:
        """The pages of a list one by one, each fetched when it is asked for."""
        call: Call[Page[Row]] | None = first
        while call is not None:
            page = self._do(call)
            yield page
            call = page.following

    def _do(self, call: Call[T]) -> T:
        steps = exchange(self._retry, str(self._http.base_url))
        outcome: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return call.read(done.value)
            outcome = None
            if isinstance(step, Pause):
                self._sleep(step.seconds)
                continue
            try:
                outcome = self._http.request(**_request(call))
            except httpx.TransportError as error:
                outcome = error


class AsyncClient:
    """The same for asyncio."""

    def __init__(
        self, url: str, token: str, *, timeout_s: float = TIMEOUT_S, retry: Retry = PATIENT
    ) -> None:
        self._http = httpx.AsyncClient(**_options(url, token, timeout_s))
        self._retry = retry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def submit(self, body: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        return await self._do(calls.submit(body, idempotency_key or str(uuid4())))

    def jobs(self, **filters: str) -> AsyncIterator[Job]:
        return self._rows(calls.jobs(**filters))

    async def job(self, job_id: str) -> Job:
        return await self._do(calls.job(job_id))

    async def cancel(self, job_id: str) -> Job:
        return await self._do(calls.cancel(job_id))

    async def logs(self, job_id: str, offset: int = 0, attempt: int | None = None) -> LogPage:
        return await self._do(calls.logs(job_id, offset, attempt))

    async def why(self, job_id: str) -> Why:
        return await self._do(calls.why(job_id))

    async def plan(self, body: Mapping[str, Any]) -> Choice:
        return await self._do(calls.plan(body))

    async def ask_quote(self, body: Mapping[str, Any]) -> Quote:
        return await self._do(calls.ask_quote(body))

    async def quote(self, quote_id: str) -> Quote:
        return await self._do(calls.quote(quote_id))

    def quotes(self, **filters: str) -> AsyncIterator[Quote]:
        return self._rows(calls.quotes(**filters))

    def offers(self, **filters: str) -> AsyncIterator[Offer]:
        return self._rows(calls.offers(**filters))

    def rounds(self, **filters: str) -> AsyncIterator[Round]:
        return self._rows(calls.rounds(**filters))

    async def round(self, number: int) -> Round:
        return await self._do(calls.round_(number))

    def classes(self, **filters: str) -> AsyncIterator[JobClass]:
        return self._rows(calls.classes(**filters))

    async def me(self) -> Me:
        return await self._do(calls.me())

    async def _rows(self, first: Call[Page[Row]]) -> AsyncIterator[Row]:
        call: Call[Page[Row]] | None = first
        while call is not None:
            page = await self._do(call)
            for row in page.results:
                yield row
            call = page.following

    async def _do(self, call: Call[T]) -> T:
        steps = exchange(self._retry, str(self._http.base_url))
        outcome: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return call.read(done.value)
            outcome = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            try:
                outcome = await self._http.request(**_request(call))
            except httpx.TransportError as error:
                outcome = error
