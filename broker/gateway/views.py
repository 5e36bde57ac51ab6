"""The agents' endpoints: join, sync, reports, rotate.

They are plain Django views, not REST framework ones, because a sync may be held for half a minute:
it must wait on the event loop, with no thread and no database connection of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from rest_framework.throttling import AnonRateThrottle

from agents import protocol as wire
from broker.api.parsers import strict_json
from broker.gateway import wire as bridge
from broker.gateway.doorbell import doorbell
from broker.problems import federation_problem, problem_response
from federation.errors import BadInput, FederationError, FieldProblem, InvalidTransition
from federation.models import Site
from federation.services.access import (
    ROTATION_OVERLAP,
    agent_authenticate,
    agent_join,
    credential_rotate,
)
from federation.services.offers import OfferDraft, offer_submit
from federation.services.orders import orders_for_site
from federation.services.reports import reports_accept
from federation.services.syncs import GATEWAY, pulse, site_synced

MAX_BODY = 4 * 2**20
MAX_SMALL_BODY = 16 * 1024
MAX_WAIT_S = 55.0
JOIN_TRIES_PER_MINUTE = 20
M = TypeVar("M")
log = structlog.get_logger("hanse.gateway")


class _Refusal(Exception):
    """Carries a ready answer out of the depth of a view."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status_code)
        self.response = response


def _edge(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """POST only; and what the federation refuses becomes a problem document."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return _not_post()
        try:
            return view(request)
        except _Refusal as refusal:
            return refusal.response
        except (FederationError, InvalidTransition) as error:
            body = federation_problem(error)
            return JsonResponse(
                body, status=body["status"], content_type="application/problem+json"
            )

    return guarded


def _not_post() -> HttpResponse:
    response = problem_response(405, "method_not_allowed", "POST is expected.")
    response["Allow"] = "POST"
    return response


def _message(request: HttpRequest, kind: type[M], limit: int) -> M:
    raw = request.read(limit + 1)
    if len(raw) > limit:
        raise _Refusal(problem_response(413, "too_large", f"At most {limit} bytes."))
    try:
        data = strict_json(raw)
    except ValueError as error:
        raise _Refusal(
            problem_response(400, "not_json", f"The body is not JSON: {error}")
        ) from None
    _same_protocol(data)
    try:
        return wire.decode(kind, data)
    except wire.BadMessage as error:
        errors = [{"field": error.path, "detail": error.why, "code": "invalid"}]
        raise _Refusal(problem_response(422, "bad_input", str(error), errors)) from None


def _same_protocol(data: Any) -> None:
    """Before all else: the fields of another version are not ours to judge."""
    spoken = data.get("protocol") if isinstance(data, dict) else None
    if isinstance(spoken, str) and spoken != wire.PROTOCOL:
        raise _Refusal(
            problem_response(
                409, "protocol_mismatch", f"This broker speaks {wire.PROTOCOL}; update the agent."
            )
        )


def _site(request: HttpRequest) -> Site:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise _Refusal(_who_are_you("no_credential", "Send the agent's credential."))
    try:
        return agent_authenticate(secret=secret.strip(), now=timezone.now())
    except FederationError as error:
        raise _Refusal(_who_are_you(error.code, error.why)) from None


def _who_are_you(code: str, why: str) -> HttpResponse:
    response = problem_response(401, code, why)
    response["WWW-Authenticate"] = "Bearer"
    return response


def _answer(message: Any) -> JsonResponse:
    return JsonResponse(wire.encode(message))


@csrf_exempt
@_edge
def join(request: HttpRequest) -> HttpResponse:
    """Turn a one-time join token into the agent's own credential."""
    if _tries(f"join:{_address(request)}") > JOIN_TRIES_PER_MINUTE:
        response = problem_response(429, "throttled", "Too many tries to join; wait a minute.")
        response["Retry-After"] = "60"
        return response
    message = _message(request, wire.JoinRequest, MAX_SMALL_BODY)
    try:
        enrolled = agent_join(token=message.token, now=timezone.now())
    except FederationError as error:
        return _who_are_you(error.code, error.why)
    log.info("agent.joined", site=enrolled.site)
    return _answer(
        wire.JoinReply(wire.PROTOCOL, enrolled.site, str(enrolled.site_id), enrolled.secret)
    )


def _address(request: HttpRequest) -> str:
    """Whose tries are counted: the caller's address, past as many proxies as are ours."""
    ident: str = AnonRateThrottle().get_ident(request)  # type: ignore[arg-type]
    return ident


def _tries(key: str) -> int:
    """Counts within a minute from the first."""
    cache.add(key, 0, timeout=60)
    try:
        return cache.incr(key)
    except ValueError:  # the minute ended between the two lines
        return 1


@csrf_exempt
@_edge
def rotate(request: HttpRequest) -> HttpResponse:
    """A new credential; the old one works for a few minutes more."""
    site = _site(request)
    secret = credential_rotate(site=site, now=timezone.now())
    log.info("agent.rotated", site=site.name)
    return _answer(wire.RotateReply(wire.PROTOCOL, secret, ROTATION_OVERLAP.total_seconds()))


@csrf_exempt
@_edge
def reports(request: HttpRequest) -> HttpResponse:
    """Numbered facts about attempts; a replay is free."""
    site = _site(request)
    batch = _message(request, wire.ReportBatch, MAX_BODY)
    if len(batch.reports) > wire.MAX_REPORTS:
        return problem_response(413, "too_large", f"At most {wire.MAX_REPORTS} reports at once.")
    accepted = reports_accept(site=site, reports=bridge.reports(batch), now=timezone.now())
    for fact in accepted.ended:
        log.info("lease.ended", lease=str(fact.lease_id), job=str(fact.job_id), to=fact.job_state)
    receipts = tuple(
        wire.Receipt(str(r.lease_id), r.seq, r.accepted, r.code, r.why) for r in accepted.receipts
    )
    return _answer(wire.ReportReply(wire.PROTOCOL, receipts))


@csrf_exempt
async def sync(request: HttpRequest) -> HttpResponse:
    """The site's state up, its orders down; held while nothing changes."""
    first = await sync_to_async(_sync_in)(request)
    if isinstance(first, HttpResponse):
        return first
    site, message, answer = first
    wait_s = min(max(message.wait_s, 0.0), MAX_WAIT_S)
    if wait_s and answer.orders == message.orders_seen:
        await doorbell().wait(site.pk, site.orders_version, wait_s)
        return await sync_to_async(_sync_out)(request, message)
    return _answer(answer)


def _sync_in(request: HttpRequest) -> Any:
    """First half of a sync, in a thread: authenticate, apply, look at the orders."""

    @_edge
    def inner(request: HttpRequest) -> HttpResponse:
        site = _site(request)
        message = _message(request, wire.SyncRequest, MAX_BODY)
        now = timezone.now()
        hello, attempts = bridge.hello(message, now), bridge.attempts(message)
        draft = bridge.offer_draft(message.offer) if message.offer is not None else None
        pulse(name=GATEWAY, now=now, gap_s=settings.PULSE_GAP_S)
        # renewals first: an offer that is refused must not cost the jobs that run
        site_synced(site=site, hello=hello, attempts=attempts, now=now)
        if draft is not None:
            _offer(site, draft, now)
        result.append((message, site.pk))
        return HttpResponse()

    result: list[tuple[wire.SyncRequest, Any]] = []
    refusal = inner(request)
    if not result:
        return refusal
    message, site_id = result[0]
    site = Site.objects.select_related("venue").get(pk=site_id)
    return site, message, _orders(site_id, message)


def _offer(site: Site, draft: OfferDraft, now: datetime) -> None:
    """Put the offer on the market; its problems are told with their paths in the message."""
    try:
        offer_submit(site=site, draft=draft, now=now)
    except BadInput as error:
        raise BadInput(
            *(FieldProblem(f"offer.{p.path}", p.why, p.code) for p in error.problems)
        ) from None


def _sync_out(request: HttpRequest, message: wire.SyncRequest) -> HttpResponse:
    """Second half of a held sync. Meanwhile the credential may have been revoked, or another
    agent may speak for the site: neither may get a lease."""

    @_edge
    def inner(request: HttpRequest) -> HttpResponse:
        site = _site(request)
        if site.boot != message.boot:
            return problem_response(
                409, "superseded_agent", "Another agent speaks for this site now."
            )
        return _answer(_orders(site.pk, message))

    return inner(request)


def _orders(site_id: Any, message: wire.SyncRequest) -> wire.SyncReply:
    """The orders as they are now. Closes the thread's connection: the sync may be held next."""
    now = timezone.now()
    site = Site.objects.select_related("venue").get(pk=site_id)
    orders = orders_for_site(
        site=site,
        boot=message.boot,
        attempts=bridge.attempts(message),
        offer_digest=message.offer_digest,
        now=now,
    )
    answer = bridge.reply(site, orders, now)
    if not connection.in_atomic_block:
        connection.close()
    return answer
