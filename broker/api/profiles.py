"""What is known of a job class before anybody runs it, for its owner and for operators."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from broker.api.callers import actor, caller_member
from broker.api.shapes import answers
from federation.errors import NotAllowed, NotFound
from federation.models import JobClass, Member, User
from federation.selectors.profiles import profile_seen
from federation.services.priors import profile_set


class OperatorShape(serializers.Serializer[Any]):
    """One operator of a step on one GPU."""

    kind = serializers.CharField(help_text='such as "Conv2D"')
    size = serializers.FloatField(help_text="elements of its input")
    on_cpu = serializers.BooleanField(required=False)


class TimingShape(serializers.Serializer[Any]):
    """What each operator took on a device."""

    device = serializers.CharField(help_text='such as "A100 80GB"')
    seconds = serializers.ListField(
        child=serializers.FloatField(), help_text="one for each operator, in their order"
    )


class ExchangeShape(serializers.Serializer[Any]):
    """What the communication of a step took on so many GPUs."""

    device = serializers.CharField()
    gpus = serializers.IntegerField(min_value=1)
    seconds = serializers.FloatField()


class ProfileShape(serializers.Serializer[Any]):
    """What is known of a class; every field may be left out. The service reads it strictly."""

    work = serializers.CharField(required=False, help_text="the model's name; kin share it")
    operations = serializers.FloatField(
        required=False, help_text="of one sample, forward and backward"
    )
    parameters = serializers.FloatField(required=False)
    batch = serializers.FloatField(required=False, help_text="samples of a step on one GPU")
    precision = serializers.ChoiceField(choices=["half", "single"], required=False)
    operators = OperatorShape(many=True, required=False)
    timings = TimingShape(many=True, required=False)
    exchanges = ExchangeShape(many=True, required=False)


class Profile(APIView):
    """The profile of one class: what speeds are told from before anybody ran it."""

    @extend_schema(
        operation_id="classes_profile_get", responses=answers({200: ProfileShape}, 403, 404)
    )
    def get(self, request: Request, name: str) -> Response:
        """The profile; of a member's class to the member, its tenants and operators alone."""
        return Response(profile_seen(_class(name), _caller(request)))

    @extend_schema(
        operation_id="classes_profile_put",
        request=ProfileShape,
        responses=answers({200: ProfileShape}, 400, 403, 404, 413, 415, 422),
    )
    def put(self, request: Request, name: str) -> Response:
        """Set the whole profile; the class's owner itself, not its tenants, and operators."""
        found = profile_set(
            job_class=_class(name),
            profile=request.data,
            by=_setter(request),
            actor=actor(request),
            now=timezone.now(),
        )
        return Response(found.profile)


def _class(name: str) -> JobClass:
    found = JobClass.objects.filter(name=name).first()
    if found is None:
        raise NotFound("There is no such job class.")
    return found


def _setter(request: Request) -> Member | None:
    """The member that sets it for itself; None = an operator."""
    user: Any = request.user
    return None if isinstance(user, User) and user.is_staff else caller_member(request)


def _caller(request: Request) -> Member | None:
    """The member behind the caller, by itself or through a tenant; None = an operator."""
    user: Any = request.user
    if isinstance(user, User) and user.is_staff:
        return None
    if user.member is None:
        raise NotAllowed("Only members and operators know of profiles.", code="no_member")
    member: Member = user.member
    return member
