"""Epochs: the dividend of a period, proposed, looked at, posted or refused."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from broker.api.callers import actor, operator
from broker.api.inquiries import InquiryOut
from broker.api.pagination import Pages
from broker.api.serializers import Moment, StrictSerializer, Text
from broker.api.shapes import answers
from broker.api.studies import hand_out
from broker.api.views import main_venue
from federation.errors import NotAllowed
from federation.models import Epoch, User
from federation.selectors.epochs import epoch_shown, epochs_of
from federation.selectors.inquiries import inquiry_shown
from federation.services.epochs import epoch_post, epoch_propose, epoch_refuse


class EpochIn(StrictSerializer):
    """The epoch begins where the last one ended."""

    until = Moment(required=False, help_text="its last moment; now when left out")


class RefusalIn(StrictSerializer):
    why = Text(max_length=300)
    skip = serializers.BooleanField(
        default=False, help_text="close the period too: its rounds are not proposed again"
    )


class SharePaidOut(serializers.Serializer[Any]):
    """A member's part of an epoch, credits as decimal text."""

    member = serializers.CharField()
    owner = serializers.CharField(help_text="who is behind it; one player with all its members")
    market = serializers.CharField(
        help_text="what its owner has of what was delivered and paid, transfers included"
    )
    nucleolus = serializers.CharField(help_text="its owner's share of the same by the nucleolus")
    dividend = serializers.CharField(help_text="+ = it receives")
    agreed = serializers.BooleanField(help_text="to the rules that the dividend follows")


class RoundLeftOut(serializers.Serializer[Any]):
    round = serializers.IntegerField()
    why = serializers.CharField()


class EpochOut(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    state = serializers.CharField(help_text="PROPOSED, POSTED, REFUSED or CLOSED")
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    rounds = serializers.IntegerField()
    rules = serializers.IntegerField(help_text="version that it follows")
    alpha = serializers.FloatField()
    sha256 = serializers.CharField()
    why = serializers.CharField(allow_blank=True)
    left_out = RoundLeftOut(many=True, help_text="rounds of its time without a dividend")
    members = SharePaidOut(many=True)
    document = serializers.JSONField(help_text="hanse.shares/1 of the epoch")


class NewestEpochFirst(Pages):
    ordering = ("-number",)


class EpochViewSet(viewsets.GenericViewSet[Epoch]):
    """Operators propose and post; members look."""

    lookup_field = "number"
    lookup_value_converter = "int"
    filter_backends = ()
    pagination_class = NewestEpochFirst
    queryset = Epoch.objects.none()
    serializer_class = EpochOut

    def get_queryset(self) -> QuerySet[Epoch]:
        user: Any = self.request.user
        if not (isinstance(user, User) and (user.is_staff or user.member_id)):
            raise NotAllowed("This account acts for no member.", code="no_member")
        return epochs_of(main_venue())

    @extend_schema(
        operation_id="epochs_propose",
        request=EpochIn,
        responses=answers({202: InquiryOut}, 400, 403, 409, 413, 415, 422),
    )
    def create(self, request: Request) -> Response:
        """Have the dividend of all rounds since the last epoch computed."""
        operator(request)
        body = EpochIn(data=request.data)
        body.is_valid(raise_exception=True)
        now = timezone.now()
        study = epoch_propose(
            venue=main_venue(),
            until=body.validated_data.get("until", now),
            actor=actor(request),
            now=now,
        )
        hand_out([study])
        headers = {"Location": f"/api/v1/inquiries/{study.pk}"}
        return Response(inquiry_shown(study), status=status.HTTP_202_ACCEPTED, headers=headers)

    @extend_schema(operation_id="epochs_list", responses=answers({200: EpochOut(many=True)}, 403))
    def list(self, request: Request) -> Response:
        """All epochs, newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([epoch_shown(epoch) for epoch in page or ()])

    @extend_schema(operation_id="epochs_get", responses=answers({200: EpochOut}, 403, 404))
    def retrieve(self, request: Request, number: int) -> Response:
        """One epoch: what the market paid, what the nucleolus would, and the dividend between."""
        return Response(epoch_shown(self.get_object()))

    @extend_schema(
        operation_id="epochs_post",
        request=None,
        responses=answers({200: EpochOut}, 403, 404, 409),
    )
    @action(detail=True, methods=["post"], url_path="post")
    def pay(self, request: Request, number: int) -> Response:
        """Post the dividend to the ledger; every member must have agreed to its rules."""
        operator(request)
        epoch = epoch_post(epoch=self.get_object(), actor=actor(request), now=timezone.now())
        return Response(epoch_shown(epoch))

    @extend_schema(
        operation_id="epochs_refuse",
        request=RefusalIn,
        responses=answers({200: EpochOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def refuse(self, request: Request, number: int) -> Response:
        """Turn a proposed dividend down; with `skip`, its rounds are not proposed again."""
        operator(request)
        body = RefusalIn(data=request.data)
        body.is_valid(raise_exception=True)
        epoch = epoch_refuse(
            epoch=self.get_object(),
            why=body.validated_data["why"],
            skip=body.validated_data["skip"],
            actor=actor(request),
            now=timezone.now(),
        )
        return Response(epoch_shown(epoch))
