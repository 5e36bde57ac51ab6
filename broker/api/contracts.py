"""Contracts, the trainer's counts under them, and disputes about them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from broker.api.callers import actor, operator
from broker.api.serializers import Flag, StrictSerializer, Text, WholeNumber
from broker.api.shapes import Reason, answers
from economics.settlement import Cause
from federation.errors import NotAllowed, NotFound
from federation.models import Contract, Dispute
from federation.selectors.contracts_shown import contract_shown, dispute_shown
from federation.selectors.disputes import contracts_visible, disputes_visible, party_of
from federation.services.counts import count_add
from federation.services.disputes import (
    dispute_decide,
    dispute_open,
    dispute_withdraw,
    evidence_add,
)

MOST_SAMPLES = 10**15


class CountIn(StrictSerializer):
    """What the tenant's trainer has counted under a contract so far."""

    seq = WholeNumber(min_value=1, max_value=2**31 - 1, help_text="1, 2, 3 …: a repeat is free")
    samples = WholeNumber(min_value=0, max_value=MOST_SAMPLES)
    last = Flag(default=False, help_text="it counts no more")


class CountOut(serializers.Serializer[Any]):
    seq = serializers.IntegerField()
    samples = serializers.IntegerField()
    last = serializers.BooleanField()


class ObjectionIn(StrictSerializer):
    """What is wrong with a contract's figures."""

    code = Text(max_length=64, help_text="a word for a machine, such as fewer_samples")
    why = Text(max_length=1000)
    claimed = WholeNumber(
        min_value=0, max_value=MOST_SAMPLES, required=False, help_text="samples delivered"
    )


class EvidenceIn(StrictSerializer):
    text = Text(max_length=4000)
    body = serializers.DictField(child=serializers.JSONField(), required=False)


class DecisionIn(StrictSerializer):
    """What counts, and whose doing a shortfall is."""

    accepted = WholeNumber(min_value=0, max_value=MOST_SAMPLES)
    cause = serializers.ChoiceField(choices=[cause.value for cause in Cause])
    why = Text(max_length=1000)


class ReasonIn(StrictSerializer):
    why = Text(max_length=1000)


class ContractOut(serializers.Serializer[Any]):
    """Samples promised at a rate. Money is credits as decimal text, prices per GPU-hour."""

    id = serializers.UUIDField()
    job = serializers.UUIDField()
    job_name = serializers.CharField()
    attempt = serializers.IntegerField()
    sequence = serializers.IntegerField()
    site = serializers.CharField()
    tenant = serializers.CharField()
    state = serializers.CharField()
    basis = serializers.CharField(help_text="samples; gpu_ms for a probe")
    gpus = serializers.IntegerField()
    rules = serializers.IntegerField(allow_null=True, help_text="version it is settled by")
    price = serializers.CharField()
    reserve = serializers.CharField()
    contracted = serializers.IntegerField()
    delivered = serializers.IntegerField(help_text="as the site's agent counted")
    counted = serializers.IntegerField(allow_null=True, help_text="the trainer's last count")
    due = serializers.IntegerField(allow_null=True, help_text="until it ended")
    accepted = serializers.IntegerField(allow_null=True, help_text="paid for")
    cause = serializers.CharField(allow_blank=True, help_text="of a shortfall")
    gpu_seconds = serializers.FloatField()
    escrow = serializers.CharField()
    bond = serializers.CharField()
    paid = serializers.CharField(allow_null=True)
    refunded = serializers.CharField(allow_null=True)
    penalty = serializers.CharField(allow_null=True, help_text="of the bond, to the tenant")
    quote = serializers.UUIDField(allow_null=True, help_text="that its job cites")
    quote_reason = Reason(allow_null=True, help_text="how the settled line stands to that quote")
    created_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField(allow_null=True)
    final_at = serializers.DateTimeField(allow_null=True, help_text="objections end then")


class EvidenceOut(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    actor = serializers.CharField()
    text = serializers.CharField()
    body = serializers.JSONField()


class DecisionOut(serializers.Serializer[Any]):
    accepted = serializers.IntegerField()
    cause = serializers.CharField()
    why = serializers.CharField()
    by = serializers.CharField()
    at = serializers.DateTimeField()


class DisputeOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    contract = serializers.UUIDField()
    state = serializers.CharField()
    by = serializers.CharField(help_text="broker, tenant or site")
    code = serializers.CharField()
    why = serializers.CharField()
    claimed = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    evidence = EvidenceOut(many=True)
    decision = DecisionOut(allow_null=True)


class ContractViewSet(viewsets.GenericViewSet[Contract]):
    """Contracts that concern the caller: its jobs', its sites', or all to an operator."""

    lookup_value_converter = "uuid"
    filter_backends = ()
    queryset = Contract.objects.none()
    serializer_class = ContractOut

    def get_queryset(self) -> QuerySet[Contract]:
        user: Any = self.request.user
        return contracts_visible(user)

    @extend_schema(
        operation_id="contracts_list", responses=answers({200: ContractOut(many=True)}, 403, 422)
    )
    def list(self, request: Request) -> Response:
        """Newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([contract_shown(row) for row in page or ()])

    @extend_schema(operation_id="contracts_get", responses=answers({200: ContractOut}, 403, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One contract: what was promised, counted and paid."""
        return Response(contract_shown(self.get_object()))

    @extend_schema(
        operation_id="contracts_count",
        request=CountIn,
        responses=answers({200: CountOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def counts(self, request: Request, pk: UUID) -> Response:
        """The trainer's own count: the second of a contract's two counters. Tenants only."""
        contract = self.get_object()
        user: Any = request.user
        if party_of(user, contract) != Dispute.By.TENANT:
            raise NotAllowed("Only the tenant counts under its contracts.", code="not_the_tenant")
        body = CountIn(data=request.data)
        body.is_valid(raise_exception=True)
        count = count_add(
            contract=contract, **body.validated_data, actor=actor(request), now=timezone.now()
        )
        return Response({"seq": count.seq, "samples": count.samples, "last": count.last})

    @extend_schema(
        operation_id="contracts_dispute",
        request=ObjectionIn,
        responses=answers({201: DisputeOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def disputes(self, request: Request, pk: UUID) -> Response:
        """Object to the figures of a contract, within its window."""
        contract = self.get_object()
        user: Any = request.user
        by = party_of(user, contract)
        if by is None:
            raise NotAllowed("Only a party of the contract objects to it.", code="not_a_party")
        body = ObjectionIn(data=request.data)
        body.is_valid(raise_exception=True)
        told = {"claimed": None, **body.validated_data}
        dispute = dispute_open(
            contract=contract, by=by, actor=actor(request), **told, now=timezone.now()
        )
        headers = {"Location": f"/api/v1/disputes/{dispute.pk}"}
        return Response(dispute_shown(dispute), status=status.HTTP_201_CREATED, headers=headers)


class DisputeViewSet(viewsets.GenericViewSet[Dispute]):
    """Disputes of contracts that concern the caller."""

    lookup_value_converter = "uuid"
    filter_backends = ()
    queryset = Dispute.objects.none()
    serializer_class = DisputeOut

    def get_queryset(self) -> QuerySet[Dispute]:
        user: Any = self.request.user
        return disputes_visible(user).prefetch_related("evidence")

    @extend_schema(
        operation_id="disputes_list", responses=answers({200: DisputeOut(many=True)}, 403, 422)
    )
    def list(self, request: Request) -> Response:
        """Newest first."""
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response([dispute_shown(row) for row in page or ()])

    @extend_schema(operation_id="disputes_get", responses=answers({200: DisputeOut}, 403, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One dispute, its evidence and its decision."""
        return Response(dispute_shown(self.get_object()))

    @extend_schema(
        operation_id="disputes_evidence",
        request=EvidenceIn,
        responses=answers({201: DisputeOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def evidence(self, request: Request, pk: UUID) -> Response:
        """Bring evidence; it is kept as it was brought."""
        dispute = self.get_object()
        body = EvidenceIn(data=request.data)
        body.is_valid(raise_exception=True)
        told = {"body": {}, **body.validated_data}
        evidence_add(dispute=dispute, actor=actor(request), **told, now=timezone.now())
        return Response(dispute_shown(self.get_object()), status=status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="disputes_decide",
        request=DecisionIn,
        responses=answers({200: DisputeOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def decision(self, request: Request, pk: UUID) -> Response:
        """Decide, and post what follows from it. Operators only."""
        operator(request)
        body = DecisionIn(data=request.data)
        body.is_valid(raise_exception=True)
        dispute_decide(
            dispute=self.get_object(),
            **body.validated_data,
            actor=actor(request),
            now=timezone.now(),
        )
        return Response(dispute_shown(self.get_object()))

    @extend_schema(
        operation_id="disputes_withdraw",
        request=ReasonIn,
        responses=answers({200: DisputeOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: UUID) -> Response:
        """Take an objection of one's own back."""
        dispute = self.get_object()
        user: Any = request.user
        if party_of(user, dispute.contract) != dispute.by:
            raise NotFound("This is not your objection.", code="not_yours")
        body = ReasonIn(data=request.data)
        body.is_valid(raise_exception=True)
        dispute_withdraw(
            dispute=dispute,
            why=body.validated_data["why"],
            actor=actor(request),
            now=timezone.now(),
        )
        return Response(dispute_shown(self.get_object()))
