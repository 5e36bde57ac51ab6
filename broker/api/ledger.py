"""The ledger over HTTP: does it hold, statements, files, money in and out, credit, reversals."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from broker.api.callers import actor, operator
from broker.api.serializers import Credits, StrictSerializer, Text, plain_name
from broker.api.shapes import answers
from broker.api.views import main_venue
from federation.errors import BadInput, FieldProblem, NotAllowed, NotFound
from federation.models import ChainHead, EntryGroup, Member, Tenant, User
from federation.money import as_text, to_micro
from federation.selectors.accounts import trial_balance
from federation.selectors.exports import ledger_csv, ledger_json
from federation.selectors.statements import month_of, month_statement, statement_document
from federation.services import funds
from federation.services.ledger import reverse
from federation.services.members import member_credit_set

FORMS = {"csv": (ledger_csv, "text/csv"), "json": (ledger_json, "application/json")}


class HeadOut(serializers.Serializer[Any]):
    """The end of a currency's chain: keep it elsewhere, and nobody can rewrite what is before."""

    currency = serializers.CharField()
    position = serializers.IntegerField()
    digest = serializers.CharField()


class LedgerOut(serializers.Serializer[Any]):
    """Sums that must all be zero, micro-credits, and the heads of the chains."""

    holds = serializers.BooleanField()
    entries_micro = serializers.IntegerField()
    balances_micro = serializers.IntegerField()
    unbalanced_groups = serializers.IntegerField()
    wrong_purses = serializers.IntegerField()
    heads = HeadOut(many=True)


class PurseOut(serializers.Serializer[Any]):
    purse = serializers.CharField()
    opening_micro = serializers.IntegerField()
    moved_micro = serializers.IntegerField()
    closing_micro = serializers.IntegerField()


class LineOut(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    position = serializers.IntegerField(help_text="in the chain")
    kind = serializers.CharField()
    key = serializers.CharField()
    purse = serializers.CharField()
    what = serializers.CharField(allow_blank=True)
    amount_micro = serializers.IntegerField(help_text="+ received, - paid")
    balance_micro = serializers.IntegerField(help_text="of the purse, after it")
    quote = serializers.UUIDField(allow_null=True, help_text="of a settlement: that its job cites")
    quote_code = serializers.CharField(allow_blank=True)
    quote_why = serializers.CharField(allow_blank=True)


class StatementOut(serializers.Serializer[Any]):
    """A member's month. Opening plus what moved is the closing balance."""

    format = serializers.CharField()
    member = serializers.CharField()
    currency = serializers.CharField()
    time_zone = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    opening_micro = serializers.IntegerField()
    closing_micro = serializers.IntegerField()
    purses = PurseOut(many=True)
    lines = LineOut(many=True)


class MoneyIn(StrictSerializer):
    """Whose money, and how much. One of `tenant` and `member`."""

    tenant = Text(required=False, validators=[plain_name])
    member = Text(required=False, validators=[plain_name])
    amount = Credits()
    key = Text(required=False, max_length=120, help_text="the same key again posts nothing")


class PostedOut(serializers.Serializer[Any]):
    posted = serializers.BooleanField(help_text="false: this key was posted before")
    key = serializers.CharField()


class CreditIn(StrictSerializer):
    """How far a member's earnings may go below zero for its bonds."""

    amount = Credits(least="0", allow_null=True, help_text="null: as the venue's rules say")


class CreditOut(serializers.Serializer[Any]):
    member = serializers.CharField()
    amount = serializers.CharField(allow_null=True, help_text="credits as decimal text")


class ReversalIn(StrictSerializer):
    """The key of the group to take back, as statements show it, and why."""

    key = Text(max_length=200)
    why = Text(max_length=300)


class LedgerView(APIView):
    """Does the whole ledger add up?"""

    @extend_schema(operation_id="ledger_get", responses=answers({200: LedgerOut}, 403))
    def get(self, request: Request) -> Response:
        """The trial balance and the heads of the chains. Operators only."""
        operator(request)
        found = trial_balance()
        heads = ChainHead.objects.order_by("currency")
        return Response(
            {
                "holds": found.holds,
                "entries_micro": found.entries_micro,
                "balances_micro": found.balances_micro,
                "unbalanced_groups": found.unbalanced_groups,
                "wrong_purses": found.wrong_purses,
                "heads": list(heads.values("currency", "position", "digest")),
            }
        )


class LedgerExport(APIView):
    """The whole ledger as a file."""

    @extend_schema(
        operation_id="ledger_export",
        parameters=[OpenApiParameter("form", str, enum=sorted(FORMS), default="json")],
        responses=answers({(200, "application/json"): OpenApiTypes.BINARY}, 403, 422),
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Every group in the order of the chains, as `json` or `csv`. Operators only."""
        operator(request)
        form = request.query_params.get("form", "json")
        if form not in FORMS:
            raise BadInput(FieldProblem("form", "csv or json is expected"))
        pieces, kind = FORMS[form]
        name = f'attachment; filename="ledger.{form}"'
        return StreamingHttpResponse(
            pieces(), content_type=kind, headers={"Content-Disposition": name}
        )


class Statements(APIView):
    """A member's month: operators see all, members their own."""

    @extend_schema(
        operation_id="statements_get",
        parameters=[
            OpenApiParameter("month", str, description="such as 2026-11; this month if left out")
        ],
        responses=answers({200: StatementOut}, 403, 404, 422),
    )
    def get(self, request: Request, name: str) -> Response:
        """Every purse of the member and of its tenants: opened, moved, closed."""
        user: Any = request.user
        own = isinstance(user, User) and user.member is not None and user.tenant is None
        if not (isinstance(user, User) and (user.is_staff or own)):
            raise NotAllowed("This account acts for no member.", code="no_member")
        member = Member.objects.filter(name=name).first()
        if member is None or not (user.is_staff or user.member_id == member.pk):
            raise NotFound("There is no such member.")
        month = request.query_params.get("month", f"{timezone.now():%Y-%m}")
        at, venue = month_of(month), main_venue()
        found = month_statement(member, venue=venue, year=at[0], month=at[1])
        return Response(statement_document(found))


MONEY_REFUSALS = (400, 403, 404, 409, 413, 415, 422)


class Deposits(APIView):
    """Money in."""

    @extend_schema(
        operation_id="deposits_post",
        request=MoneyIn,
        responses=answers({201: PostedOut}, *MONEY_REFUSALS),
    )
    def post(self, request: Request) -> Response:
        """Pay a tenant's free funds, or a member's earnings, up. Operators only."""
        return _money(request, funds.deposit, funds.member_deposit)


class Withdrawals(APIView):
    """Money out."""

    @extend_schema(
        operation_id="withdrawals_post",
        request=MoneyIn,
        responses=answers({201: PostedOut}, *MONEY_REFUSALS),
    )
    def post(self, request: Request) -> Response:
        """Pay a tenant's free funds, or a member's earnings, out. Operators only."""
        return _money(request, funds.withdraw, funds.member_withdraw)


class MemberCredit(APIView):
    """A member's credit: cover for its bonds without a deposit."""

    @extend_schema(
        operation_id="members_credit",
        request=CreditIn,
        responses=answers({200: CreditOut}, *MONEY_REFUSALS),
    )
    def post(self, request: Request, name: str) -> Response:
        """Set how far its earnings may go below zero for its bonds. Operators only."""
        operator(request)
        body = CreditIn(data=request.data)
        body.is_valid(raise_exception=True)
        amount = body.validated_data["amount"]
        member = member_credit_set(
            member=_named(Member, name),
            credit_micro=None if amount is None else to_micro(amount),
            actor=actor(request),
            now=timezone.now(),
        )
        micro = member.credit_micro
        shown = None if micro is None else as_text(micro)
        return Response({"member": member.name, "amount": shown})


class Reversals(APIView):
    """Groups taken back by their opposite."""

    @extend_schema(
        operation_id="reversals_post",
        request=ReversalIn,
        responses=answers({201: PostedOut}, *MONEY_REFUSALS),
    )
    def post(self, request: Request) -> Response:
        """Take a deposit, issue, withdrawal, transfer, dividend or decay back. Operators only.

        What a contract reckons with is not taken back: that is what disputes are for.
        """
        operator(request)
        body = ReversalIn(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        group = EntryGroup.objects.filter(key=asked["key"]).first()
        if group is None:
            raise NotFound("There is no group with this key.")
        posted = reverse(
            group=group,
            key=f"reversal:{group.pk}",
            memo=asked["why"],
            actor=actor(request),
            now=timezone.now(),
        )
        answer = {"posted": posted, "key": f"reversal:{group.pk}"}
        return Response(answer, status=status.HTTP_201_CREATED)


def _money(request: Request, for_tenant: Any, for_member: Any) -> Response:
    """Move money by one of two services, for a tenant or for a member."""
    operator(request)
    body = MoneyIn(data=request.data)
    body.is_valid(raise_exception=True)
    asked = body.validated_data
    if ("tenant" in asked) == ("member" in asked):
        raise BadInput(FieldProblem("tenant", "name a tenant or a member, one of the two"))
    key = asked.get("key") or uuid.uuid4().hex
    common: dict[str, Any] = {
        "venue": main_venue(),
        "amount_micro": to_micro(asked["amount"]),
        "key": key,
        "actor": actor(request),
        "now": timezone.now(),
    }
    if "tenant" in asked:
        posted = for_tenant(tenant=_named(Tenant, asked["tenant"]), **common)
    else:
        posted = for_member(member=_named(Member, asked["member"]), **common)
    return Response({"posted": posted, "key": key}, status=status.HTTP_201_CREATED)


def _named(model: Any, name: str) -> Any:
    row = model.objects.filter(name=name).first()
    if row is None:
        raise NotFound(f"There is no {model.__name__.lower()} called {name}.")
    return row
