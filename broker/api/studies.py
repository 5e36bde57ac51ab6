"""Quotes and reports: asked for here, answered by workers, read here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from kombu.exceptions import OperationalError
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import (
    AnonRateThrottle,
    BaseThrottle,
    ScopedRateThrottle,
    UserRateThrottle,
)
from rest_framework.views import APIView

from broker.api.serializers import JobIn, StrictSerializer
from broker.api.shapes import QuoteOut, QuotesOut, ReportOut, answers
from broker.api.throttles import DescribedThrottle
from broker.api.views import caller_tenant, main_venue
from broker.tasks import hand_out_studies
from federation.errors import NotAllowed, NotFound
from federation.models import Round, Study, Tenant, User
from federation.selectors.studies import (
    names_of,
    quote_shown,
    quotes_of,
    report_of,
    report_shown,
)
from federation.services.jobs import JobDraft
from federation.services.quotes import quotes_request
from federation.services.studies import report_request

log = structlog.get_logger("hanse")
MOST_QUOTES = 50  #: in one request


class QuotesIn(StrictSerializer):
    """Jobs to ask about, each as in a submission."""

    jobs = serializers.ListField(child=JobIn(), min_length=1, max_length=MOST_QUOTES)


class Counted(APIView):
    """Reading is counted as everywhere; asking costs a solver, so it is counted apart too, and a
    described model costs a planner."""

    throttle_scope = "quotes"

    def get_throttles(self) -> list[BaseThrottle]:
        usual: list[BaseThrottle] = [AnonRateThrottle(), UserRateThrottle()]
        if self.request.method != "POST":
            return usual
        return [*usual, ScopedRateThrottle(), DescribedThrottle()]


def hand_out(asked: Sequence[Study]) -> None:
    """Tell the workers now; when the queue is away the tick tells them later."""
    try:
        hand_out_studies(study.pk for study in asked if study.state == Study.State.PENDING)
    except OperationalError as error:
        log.warning("queue.away", why=str(error)[:200])


class QuoteViewSet(Counted, viewsets.GenericViewSet[Study]):
    """What the last round would have said to a job that is not submitted."""

    lookup_value_converter = "uuid"
    body_limit = 4 * 2**20
    filter_backends = ()
    queryset = Study.objects.none()
    serializer_class = QuoteOut

    def get_queryset(self) -> QuerySet[Study]:
        return quotes_of(caller_tenant(self.request))

    @extend_schema(
        operation_id="quotes_ask",
        request=JobIn,
        responses=answers({202: QuoteOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    def create(self, request: Request) -> Response:
        """Ask for a quote: the body of a submission, and nothing is submitted."""
        body = JobIn(data=request.data)
        body.is_valid(raise_exception=True)
        [study] = self._ask(request, [body.draft()])
        headers = {"Location": f"/api/v1/quotes/{study.pk}"}
        return Response(quote_shown(study), status=status.HTTP_202_ACCEPTED, headers=headers)

    @extend_schema(
        operation_id="quotes_ask_many",
        request=QuotesIn,
        responses=answers({202: QuotesOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=False, methods=["post"])
    def batch(self, request: Request) -> Response:
        """Ask for many quotes at once, each by itself; workers share them out."""
        body = QuotesIn(data=request.data)
        body.is_valid(raise_exception=True)
        asked = self._ask(request, [JobDraft(**job) for job in body.validated_data["jobs"]])
        results = [quote_shown(study) for study in asked]
        return Response({"results": results}, status=status.HTTP_202_ACCEPTED)

    def _ask(self, request: Request, drafts: list[JobDraft]) -> list[Study]:
        tenant = caller_tenant(request)
        asked = quotes_request(
            tenant=tenant,
            venue=main_venue(),
            drafts=drafts,
            actor=f"user:{request.user.get_username()}",
            now=timezone.now(),
        )
        hand_out(asked)
        found = quotes_of(tenant).in_bulk([study.pk for study in asked])
        return [found[study.pk] for study in asked]

    @extend_schema(operation_id="quotes_list", responses=answers({200: QuoteOut(many=True)}, 403))
    def list(self, request: Request) -> Response:
        """Own quotes, newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([quote_shown(study) for study in page or ()])

    @extend_schema(operation_id="quotes_get", responses=answers({200: QuoteOut}, 403, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One quote; `answer` is there once its state is DONE."""
        return Response(quote_shown(self.get_object()))


class Contributions(Counted):
    """What every tenant brought to a round: operators see all, members and tenants their own."""

    @extend_schema(operation_id="contributions_get", responses=answers({200: ReportOut}, 403, 404))
    def get(self, request: Request, number: int) -> Response:
        """The report, as far as it is there. 404 `not_asked` when nobody has asked for it."""
        visible = visible_tenants(request)
        study = report_of(_round(number))
        if study is None:
            raise NotFound("Nobody has asked for this round's report.", code="not_asked")
        return Response(report_shown(study, visible=visible))

    @extend_schema(
        operation_id="contributions_ask",
        request=None,
        responses=answers({202: ReportOut}, 403, 404),
    )
    def post(self, request: Request, number: int) -> Response:
        """Ask for the report; the same round has one report, whoever asks."""
        visible = visible_tenants(request)
        round = _round(number)
        if round.published_at is None:
            raise NotFound("This round has not been published.", code="not_published")
        study = report_request(
            round=round,
            share=settings.STUDY_SHARE,
            actor=f"user:{request.user.get_username()}",
            now=timezone.now(),
        )
        hand_out([study])
        shown = report_shown(study, visible=visible)
        headers = {"Location": f"/api/v1/rounds/{number}/contributions"}
        return Response(shown, status=status.HTTP_202_ACCEPTED, headers=headers)


def _round(number: int) -> Round:
    rows = Round.objects.filter(venue=main_venue(), number=number).defer("clearing")
    round = rows.select_related("venue").first()
    if round is None:
        raise NotFound("There is no such round.")
    return round


def visible_tenants(request: Request) -> set[str] | None:
    """Whose rows the caller may see; None = everybody's. Raises NotAllowed."""
    user: Any = request.user
    if isinstance(user, User) and user.is_staff:
        return None
    if isinstance(user, User) and user.tenant is not None:
        return {user.tenant.name}
    if isinstance(user, User) and user.member is not None:
        return names_of(Tenant.objects.filter(member=user.member))
    raise NotAllowed("This account acts for no tenant and no member.", code="no_tenant")
