"""One click, asked without submitting: where a described model would run, and on how many GPUs."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import (
    AnonRateThrottle,
    BaseThrottle,
    ScopedRateThrottle,
    UserRateThrottle,
)
from rest_framework.views import APIView

from broker.api.serializers import JobIn
from broker.api.shapes import answers
from broker.api.throttles import PLANS
from broker.api.views import caller_tenant, main_venue
from federation.services.planning import plan_asked


class PlanOut(serializers.Serializer[Any]):
    """How the model is split over the GPUs of a pool. GB are 10⁹ bytes, of one GPU."""

    gpus = serializers.IntegerField()
    nodes = serializers.IntegerField()
    tensor = serializers.IntegerField(help_text="GPUs that share a layer")
    pipeline = serializers.IntegerField(help_text="stages")
    data = serializers.IntegerField(  # type: ignore[assignment] # shadows a name of the framework
        help_text="groups of GPUs that share the batch"
    )
    zero = serializers.IntegerField(help_text="stage of ZeRO")
    sequence_parallel = serializers.BooleanField()
    micro_batch = serializers.IntegerField()
    micro_batches = serializers.IntegerField(help_text="in a step, on each rank")
    recompute = serializers.CharField(help_text="none, selective or full")
    memory_gb = serializers.DictField(child=serializers.FloatField(), help_text="by part")
    step_time_s = serializers.FloatField()
    step_parts_s = serializers.DictField(child=serializers.FloatField())
    samples_per_s = serializers.FloatField()
    speed_from = serializers.CharField(help_text="formula, or believed")


class PricedOut(serializers.Serializer[Any]):
    """A plan at a pool, and the whole run there."""

    pool = serializers.CharField()
    time_s = serializers.FloatField()
    credits = serializers.FloatField(help_text="at the price of the last round")
    plan = PlanOut()


class PoolRefusedOut(serializers.Serializer[Any]):
    pool = serializers.CharField()
    why = serializers.CharField()


class ChoiceOut(serializers.Serializer[Any]):
    """What the job could do, and what would be chosen for it."""

    format = serializers.CharField()
    gpus = serializers.ListField(
        child=serializers.IntegerField(), help_text="gang sizes that a submission would get"
    )
    pools = serializers.ListField(
        child=serializers.CharField(), help_text="pools, each of which holds every size"
    )
    cheapest = PricedOut(allow_null=True, help_text="of those that end by the deadline")
    fastest = PricedOut(allow_null=True, help_text="of those within max_cost")
    front = PricedOut(many=True, help_text="none is both quicker and cheaper; quickest first")
    refused = PoolRefusedOut(many=True)
    why = serializers.ListField(child=serializers.CharField(), help_text="wishes nobody fulfils")
    notes = serializers.ListField(child=serializers.CharField(), help_text="what was dropped")


class Plans(APIView):
    """Plans for a job that is not submitted. Nothing is stored."""

    body_limit = 512 * 1024
    throttle_scope = PLANS

    def get_throttles(self) -> list[BaseThrottle]:
        return [AnonRateThrottle(), UserRateThrottle(), ScopedRateThrottle()]

    @extend_schema(
        operation_id="plans_make",
        request=JobIn,
        responses=answers({200: ChoiceOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Weigh every plan of the job's model at every pool on offer that it permits."""
        caller_tenant(request)
        body = JobIn(data=request.data)
        body.is_valid(raise_exception=True)
        planned = plan_asked(draft=body.draft(), venue=main_venue(), now=timezone.now())
        return Response(planned.document)
