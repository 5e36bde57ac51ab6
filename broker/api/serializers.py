"""Shapes of the API: what comes in is checked here by type, by the services by meaning."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from federation.models import Job, JobClass, Round
from federation.models.base import NAME_PATTERN
from federation.money import as_text
from federation.services.jobs import JobDraft

MAX_COMMAND = 64 * 1024
MAX_ENV = 200
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
FORBIDDEN_ENV = re.compile(r"(HANSE_|LD_)")
plain_name = RegexValidator(NAME_PATTERN, "letters, digits, dot, dash, underscore; at most 63")


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt key must not be dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError({key: "unknown field" for key in unknown})
        return super().to_internal_value(data)


class WholeNumber(serializers.IntegerField):
    """An integer as JSON writes one: no text, no true, no 3.0."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("a whole number is expected")
        return super().to_internal_value(data)


class Credits(serializers.DecimalField):
    """Money: decimal text (numbers are accepted too), at most six decimals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_digits=16, decimal_places=6, min_value=Decimal("0.000001"), **options)


def names(**options: Any) -> serializers.ListField:
    """A list of plain names."""
    return serializers.ListField(
        child=serializers.CharField(max_length=127, validators=[plain_name]),
        max_length=100,
        required=False,
        **options,
    )


class JobIn(StrictSerializer):
    """A job to submit."""

    name = serializers.CharField(max_length=63, validators=[plain_name])
    job_class = serializers.CharField(max_length=63, validators=[plain_name])
    command = serializers.CharField(max_length=MAX_COMMAND, trim_whitespace=False)
    setup = serializers.CharField(
        max_length=MAX_COMMAND, trim_whitespace=False, required=False, allow_blank=True
    )
    gpus = serializers.ListField(
        child=WholeNumber(min_value=1, max_value=100_000), min_length=1, max_length=64
    )
    gpu_kinds = names()
    samples = WholeNumber(min_value=1, max_value=10**15)
    value = Credits(help_text="credits per million samples")
    max_cost = Credits(help_text="credits, at most, over all rounds")
    deadline = serializers.DateTimeField(required=False, allow_null=True)
    env = serializers.DictField(
        child=serializers.CharField(max_length=32 * 1024, allow_blank=True, trim_whitespace=False),
        required=False,
    )
    preemptible = serializers.BooleanField(required=False)
    max_runtime_s = serializers.FloatField(
        required=False, allow_null=True, min_value=1, max_value=366 * 86400
    )
    grace_s = serializers.FloatField(required=False, allow_null=True, min_value=0, max_value=3600)
    sites_allow = names()
    sites_deny = names()
    pools = names()

    def validate_env(self, value: dict[str, str]) -> dict[str, str]:
        if len(value) > MAX_ENV:
            raise serializers.ValidationError(f"at most {MAX_ENV} variables")
        for name in value:
            if not ENV_NAME.match(name):
                raise serializers.ValidationError({name: "not a name for a variable"})
            if FORBIDDEN_ENV.match(name):
                raise serializers.ValidationError({name: "HANSE_* and LD_* are not a job's to set"})
        return value

    def validate_gpus(self, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise serializers.ValidationError("a size stands twice")
        return value

    def draft(self) -> JobDraft:
        return JobDraft(**self.validated_data)


class Money(serializers.Field[Any, Any, Any, Any]):
    """Micro-credits as decimal text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(read_only=True, **options)

    def to_representation(self, value: int) -> str:
        return as_text(value)


class JobOut(serializers.ModelSerializer[Job]):
    """A job as its tenant sees it."""

    job_class = serializers.CharField(source="job_class.name")
    tenant = serializers.CharField(source="tenant.name")
    state = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()
    value = serializers.SerializerMethodField()
    max_cost = serializers.SerializerMethodField()
    spent = serializers.SerializerMethodField()
    held = serializers.SerializerMethodField()
    attempt = serializers.SerializerMethodField()
    site = serializers.SerializerMethodField()
    pool = serializers.SerializerMethodField()
    predicted_samples_per_s = serializers.SerializerMethodField()
    samples_per_s = serializers.SerializerMethodField()
    price = serializers.SerializerMethodField()
    loss = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = (
            "id",
            "name",
            "kind",
            "parent",
            "job_class",
            "tenant",
            "state",
            "reason",
            "gpus",
            "gpu_kinds",
            "samples",
            "samples_done",
            "value",
            "max_cost",
            "spent",
            "held",
            "deadline",
            "preemptible",
            "created_at",
            "updated_at",
            "ended_at",
            "attempt",
            "site",
            "pool",
            "predicted_samples_per_s",
            "samples_per_s",
            "price",
            "loss",
        )

    def _lease(self, job: Job) -> Any:
        leases = getattr(job, "newest_lease", None)
        return leases[0] if leases else None

    def get_state(self, job: Job) -> str:
        return job.state.upper()

    def get_reason(self, job: Job) -> dict[str, str] | None:
        if job.state == "pending" and job.outcome_code not in ("", "awarded"):
            return {"code": job.outcome_code, "message": job.outcome_why}
        return {"code": job.reason_code, "message": job.reason} if job.reason_code else None

    def get_value(self, job: Job) -> str:
        return as_text(job.value_micro)

    def get_max_cost(self, job: Job) -> str:
        return as_text(job.max_cost_micro)

    def get_spent(self, job: Job) -> str:
        return as_text(job.spent_micro)

    def get_held(self, job: Job) -> str:
        return as_text(job.held_micro)

    def get_attempt(self, job: Job) -> int | None:
        lease = self._lease(job)
        return lease.attempt if lease else None

    def get_site(self, job: Job) -> str | None:
        lease = self._lease(job)
        return lease.site.name if lease else None

    def get_pool(self, job: Job) -> str | None:
        lease = self._lease(job)
        return str(lease.pool) if lease else None

    def get_predicted_samples_per_s(self, job: Job) -> float | None:
        lease = self._lease(job)
        return lease.predicted_samples_per_s if lease else None

    def get_samples_per_s(self, job: Job) -> float | None:
        lease = self._lease(job)
        return lease.measured_samples_per_s if lease else None

    def get_price(self, job: Job) -> str | None:
        lease = self._lease(job)
        contracts = lease.contracts.all() if lease else []
        newest = max(contracts, key=lambda c: c.sequence, default=None)
        return as_text(newest.price_micro) if newest else None

    def get_loss(self, job: Job) -> float | None:
        lease = self._lease(job)
        return lease.loss if lease else None


class ClassIn(StrictSerializer):
    """A job class to register."""

    name = serializers.CharField(max_length=63, validators=[plain_name])
    title = serializers.CharField(max_length=200, required=False, allow_blank=True)


class ClassOut(serializers.ModelSerializer[JobClass]):
    owner = serializers.CharField(source="owner.name", default=None)

    class Meta:
        model = JobClass
        fields = ("id", "name", "title", "owner", "created_at")


class RoundOut(serializers.ModelSerializer[Round]):
    """A round as everybody may see it: no single bid shows."""

    venue = serializers.CharField(source="venue.name")
    opened_at = serializers.DateTimeField(source="created_at")
    state = serializers.SerializerMethodField()
    offers = serializers.IntegerField(source="offer_count")
    surplus = serializers.FloatField(source="welfare")
    traded_gpus = serializers.SerializerMethodField()
    snapshot_sha256 = serializers.SerializerMethodField()
    void = serializers.SerializerMethodField()

    class Meta:
        model = Round
        fields = (
            "number",
            "venue",
            "state",
            "opened_at",
            "closes_at",
            "published_at",
            "bids",
            "offers",
            "offered_gpus",
            "traded_gpus",
            "traded_gpu_hours",
            "surplus",
            "bound",
            "gap",
            "regret",
            "certified",
            "snapshot_sha256",
            "clearing_sha256",
            "void",
        )

    def get_state(self, round: Round) -> str:
        return round.state.upper()

    def get_traded_gpus(self, round: Round) -> float:
        return round.traded_gpu_hours / (round.venue.round_s / 3600)

    def get_snapshot_sha256(self, round: Round) -> str | None:
        snapshot = getattr(round, "snapshot", None)
        return snapshot.sha256 if snapshot else None

    def get_void(self, round: Round) -> dict[str, str] | None:
        return {"code": round.void_code, "message": round.void_why} if round.void_code else None
