"""Operators' questions about the federation: asked here, computed by workers, read here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from broker.api.callers import actor, operator, round_numbered
from broker.api.serializers import StrictSerializer, WholeNumber
from broker.api.shapes import Reason, answers
from broker.api.studies import Counted, hand_out
from federation.models import Study
from federation.selectors.inquiries import inquiries_found, inquiry_shown
from federation.services.inquiries import QUESTIONS, inquiry_request

EXAMPLE = OpenApiExample(
    "Should this member join?",
    request_only=True,
    value={"kind": "joining", "round": 12, "parameters": {"site": "cedar", "alpha": 0.5}},
)


@extend_schema_serializer(examples=[EXAMPLE])
class InquiryIn(StrictSerializer):
    """A question about a published round, or about several up to it."""

    kind = serializers.ChoiceField(choices=list(QUESTIONS))
    round = WholeNumber(min_value=1, max_value=2**31 - 1)
    parameters = serializers.DictField(
        child=serializers.JSONField(),
        required=False,
        help_text="of the kind: site, alpha, joining_cost, rounds, draws, sweeps",
    )


class ProgressOut(serializers.Serializer[Any]):
    """Parts that workers have computed, of how many."""

    done = serializers.IntegerField()
    total = serializers.IntegerField()


class InquiryOut(serializers.Serializer[Any]):
    """A question and, once its state is DONE, its answer: `hanse.shares/1` for `shares`."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    round = serializers.IntegerField()
    state = serializers.CharField()
    parameters = serializers.JSONField()
    requested_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    progress = ProgressOut()
    failed = Reason(allow_null=True)
    answer = serializers.JSONField(allow_null=True)


class InquiryViewSet(Counted, viewsets.GenericViewSet[Study]):
    """What the mathematics says of the federation. Operators only; nothing is changed by it."""

    lookup_value_converter = "uuid"
    filter_backends = ()
    queryset = Study.objects.none()
    serializer_class = InquiryOut

    def get_queryset(self) -> QuerySet[Study]:
        operator(self.request)
        return inquiries_found()

    @extend_schema(
        operation_id="inquiries_ask",
        request=InquiryIn,
        responses=answers({202: InquiryOut}, 400, 403, 404, 413, 415, 422),
    )
    def create(self, request: Request) -> Response:
        """Ask. The same question is one inquiry, whoever asks it."""
        operator(request)
        body = InquiryIn(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        study = inquiry_request(
            round=round_numbered(asked["round"]),
            kind=asked["kind"],
            parameters=asked.get("parameters", {}),
            actor=actor(request),
            now=timezone.now(),
        )
        hand_out([study])
        headers = {"Location": f"/api/v1/inquiries/{study.pk}"}
        return Response(inquiry_shown(study), status=status.HTTP_202_ACCEPTED, headers=headers)

    @extend_schema(
        operation_id="inquiries_list", responses=answers({200: InquiryOut(many=True)}, 403)
    )
    def list(self, request: Request) -> Response:
        """All questions, newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([inquiry_shown(study) for study in page or ()])

    @extend_schema(operation_id="inquiries_get", responses=answers({200: InquiryOut}, 403, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One question, how far the workers are, and its answer."""
        return Response(inquiry_shown(self.get_object()))
