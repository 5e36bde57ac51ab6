"""Every refusal as an RFC 9457 problem document: one shape, one place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.http import Http404, JsonResponse
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from federation.errors import (
    BadInput,
    FederationError,
    InvalidTransition,
    NotAllowed,
    NotFound,
)

CONTENT_TYPE = "application/problem+json"
TITLES = {
    400: "The request cannot be read",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "In conflict with the present state",
    413: "Too large",
    415: "Unsupported media type",
    422: "The request does not fit",
    426: "TLS required",
    429: "Too many requests",
    500: "The broker failed",
    503: "Not ready",
}
MAX_ERRORS = 50
MAX_DETAIL = 1000
log = structlog.get_logger(__name__)


def problem(
    status_code: int, code: str, detail: str, errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """The document itself; `code` is for a machine, `detail` for a person."""
    body: dict[str, Any] = {
        "type": f"urn:hanse:problem:{code}",
        "title": TITLES.get(status_code, "Refused"),
        "status": status_code,
        "code": code,
        "detail": _plain(detail, MAX_DETAIL),
    }
    if errors:
        body["errors"] = [
            {key: _plain(text, MAX_DETAIL) for key, text in error.items()}
            for error in errors[:MAX_ERRORS]
        ]
    return body


def _plain(text: str, limit: int) -> str:
    """Sentences may quote what was sent: short, and without halves of surrogate pairs."""
    kept = text if len(text) <= limit else text[: limit - 1] + "…"
    return kept.encode("utf-8", "replace").decode()


def problem_response(
    status_code: int, code: str, detail: str, errors: list[dict[str, str]] | None = None
) -> JsonResponse:
    """For places outside the REST framework: middleware, the gateway, health pages."""
    return JsonResponse(
        problem(status_code, code, detail, errors), status=status_code, content_type=CONTENT_TYPE
    )


def federation_status(error: Exception) -> int:
    """Which HTTP status a refusal of the federation is."""
    if isinstance(error, NotFound):
        return status.HTTP_404_NOT_FOUND
    if isinstance(error, NotAllowed):
        return status.HTTP_403_FORBIDDEN
    if isinstance(error, BadInput):
        return status.HTTP_422_UNPROCESSABLE_ENTITY
    return status.HTTP_409_CONFLICT


def federation_problem(error: FederationError | InvalidTransition) -> dict[str, Any]:
    """A refusal of the federation as a problem document."""
    code = error.code if isinstance(error, FederationError) else "invalid_transition"
    errors = None
    if isinstance(error, BadInput):
        errors = [{"field": p.path, "detail": p.why, "code": p.code} for p in error.problems]
    return problem(federation_status(error), code, str(error), errors)


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """The REST framework's hook: whatever a view raises becomes a problem document."""
    if isinstance(error, FederationError | InvalidTransition):
        set_rollback()
        return _response(federation_problem(error))
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        log.exception("api.failed", view=type(context.get("view")).__name__)
        set_rollback()
        return _response(problem(500, "internal", "The broker failed; the failure is logged."))
    set_rollback()
    return _api_exception(error)


def _api_exception(error: exceptions.APIException) -> Response:
    if isinstance(error, exceptions.ValidationError):
        errors = list(_fields(error.detail, ""))
        detail = "; ".join(f"{e['field'] or 'body'}: {e['detail']}" for e in errors)
        return _response(problem(422, "bad_input", detail, errors))
    code = error.get_codes()
    body = problem(
        error.status_code, code if isinstance(code, str) else "refused", str(error.detail)
    )
    response = _response(body)
    wait_s = getattr(error, "wait", None)  # of Throttled
    if wait_s:
        response["Retry-After"] = str(int(wait_s) + 1)
    header = getattr(error, "auth_header", None)
    if header:
        response["WWW-Authenticate"] = header
    return response


def _fields(detail: Any, path: str) -> Iterator[dict[str, str]]:
    """Flatten the framework's nested error detail into paths such as `env.KEY` and `gpus[0]`."""
    if isinstance(detail, dict):
        for key, item in detail.items():
            here = path if key == "non_field_errors" else f"{path}.{key}" if path else str(key)
            if isinstance(key, int):
                here = f"{path}[{key}]"
            yield from _fields(item, here)
    elif isinstance(detail, list):
        for index, item in enumerate(detail):
            nested = isinstance(item, dict | list)
            yield from _fields(item, f"{path}[{index}]" if nested else path)
    else:
        yield {
            "field": path,
            "detail": str(detail),
            "code": getattr(detail, "code", None) or "invalid",
        }


def _response(body: dict[str, Any]) -> Response:
    return Response(body, status=body["status"], content_type=CONTENT_TYPE)


__all__ = [
    "exception_handler",
    "federation_problem",
    "federation_status",
    "problem",
    "problem_response",
]
