"""What jobs measured of their own steps: what of it was held back, and what was learned."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from broker.api.pagination import Pages
from broker.api.shapes import answers
from federation.errors import BadInput, FieldProblem
from federation.models import QuarantinedSample, StoredModel
from federation.selectors.samples import (
    Named,
    model_shown,
    models_visible,
    quarantined_shown,
    quarantined_visible,
)

MOST_NAME = 200
NAMES = [OpenApiParameter(name, str) for name in ("site", "pool", "class")]


class QuarantinedOut(serializers.Serializer[Any]):
    """A measurement that nothing is learned from, as it came, and why."""

    lease = serializers.UUIDField()
    seq = serializers.IntegerField(help_text="of the report that brought it")
    site = serializers.CharField()
    pool = serializers.CharField()
    received_at = serializers.DateTimeField()
    code = serializers.CharField()
    why = serializers.CharField()
    body = serializers.JSONField()

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | {"class": serializers.CharField()}


class ModelOut(serializers.Serializer[Any]):
    """How far the throughput model of a class on a pool is."""

    site = serializers.CharField()
    pool = serializers.CharField()
    fitted = serializers.BooleanField(help_text="there is a model")
    samples = serializers.IntegerField(help_text="that it has read")
    waiting = serializers.IntegerField(help_text="that it has not read")
    version = serializers.IntegerField()
    fitted_at = serializers.DateTimeField(allow_null=True, help_text="when it last read some")
    why = serializers.CharField(
        allow_blank=True, help_text="why there is no model, or no newer one"
    )

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | {"class": serializers.CharField()}


class NewestHeldFirst(Pages):
    ordering = ("-received_at", "-id")


class InOrderOfTheirStart(Pages):
    ordering = ("id",)


class Quarantined(GenericAPIView[QuarantinedSample]):
    """Measurements held back: operators see all, a member its sites', a tenant its own jobs'."""

    pagination_class = NewestHeldFirst
    serializer_class = QuarantinedOut
    filter_backends = ()

    def get_queryset(self) -> QuerySet[QuarantinedSample]:
        user: Any = self.request.user
        return quarantined_visible(
            user, _named(self.request), code=_text(self.request, "code"), since=_since(self.request)
        )

    @extend_schema(
        operation_id="samples_quarantined",
        parameters=[
            *NAMES,
            OpenApiParameter("code", str, description="such as out_of_range"),
            OpenApiParameter("since", datetime, description="received then or later"),
        ],
        responses=answers({200: QuarantinedOut(many=True)}, 403, 422),
    )
    def get(self, request: Request) -> Response:
        """Newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([quarantined_shown(row) for row in page or ()])


class Models(GenericAPIView[StoredModel]):
    """Throughput models: operators see all, a member those of its sites' pools."""

    pagination_class = InOrderOfTheirStart
    serializer_class = ModelOut
    filter_backends = ()

    def get_queryset(self) -> QuerySet[StoredModel]:
        user: Any = self.request.user
        return models_visible(user, _named(self.request))

    @extend_schema(
        operation_id="models_list",
        parameters=NAMES,
        responses=answers({200: ModelOut(many=True)}, 403, 422),
    )
    def get(self, request: Request) -> Response:
        """One for each class and pool that samples came of, and why nothing was learned."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([model_shown(row) for row in page or ()])


def _named(request: Request) -> Named:
    return Named(
        site=_text(request, "site"), pool=_text(request, "pool"), job_class=_text(request, "class")
    )


def _text(request: Request, name: str) -> str | None:
    text: str | None = request.query_params.get(name)
    if text is not None and ("\x00" in text or not 1 <= len(text) <= MOST_NAME):
        raise BadInput(FieldProblem(name, f"a name of 1 to {MOST_NAME} characters is expected"))
    return text


def _since(request: Request) -> datetime | None:
    text = request.query_params.get("since")
    if text is None:
        return None
    try:
        at = parse_datetime(text)
        if at is not None and at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadInput(
        FieldProblem("since", "an RFC 3339 time with its zone is expected: 2026-11-21T12:00:00Z")
    )
