"""Shapes of the API: what comes in is checked here by type, by the services by meaning."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from broker.api.fields import Credits as Credits
from broker.api.fields import Flag as Flag
from broker.api.fields import Moment as Moment
from broker.api.fields import Number as Number
from broker.api.fields import Seconds as Seconds
from broker.api.fields import StrictSerializer as StrictSerializer
from broker.api.fields import Text as Text
from broker.api.fields import WholeNumber as WholeNumber
from broker.api.model_in import ModelIn
from broker.api.shapes import QuotedOut, Reason
from federation.machines.job import JobState
from federation.machines.round import RoundState
from federation.models import Job, JobClass, Round
from federation.models.base import NAME_PATTERN
from federation.money import as_text
from federation.selectors.quoted import quoted_shown
from federation.services.jobs import JobDraft

MAX_COMMAND = 64 * 1024
MAX_ENV = 200
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
FORBIDDEN_ENV = re.compile(r"(HANSE_|LD_)")
plain_name = RegexValidator(NAME_PATTERN, "letters, digits, dot, dash, underscore; at most 63")
pool_name = RegexValidator(
    NAME_PATTERN.replace(r"\Z", r"\.") + NAME_PATTERN.removeprefix("^"),
    "SITE.POOL, such as north.a100",
)


def names(check: RegexValidator = plain_name, **options: Any) -> serializers.ListField:
    """A list of plain names."""
    return serializers.ListField(
        child=Text(max_length=127, validators=[check]), max_length=100, required=False, **options
    )


EXAMPLE = OpenApiExample(
    "A training job",
    request_only=True,
    value={
        "name": "resnet-night",
        "job_class": "resnet50-b256-amp",
        "command": "python train.py --epochs 90",
        "gpus": [4, 8],
        "gpu_kinds": ["H100"],
        "samples": 115_000_000,
        "value": "4.50",
        "max_cost": "400.00",
        "deadline": "2027-01-31T18:00:00Z",
        "env": {"EPOCHS": "90"},
        "preemptible": True,
    },
)
SMALLEST = OpenApiExample(
    "The least a job needs",
    request_only=True,
    value={
        "name": "probe-1",
        "job_class": "cnn",
        "command": "python train.py",
        "gpus": [1],
        "samples": 100_000,
        "value": "500",
        "max_cost": "60",
    },
)


@extend_schema_serializer(examples=[EXAMPLE, SMALLEST])
class JobIn(StrictSerializer):
    """A job to submit."""

    name = Text(max_length=63, validators=[plain_name])
    job_class = Text(max_length=63, validators=[plain_name])
    command = Text(max_length=MAX_COMMAND, help_text="the only field that a shell ever sees")
    setup = Text(max_length=MAX_COMMAND, required=False, allow_blank=True)
    gpus = serializers.ListField(
        child=WholeNumber(min_value=1, max_value=100_000),
        min_length=1,
        max_length=64,
        required=False,
        help_text="gang sizes, any one of which will do; all GPUs at one site. May be left out "
        "when `model` is given: then the planner chooses",
    )
    gpu_kinds = names(help_text="kinds it may run on; none = any")
    samples = WholeNumber(min_value=1, max_value=10**15)
    value = Credits(help_text="credits per million samples")
    max_cost = Credits(help_text="credits, at most, over all rounds")
    deadline = Moment(required=False, allow_null=True)
    env = serializers.DictField(child=Text(max_length=32 * 1024, allow_blank=True), required=False)
    preemptible = Flag(required=False)
    max_runtime_s = Seconds(required=False, allow_null=True, min_value=1, max_value=366 * 86400)
    grace_s = Seconds(required=False, allow_null=True, min_value=0, max_value=3600)
    sites_allow = names()
    sites_deny = names()
    pools = names(pool_name, help_text="SITE.POOL; none = any")
    model = ModelIn(required=False, allow_null=True)
    quote = serializers.UUIDField(
        required=False, allow_null=True, help_text="an answered quote of this very job"
    )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            self.fields["gpus"].required = data.get("model") is None
        return super().to_internal_value(data)

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


def words(states: type[JobState] | type[RoundState]) -> dict[str, Any]:
    """The states as the API writes them, for the schema."""
    return {"type": "string", "enum": [state.name for state in states]}


class JobOut(serializers.ModelSerializer[Job]):
    """A job as its tenant sees it."""

    job_class = serializers.CharField(source="job_class.name")
    tenant = serializers.CharField(source="tenant.name")
    gpus = serializers.ListField(child=serializers.IntegerField())
    gpu_kinds = serializers.ListField(child=serializers.CharField())
    state = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()
    value = serializers.SerializerMethodField(method_name="get_bid")
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
    quoted = serializers.SerializerMethodField()

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
            "quote",
            "quoted",
        )

    def _lease(self, job: Job) -> Any:
        leases = getattr(job, "newest_lease", None)
        return leases[0] if leases else None

    @extend_schema_field(words(JobState))
    def get_state(self, job: Job) -> str:
        return job.state.upper()

    @extend_schema_field(Reason(allow_null=True))
    def get_reason(self, job: Job) -> dict[str, str] | None:
        if job.state == "pending" and job.outcome_code not in ("", "awarded"):
            return {"code": job.outcome_code, "message": job.outcome_why}
        return {"code": job.reason_code, "message": job.reason} if job.reason_code else None

    def get_bid(self, job: Job) -> str:
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

    @extend_schema_field(QuotedOut(allow_null=True))
    def get_quoted(self, job: Job) -> dict[str, Any] | None:
        return quoted_shown(job)


class ClassIn(StrictSerializer):
    """A job class to register."""

    name = Text(max_length=63, validators=[plain_name])
    title = Text(max_length=200, required=False, allow_blank=True)

    def validate_title(self, value: str) -> str:
        if any(unicodedata.category(letter).startswith("C") for letter in value):
            raise serializers.ValidationError("no control, direction or line characters")
        return value


class ClassOut(serializers.ModelSerializer[JobClass]):
    owner = serializers.CharField(source="owner.name", default=None, allow_null=True)

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

    @extend_schema_field(words(RoundState))
    def get_state(self, round: Round) -> str:
        return round.state.upper()

    def get_traded_gpus(self, round: Round) -> float:
        return round.traded_gpu_hours / (round.venue.round_s / 3600)

    def get_snapshot_sha256(self, round: Round) -> str | None:
        snapshot = getattr(round, "snapshot", None)
        return snapshot.sha256 if snapshot else None

    @extend_schema_field(Reason(allow_null=True))
    def get_void(self, round: Round) -> dict[str, str] | None:
        return {"code": round.void_code, "message": round.void_why} if round.void_code else None
