"""The rules of the venue: shown, previewed, set, and agreed to by members."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from broker.api.callers import actor, caller_member, operator
from broker.api.serializers import StrictSerializer, Text, WholeNumber
from broker.api.shapes import answers
from broker.api.views import main_venue
from federation.errors import NotFound
from federation.models import Consent, Rules
from federation.money import as_text
from federation.selectors.rules import Preview, consent_missing, rules_values
from federation.services.rules import consent_give, rules_of, rules_preview, rules_set

EXAMPLE = OpenApiExample(
    "A higher penalty",
    request_only=True,
    value={"changes": {"kappa_ppm": 750_000}},
)


@extend_schema_serializer(examples=[EXAMPLE])
class ChangesIn(StrictSerializer):
    """Rules to change, by name; shares are parts per million."""

    changes = serializers.DictField(child=serializers.JSONField(), allow_empty=False)


class SetIn(ChangesIn):
    """A change that was previewed."""

    preview_sha256 = Text(max_length=64, help_text="of the preview of exactly this change")
    why = Text(max_length=300)


class ConsentIn(StrictSerializer):
    version = WholeNumber(min_value=1, max_value=2**31 - 1)


class RulesOut(serializers.Serializer[Any]):
    """The version that stands. Contracts keep the version that they were made under."""

    version = serializers.IntegerField()
    since = serializers.DateTimeField()
    actor = serializers.CharField()
    why = serializers.CharField()
    values = serializers.JSONField()
    agreed = serializers.ListField(child=serializers.CharField(), help_text="members")
    missing = serializers.ListField(child=serializers.CharField(), help_text="members")


class EffectOut(serializers.Serializer[Any]):
    """What one member gains or loses, credits as decimal text."""

    member = serializers.CharField()
    before = serializers.CharField()
    after = serializers.CharField()
    difference = serializers.CharField()


class PreviewOut(serializers.Serializer[Any]):
    """What the last settled contracts would have paid under the changed rules."""

    version = serializers.IntegerField(help_text="that stands")
    changes = serializers.JSONField()
    contracts = serializers.IntegerField(help_text="looked at")
    affected = serializers.IntegerField()
    bonds_before = serializers.CharField()
    bonds_after = serializers.CharField()
    effects = EffectOut(many=True)
    notes = serializers.ListField(
        child=serializers.CharField(), help_text="of changes that move no contract's money"
    )
    preview_sha256 = serializers.CharField()


class RulesView(APIView):
    """The rules that stand, and the next version of them."""

    @extend_schema(operation_id="rules_get", responses=answers({200: RulesOut}, 404))
    def get(self, request: Request) -> Response:
        """Everybody may read the rules."""
        return Response(_shown(rules_of(main_venue(), timezone.now())))

    @extend_schema(
        operation_id="rules_set",
        request=SetIn,
        responses=answers({201: RulesOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Make the next version. Refused without a fresh preview of the same change."""
        operator(request)
        body = SetIn(data=request.data)
        body.is_valid(raise_exception=True)
        made = rules_set(
            venue=main_venue(), **body.validated_data, actor=actor(request), now=timezone.now()
        )
        return Response(_shown(made), status=status.HTTP_201_CREATED)


class RulesPreview(APIView):
    """What a change would have meant."""

    @extend_schema(
        operation_id="rules_preview",
        request=ChangesIn,
        responses=answers({200: PreviewOut}, 400, 403, 404, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Recompute the last settled contracts under the changed rules. Operators only."""
        operator(request)
        body = ChangesIn(data=request.data)
        body.is_valid(raise_exception=True)
        preview = rules_preview(
            venue=main_venue(),
            changes=body.validated_data["changes"],
            now=timezone.now(),
            actor=actor(request),
        )
        return Response(_previewed(preview))


class RulesConsent(APIView):
    """A member's word that it accepts the rules, the dividend included."""

    @extend_schema(
        operation_id="rules_consent",
        request=ConsentIn,
        responses=answers({200: RulesOut}, 400, 403, 404, 409, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Agree to a version, with a member's own token."""
        member = caller_member(request)
        body = ConsentIn(data=request.data)
        body.is_valid(raise_exception=True)
        version = body.validated_data["version"]
        rules = Rules.objects.filter(venue=main_venue(), version=version).first()
        if rules is None:
            raise NotFound(f"There is no version {version} of the rules.")
        consent_give(rules=rules, member=member, actor=actor(request), now=timezone.now())
        return Response(_shown(rules))


def _shown(rules: Rules) -> dict[str, Any]:
    agreed = Consent.objects.filter(rules=rules).order_by("member__name")
    return {
        "version": rules.version,
        "since": rules.created_at,
        "actor": rules.actor,
        "why": rules.why,
        "values": rules_values(rules),
        "agreed": list(agreed.values_list("member__name", flat=True)),
        "missing": consent_missing(rules),
    }


def _previewed(preview: Preview) -> dict[str, Any]:
    return {
        "version": preview.version,
        "changes": preview.changes,
        "contracts": preview.contracts,
        "affected": preview.affected,
        "bonds_before": as_text(preview.bonds_before_micro),
        "bonds_after": as_text(preview.bonds_after_micro),
        "effects": [
            {
                "member": row.member,
                "before": as_text(row.before_micro),
                "after": as_text(row.after_micro),
                "difference": as_text(row.difference_micro),
            }
            for row in preview.effects
        ],
        "notes": list(preview.notes),
        "preview_sha256": preview.sha256,
    }
