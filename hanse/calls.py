"""Every endpoint of REST v1 once: what is sent, and how its answer is read.

No I/O here. `client.py` carries a `Call` out, blocking or not; so the two clients share each body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit
from urllib.parse import quote as quoted

import httpx

from hanse.answers import Choice, Job, JobClass, LogPage, Me, Offer, Quote, Round, Why
from hanse.errors import ApiRefused, BadAnswer, FieldError, refusal

T = TypeVar("T")
Row = TypeVar("Row")
Params = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, safe to send again: a read, a question, a cancel, or a create with its key."""

    method: str
    path: str  #: below the base address, quoted
    read: Callable[[httpx.Response], T]
    params: Params | None = None
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of a list as the API gave it, and the call for the one after."""

    results: list[Row]
    answer: dict[str, Any]
    following: Call[Page[Row]] | None


def submit(body: Mapping[str, Any], key: str) -> Call[Job]:
    headers = {"Idempotency-Key": key}
    return Call("POST", "/api/v1/jobs", _object(Job), body=body, headers=headers)


def jobs(**filters: str) -> Call[Page[Job]]:
    return _list("/api/v1/jobs", Job, filters)


def job(job_id: str) -> Call[Job]:
    return Call("GET", _job_path(job_id), _object(Job))


def cancel(job_id: str) -> Call[Job]:
    return Call("POST", _job_path(job_id) + "/cancel", _object(Job), body={})


def logs(job_id: str, offset: int, attempt: int | None) -> Call[LogPage]:
    params = {"offset": str(offset)} | ({} if attempt is None else {"attempt": str(attempt)})
    return Call("GET", _job_path(job_id) + "/logs", lambda r: _log_page(r, offset), params)


def why(job_id: str) -> Call[Why]:
    return Call("GET", _job_path(job_id) + "/why", _object(Why))


def plan(body: Mapping[str, Any]) -> Call[Choice]:
    """Nothing is stored, so it may be sent again."""
    return Call("POST", "/api/v1/plans", _object(Choice), body=body)


def ask_quote(body: Mapping[str, Any]) -> Call[Quote]:
    return Call("POST", "/api/v1/quotes", _object(Quote), body=body)


def quote(quote_id: str) -> Call[Quote]:
    return Call("GET", "/api/v1/quotes/" + quoted(quote_id, safe=""), _object(Quote))


def quotes(**filters: str) -> Call[Page[Quote]]:
    return _list("/api/v1/quotes", Quote, filters)


def offers(**filters: str) -> Call[Page[Offer]]:
    return _list("/api/v1/offers", Offer, filters)


def rounds(**filters: str) -> Call[Page[Round]]:
    return _list("/api/v1/rounds", Round, filters)


def round_(number: int) -> Call[Round]:
    return Call("GET", f"/api/v1/rounds/{number:d}", _object(Round))


def classes(**filters: str) -> Call[Page[JobClass]]:
    return _list("/api/v1/classes", JobClass, filters)


def me() -> Call[Me]:
    return Call("GET", "/api/v1/me", _object(Me))


def _job_path(job_id: str) -> str:
    return "/api/v1/jobs/" + quoted(job_id, safe="")


def _list(path: str, row: type[Row], params: Params) -> Call[Page[Row]]:
    def read(response: httpx.Response) -> Page[Row]:
        answer = _json_object(response)
        results, link = answer.get("results"), answer.get("next")
        if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
            raise BadAnswer(f"{path} answered without a list of results")
        return Page(results, answer, _list(path, row, _query(link)) if link else None)

    return Call("GET", path, read, params)


def _query(link: object) -> Params:
    """Only the query of a `next` address: the token goes to the host we chose, nowhere else."""
    if not isinstance(link, str):
        raise BadAnswer("the address of the next page is not a text")
    return dict(parse_qsl(urlsplit(link).query))


def _object(kind: type[T]) -> Callable[[httpx.Response], T]:
    return lambda response: cast(T, _json_object(response))


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = json.loads(response.content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        where = response.request.url.path
        raise BadAnswer(f"{where} did not answer with a JSON object; is this a Hanse broker?")
    return answer


def _log_page(response: httpx.Response, offset: int) -> LogPage:
    headers = response.headers
    return LogPage(
        data=response.content,
        attempt=_int(headers.get("Hanse-Attempt")) or None,
        attempts=_int(headers.get("Hanse-Attempts")) or 0,
        next_offset=_next_offset(headers, offset + len(response.content)),
        complete=headers.get("Hanse-Complete", "").lower() == "true",
        truncated=headers.get("Hanse-Truncated", "").lower() == "true",
    )


def _next_offset(headers: httpx.Headers, least: int) -> int:
    told = _int(headers.get("Hanse-Next-Offset"))
    return least if told is None else told


def _int(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def refused(response: httpx.Response) -> ApiRefused:
    """The error an answer stands for, from its problem document when it has one."""
    try:
        answer = json.loads(response.content)
    except ValueError:
        answer = None
    document = answer if isinstance(answer, dict) else {}
    status = response.status_code
    fallback = f"the broker answered {status} {response.reason_phrase}".rstrip()
    return refusal(
        status=status,
        code=str(document.get("code") or f"http_{status}"),
        detail=str(document.get("detail") or document.get("title") or fallback),
        errors=tuple(_field_errors(document.get("errors"))),
    )


def _field_errors(entries: object) -> list[FieldError]:
    if not isinstance(entries, list):
        return []
    return [
        FieldError(
            path=str(entry.get("field") or entry.get("path") or entry.get("pointer") or "body"),
            sentence=str(entry.get("detail") or entry.get("message") or entry.get("why") or ""),
            code=str(entry.get("code") or ""),
        )
        for entry in entries
        if isinstance(entry, dict)
    ]
