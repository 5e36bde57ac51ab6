"""Guards that every request passes."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from broker.problems import problem_response


def is_loopback(address: str) -> bool:
    """True for an address of this machine; an empty one is a unix socket."""
    try:
        return not address or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _refusal(request: HttpRequest) -> HttpResponse | None:
    if request.is_secure() or is_loopback(request.META.get("REMOTE_ADDR", "")):
        return None
    return problem_response(
        426, "tls_required", "Plain HTTP is accepted from this machine only; use HTTPS."
    )


@sync_and_async_middleware
def LoopbackOrTls(  # noqa: N802 - named as the class that settings expect
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], Any]:
    """Credentials never cross a network in clear: plain HTTP is for loopback only."""
    if iscoroutinefunction(get_response):

        async def guard_async(request: HttpRequest) -> HttpResponseBase:
            refusal = _refusal(request)
            if refusal is not None:
                return refusal
            answer: Awaitable[HttpResponseBase] = get_response(request)
            return await answer

        return guard_async

    def guard(request: HttpRequest) -> HttpResponseBase:
        refusal = _refusal(request)
        return refusal if refusal is not None else get_response(request)

    return guard
