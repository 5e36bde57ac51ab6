"""What operators should look at, and the end of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from broker.api.callers import actor, operator
from broker.api.contracts import ReasonIn
from broker.api.shapes import answers
from federation.models import Alarm
from federation.selectors.contracts_shown import alarm_shown
from federation.services.alarms import alarm_close


class AlarmOut(serializers.Serializer[Any]):
    """Something that a rule found in the stored figures."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    about = serializers.CharField()
    why = serializers.CharField()
    figures = serializers.JSONField()
    site = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    closed_by = serializers.CharField(allow_blank=True)


class AlarmViewSet(viewsets.GenericViewSet[Alarm]):
    """Operators see all alarms; nobody else any."""

    lookup_value_converter = "uuid"
    filter_backends = ()
    queryset = Alarm.objects.none()
    serializer_class = AlarmOut

    def get_queryset(self) -> QuerySet[Alarm]:
        operator(self.request)
        return Alarm.objects.select_related("site")

    @extend_schema(operation_id="alarms_list", responses=answers({200: AlarmOut(many=True)}, 403))
    def list(self, request: Request) -> Response:
        """Newest first, the closed ones too."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([alarm_shown(row) for row in page or ()])

    @extend_schema(operation_id="alarms_get", responses=answers({200: AlarmOut}, 403, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One alarm and the figures behind it."""
        return Response(alarm_shown(self.get_object()))

    @extend_schema(
        operation_id="alarms_close",
        request=ReasonIn,
        responses=answers({200: AlarmOut}, 400, 403, 404, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def close(self, request: Request, pk: UUID) -> Response:
        """Close an alarm with a reason; what a rule still finds it will raise again."""
        alarm = self.get_object()
        body = ReasonIn(data=request.data)
        body.is_valid(raise_exception=True)
        alarm_close(
            alarm=alarm, why=body.validated_data["why"], actor=actor(request), now=timezone.now()
        )
        return Response(alarm_shown(self.get_object()))
