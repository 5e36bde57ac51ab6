"""When to send a request again, and how long to wait first. No I/O: the clients drive it.

`exchange` is a generator: it yields what to do next (`Send` or `Pause`), is sent what came of it,
and returns the answer. The blocking and the async client are one loop each around it.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from hanse.calls import refused
from hanse.errors import BadAnswer, Unreachable

TRY_AGAIN = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retry:
    """How patient a client is. Times in seconds."""

    tries: int = 5  #: requests in all, at least 1
    first_s: float = 0.25  #: before the second try; doubles each time
    most_s: float = 8.0
    longest_ask_s: float = 60.0  #: a Retry-After beyond this is not waited for


@dataclass(frozen=True, slots=True)
class Send:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Outcome = httpx.Response | httpx.TransportError | None


def exchange(retry: Retry, where: str) -> Generator[Send | Pause, Outcome, httpx.Response]:
    """Send until there is an answer worth having. Raises `HanseError`."""
    for number in range(1, retry.tries + 1):
        outcome = yield Send()
        if isinstance(outcome, httpx.Response) and outcome.status_code not in TRY_AGAIN:
            return _accepted(outcome)
        wait_s = _wait_s(outcome, number, retry)
        if number == retry.tries or wait_s > retry.longest_ask_s:
            break
        yield Pause(wait_s)
    if isinstance(outcome, httpx.Response):
        raise refused(outcome)
    raise Unreachable(f"no answer from {where}: {outcome or type(outcome).__name__}")


def _accepted(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    if response.is_redirect:
        raise BadAnswer(
            f"the broker redirects to {response.headers.get('Location', '?')}; use that"
        )
    raise refused(response)


def _wait_s(outcome: Outcome, number: int, retry: Retry) -> float:
    """What the server asked for, else doubling with jitter so that clients do not march in step."""
    asked = _asked_s(outcome) if isinstance(outcome, httpx.Response) else None
    if asked is not None:
        return asked
    ceiling = min(retry.most_s, retry.first_s * 2.0 ** (number - 1))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def _asked_s(response: httpx.Response) -> float | None:
    """Retry-After in seconds: a count or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
