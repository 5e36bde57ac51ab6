"""Views of the API: authenticate, parse, call one service or selector, answer."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpResponse
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from broker.api.pagination import ByName, NewestRoundFirst
from broker.api.renderers import PlainText
from broker.api.serializers import ClassIn, ClassOut, JobIn, JobOut, RoundOut
from broker.api.shapes import MeOut, OffersOut, PricesOut, WhyOut, answers
from broker.api.throttles import DescribedThrottle
from federation.errors import BadInput, FieldProblem, NotAllowed, NotFound
from federation.machines.job import JobState
from federation.models import Job, JobClass, Lease, Round, Tenant, User, Venue
from federation.money import as_text
from federation.selectors.accounts import escrow_micro, funds_micro
from federation.selectors.jobs import job_log, job_why
from federation.selectors.offers import offers_open
from federation.selectors.rounds import prices_of
from federation.services.jobs import job_cancel, job_submit
from federation.services.members import MAIN_VENUE, class_create

KEY_LIMIT = 200
KEY = re.compile(rf"[!-~]{{1,{KEY_LIMIT}}}\Z")
MAX_LOG_PAGE = 2**20


def caller_tenant(request: Request) -> Tenant:
    """The tenant that the caller acts for. Raises NotAllowed."""
    tenant = request.user.tenant if isinstance(request.user, User) else None
    if tenant is None:
        raise NotAllowed("This account acts for no tenant.", code="no_tenant")
    return tenant


def main_venue() -> Venue:
    """The federation's venue. Raises NotFound before an operator has set one up."""
    venue = Venue.objects.filter(name=MAIN_VENUE).first()
    if venue is None:
        raise NotFound("The federation has no venue yet.", code="no_venue")
    return venue


class JobFilter(filters.FilterSet):
    state = filters.CharFilter(method="by_state", help_text="one or more, separated by commas")
    job_class = filters.CharFilter(field_name="job_class__name")
    name = filters.CharFilter(field_name="name")
    kind = filters.ChoiceFilter(choices=Job.Kind.choices)

    class Meta:
        model = Job
        fields: ClassVar[list[str]] = ["state", "job_class", "name", "kind"]

    def by_state(self, rows: QuerySet[Job], _: str, value: str) -> QuerySet[Job]:
        states = [word.strip().lower() for word in value.split(",")]
        unknown = [word for word in states if word not in set(JobState)]
        if unknown:
            raise BadInput(FieldProblem("state", f"{unknown[0]} is not a state of a job"))
        return rows.filter(state__in=states)


@extend_schema_view(
    list=extend_schema(operation_id="jobs_list", responses=answers({200: JobOut}, 403, 422)),
    retrieve=extend_schema(operation_id="jobs_get", responses=answers({200: JobOut}, 403, 404)),
)
class JobViewSet(viewsets.GenericViewSet[Job], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """A tenant's own jobs."""

    serializer_class = JobOut
    filterset_class = JobFilter
    lookup_value_converter = "uuid"
    body_limit = 512 * 1024
    queryset = Job.objects.none()

    def get_throttles(self) -> list[BaseThrottle]:
        return [*super().get_throttles(), DescribedThrottle()]

    def get_queryset(self) -> QuerySet[Job]:
        newest = Lease.objects.select_related("site", "pool__site").prefetch_related("contracts")
        rows = Job.objects.filter(tenant=caller_tenant(self.request)).select_related(
            "job_class", "tenant"
        )
        return rows.prefetch_related(
            Prefetch("leases", queryset=newest.order_by("-attempt"), to_attr="newest_lease")
        )

    @extend_schema(
        operation_id="jobs_submit",
        request=JobIn,
        responses=answers({201: JobOut}, 400, 403, 409, 413, 415, 422),
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                description="Same key and body: the first answer again. Other body: 409.",
            )
        ],
    )
    def create(self, request: Request) -> Response:
        """Submit a job."""
        body = JobIn(data=request.data)
        body.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not KEY.match(key):
            raise BadInput(
                FieldProblem("Idempotency-Key", f"1 to {KEY_LIMIT} printable ASCII characters")
            )
        submitted = job_submit(
            tenant=caller_tenant(request),
            venue=main_venue(),
            draft=body.draft(),
            key=key,
            actor=f"user:{request.user.get_username()}",
            now=timezone.now(),
        )
        answer = self.get_serializer(self.get_queryset().get(pk=submitted.job.pk)).data
        headers = {"Location": f"/api/v1/jobs/{submitted.job.pk}"}
        if not submitted.created:
            headers["Idempotent-Replay"] = "true"
        return Response(answer, status=status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        operation_id="jobs_cancel", request=None, responses=answers({200: JobOut}, 403, 404, 409)
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: UUID) -> Response:
        """Stop a job: at once when it waits, with its grace when it runs. A repeat is free."""
        job = self.get_object()
        job_cancel(job=job, actor=f"user:{request.user.get_username()}", now=timezone.now())
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(operation_id="jobs_why", responses=answers({200: WhyOut}, 403, 404))
    @action(detail=True)
    def why(self, request: Request, pk: UUID) -> Response:
        """Why the job is where it is: its last rounds and its story."""
        return Response(job_why(self.get_object(), timezone.now()))

    @extend_schema(
        operation_id="jobs_logs",
        responses=answers(
            {(200, "text/plain"): OpenApiResponse(OpenApiTypes.BINARY)}, 403, 404, 422
        ),
        parameters=[
            OpenApiParameter("offset", int, description="first byte wanted, from 0"),
            OpenApiParameter("limit", int, description="bytes at most"),
            OpenApiParameter("attempt", int, description="default: the newest"),
        ],
    )
    @action(detail=True, renderer_classes=[JSONRenderer, PlainText])
    def logs(self, request: Request, pk: UUID) -> HttpResponse:
        """The log of an attempt, by byte offset.

        Headers tell where the next page begins (Hanse-Next-Offset), whether anything will follow
        (Hanse-Complete), and whether the log reached its cap (Hanse-Truncated).
        """
        limit = _number(request, "limit", MAX_LOG_PAGE)
        if not limit:
            raise BadInput(FieldProblem("limit", "a whole number from 1 is expected"))
        page = job_log(
            self.get_object(),
            attempt=_number(request, "attempt", None),
            offset=_number(request, "offset", 0) or 0,
            limit=min(limit, MAX_LOG_PAGE),
        )
        answer = HttpResponse(page.data, content_type="text/plain; charset=utf-8")
        answer["Hanse-Attempt"] = str(page.attempt or 0)
        answer["Hanse-Attempts"] = str(page.attempts)
        answer["Hanse-Next-Offset"] = str(page.next_offset)
        answer["Hanse-Complete"] = "true" if page.complete else "false"
        answer["Hanse-Truncated"] = "true" if page.truncated else "false"
        answer["X-Content-Type-Options"] = "nosniff"
        return answer


def _number(request: Request, name: str, default: int | None) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadInput(FieldProblem(name, "a whole number, not negative, is expected"))
    return int(text)


@extend_schema_view(
    list=extend_schema(operation_id="classes_list", responses=answers({200: ClassOut}, 422))
)
class ClassViewSet(viewsets.GenericViewSet[JobClass], mixins.ListModelMixin):
    """Registered job classes."""

    serializer_class = ClassOut
    pagination_class = ByName
    queryset = JobClass.objects.select_related("owner")
    filter_backends = ()

    @extend_schema(
        operation_id="classes_create",
        request=ClassIn,
        responses=answers({201: ClassOut}, 400, 403, 409, 413, 415, 422),
    )
    def create(self, request: Request) -> Response:
        """Register a job class of the caller's own member (operators: of the federation)."""
        body = ClassIn(data=request.data)
        body.is_valid(raise_exception=True)
        user: Any = request.user
        if not user.is_staff and user.member is None:
            raise NotAllowed("Only members and operators register job classes.")
        created = class_create(
            **body.validated_data,
            owner=user.member,
            actor=f"user:{user.get_username()}",
            now=timezone.now(),
        )
        return Response(self.get_serializer(created).data, status=status.HTTP_201_CREATED)


@extend_schema_view(
    list=extend_schema(operation_id="rounds_list", responses=answers({200: RoundOut}, 422)),
    retrieve=extend_schema(operation_id="rounds_get", responses=answers({200: RoundOut}, 404)),
)
class RoundViewSet(
    viewsets.GenericViewSet[Round], mixins.ListModelMixin, mixins.RetrieveModelMixin
):
    """Rounds of the venue, newest first."""

    serializer_class = RoundOut
    pagination_class = NewestRoundFirst
    lookup_field = "number"
    lookup_value_converter = "int"
    filter_backends = ()
    queryset = Round.objects.none()

    def get_queryset(self) -> QuerySet[Round]:
        return (
            Round.objects.filter(venue=main_venue())
            .select_related("venue", "snapshot")
            .defer("clearing", "snapshot__body")
            .annotate(offer_count=Count("offers_used"))
        )

    @extend_schema(operation_id="rounds_prices", responses=answers({200: PricesOut}, 404))
    @action(detail=True)
    def prices(self, request: Request, number: int) -> Response:
        """What every pool cleared at in the round, credits per GPU-hour."""
        return Response({"results": prices_of(self.get_object())})


class Offers(APIView):
    """What is on offer now: pools, reserve and last price, speed of each class."""

    @extend_schema(operation_id="offers_list", responses=answers({200: OffersOut}, 404))
    def get(self, request: Request) -> Response:
        rows = offers_open(main_venue(), now=timezone.now())
        return Response({"results": rows, "next": None, "previous": None})


class Me(APIView):
    """Who the token acts for, and with what funds."""

    @extend_schema(operation_id="me", responses=answers({200: MeOut}))
    def get(self, request: Request) -> Response:
        user: Any = request.user
        body: dict[str, Any] = {
            "user": user.get_username(),
            "operator": user.is_staff,
            "member": user.member.name if user.member else None,
            "tenant": None,
            "funds": None,
        }
        if user.tenant is not None:
            venue = main_venue()
            body["tenant"] = user.tenant.name
            body["funds"] = {
                "currency": venue.currency,
                "available": as_text(funds_micro(user.tenant, venue)),
                "escrow": as_text(escrow_micro(user.tenant, venue)),
            }
        return Response(body)
