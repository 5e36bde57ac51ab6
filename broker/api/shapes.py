"""Shapes that are only written, for the schema: the values come ready from the selectors."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers


class Reason(serializers.Serializer[Any]):
    """A word for a machine and a sentence for a person."""

    code = serializers.CharField()
    message = serializers.CharField()


class FieldError(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="path, such as env.KEY or gpus[0]")
    detail = serializers.CharField()
    code = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """RFC 9457: what every refusal looks like."""

    type = serializers.CharField(help_text="urn:hanse:problem:CODE")
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="for a machine")
    detail = serializers.CharField(help_text="for a person")
    errors = FieldError(  # type: ignore[assignment] # shadows a name of the framework
        many=True, required=False, help_text="one for each bad field"
    )


REFUSALS = {
    400: "The body is not JSON.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "The account may not do this.",
    404: "There is no such thing, or it is somebody else's.",
    409: "In conflict with the present state.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A field does not fit; `errors` names each.",
    429: "Too many requests; Retry-After says when to come back.",
}


def answers(ok: dict[Any, Any], *refusals: int) -> dict[Any, Any]:
    """The good answers and these refusals, with those that every endpoint has."""
    return ok | {
        (status, "application/problem+json"): OpenApiResponse(Problem, REFUSALS[status])
        for status in sorted({401, 429, *refusals})
    }


class AffinityOut(serializers.Serializer[Any]):
    """How fast a class runs on `gpus` GPUs of the pool together, samples/s."""

    job_class = serializers.CharField()
    gpus = serializers.IntegerField()
    declared = serializers.FloatField(allow_null=True)
    measured = serializers.FloatField(allow_null=True)
    believed = serializers.FloatField(
        help_text="what rounds reckon with; of a prior or extrapolated, what is shown and no round "
        "reckons with before a lease or a probe"
    )
    with_prior = serializers.FloatField(
        allow_null=True,
        help_text="of leases that nobody claimed: what they and a prior say, as source and "
        "interval do then; no round reckons with it",
    )
    low = serializers.FloatField(help_text="it lies between these with 90 %")
    high = serializers.FloatField()
    source = serializers.CharField(  # type: ignore[assignment] # shadows a name, too
        help_text="declared, probed, measured, blended, claim_unconfirmed, forecast, extrapolated, "
        "or a prior: neighbours, catalogue, operators, roofline"
    )
    priced = serializers.BooleanField(help_text="whether rounds reckon with it")
    reports = serializers.IntegerField(
        help_text="measured leases behind it; of a forecast measured steps, of a prior what it "
        "learnt from; 0 = a claim alone"
    )
    known_at = serializers.DateTimeField(
        help_text="when it was last measured; else when the model was fitted, the offer or the "
        "prior made"
    )


class OfferOut(serializers.Serializer[Any]):
    """One pool on offer. Money is credits per GPU-hour as decimal text."""

    site = serializers.CharField()
    member = serializers.CharField()
    pool = serializers.CharField(help_text="SITE.POOL")
    gpu = serializers.CharField()
    gpus = serializers.IntegerField()
    reserve = serializers.CharField()
    price = serializers.CharField(allow_null=True, help_text="of the last published round")
    offer_version = serializers.IntegerField()
    valid_until = serializers.DateTimeField(allow_null=True)
    note = serializers.CharField(allow_blank=True)
    affinities = AffinityOut(many=True)


class OffersOut(serializers.Serializer[Any]):
    results = OfferOut(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class PriceOut(serializers.Serializer[Any]):
    """What one pool cleared at: credits per GPU-hour as decimal text."""

    pool = serializers.CharField()
    site = serializers.CharField()
    gpus = serializers.IntegerField()
    reserve = serializers.CharField()
    price = serializers.CharField()
    rent = serializers.CharField(help_text="price above the reserve")
    traded_gpu_hours = serializers.FloatField()


class PricesOut(serializers.Serializer[Any]):
    results = PriceOut(many=True)


class VerdictOut(serializers.Serializer[Any]):
    """What one round said of the job."""

    round = serializers.IntegerField(allow_null=True)
    at = serializers.DateTimeField(allow_null=True)
    outcome = serializers.CharField()
    code = serializers.CharField()
    why = serializers.CharField()
    pool = serializers.CharField(allow_null=True)
    price = serializers.CharField(allow_null=True)


class StoryOut(serializers.Serializer[Any]):
    """One change of the job."""

    at = serializers.DateTimeField()
    event = serializers.CharField()
    to = serializers.CharField(allow_blank=True)
    who = serializers.CharField()
    code = serializers.CharField(allow_blank=True)
    why = serializers.CharField(allow_blank=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": serializers.CharField(allow_blank=True)}


class RefusalOut(serializers.Serializer[Any]):
    """A site that does not take the job, its tenant or its class now, by a rule of its own."""

    site = serializers.CharField()
    code = serializers.CharField()
    why = serializers.CharField(allow_blank=True)
    until = serializers.DateTimeField(help_text="it is asked again then, or when its rules change")


class WhyOut(serializers.Serializer[Any]):
    job = serializers.UUIDField()
    state = serializers.CharField()
    summary = serializers.CharField(help_text="the one sentence")
    rounds = VerdictOut(many=True)
    refusals = RefusalOut(many=True, help_text="newest first")
    story = StoryOut(many=True, help_text="oldest first")


class FundsOut(serializers.Serializer[Any]):
    currency = serializers.CharField()
    available = serializers.CharField()
    escrow = serializers.CharField()


class MeOut(serializers.Serializer[Any]):
    user = serializers.CharField()
    operator = serializers.BooleanField()
    member = serializers.CharField(allow_null=True)
    tenant = serializers.CharField(allow_null=True)
    funds = FundsOut(allow_null=True)


class PlacedOut(serializers.Serializer[Any]):
    """Where the job would have run in that round. Prices: credits per GPU-hour."""

    pool = serializers.CharField()
    gpus = serializers.IntegerField()
    samples = serializers.IntegerField(help_text="in the round")
    price = serializers.CharField(help_text="with the job in the book")
    price_before = serializers.CharField(help_text="as published")
    samples_per_s = serializers.FloatField(allow_null=True, help_text="believed, on these GPUs")
    payment = serializers.CharField(help_text="for the round")
    price_per_million = serializers.CharField(
        allow_null=True, help_text="payment for a million samples, at this rate"
    )
    plan = serializers.DictField(
        allow_null=True, help_text="how a described model is split over these GPUs"
    )


class WouldRunAtOut(serializers.Serializer[Any]):
    """The cheapest bid that gains at those prices, credits per million samples."""

    pool = serializers.CharField()
    value = serializers.CharField()


class QuoteAnswerOut(serializers.Serializer[Any]):
    runs = serializers.BooleanField()
    placed = PlacedOut(many=True)
    reason = Reason(allow_null=True, help_text="why it would not run")
    would_run_at = WouldRunAtOut(allow_null=True)
    displaces_own = serializers.ListField(
        child=serializers.UUIDField(), help_text="jobs of the caller that would have had less"
    )
    displaces_others = serializers.IntegerField(help_text="how many jobs of others")


class PinOut(serializers.Serializer[Any]):
    """The version of an offer that a quote is based on."""

    site = serializers.CharField()
    version = serializers.IntegerField()
    offer = serializers.UUIDField()


class QuotedOut(serializers.Serializer[Any]):
    """What the quote that a job cites said; kept with the job."""

    id = serializers.UUIDField()
    round = serializers.IntegerField()
    expires_at = serializers.DateTimeField()
    pool = serializers.CharField()
    gpus = serializers.IntegerField()
    price = serializers.CharField(help_text="credits per GPU-hour")
    samples = serializers.IntegerField(help_text="in the round")
    samples_per_s = serializers.FloatField(allow_null=True)
    payment = serializers.CharField(help_text="for the round")
    offers = PinOut(many=True)


class QuoteOut(serializers.Serializer[Any]):
    """What the last round would have said to one job more."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    round = serializers.IntegerField(help_text="whose book it was asked against")
    state = serializers.CharField(help_text="PENDING, RUNNING, DONE or FAILED")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    job_class = serializers.CharField()
    gpus = serializers.ListField(child=serializers.IntegerField())
    value = serializers.CharField()
    expires_at = serializers.DateTimeField(
        allow_null=True, help_text="until when a job may cite it; it can be read for 30 days"
    )
    offers = PinOut(many=True, help_text="what it is based on: every offer the job could use")
    plans = serializers.DictField(
        allow_null=True, help_text="of a described model: sizes, pools, cheapest, fastest, front"
    )
    failed = Reason(allow_null=True)
    answer = QuoteAnswerOut(allow_null=True)


class QuotesOut(serializers.Serializer[Any]):
    results = QuoteOut(many=True)


class ContributionOut(serializers.Serializer[Any]):
    """One tenant in one round. Money is credits of the round as decimal text."""

    tenant = serializers.CharField()
    jobs = serializers.IntegerField()
    gpu_hours = serializers.FloatField()
    share = serializers.FloatField(help_text="of the GPU-hours traded")
    worth = serializers.CharField(help_text="of its deliveries, less transfer and moving")
    paid = serializers.CharField()
    surplus = serializers.CharField(help_text="worth less paid")
    at_least = serializers.CharField(help_text="its contribution is certified not to be less")
    marginal = serializers.CharField(allow_null=True, help_text="null: not cleared without it")
    low = serializers.CharField(allow_null=True)
    high = serializers.CharField(allow_null=True)
    would_pay = serializers.CharField(allow_null=True, help_text="under VCG, for the same award")
    exact = serializers.BooleanField(allow_null=True)
    failed = Reason(allow_null=True)


class ReportOut(serializers.Serializer[Any]):
    """What tenants brought to a round."""

    round = serializers.IntegerField()
    state = serializers.CharField(help_text="PENDING, RUNNING, DONE or FAILED")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    share = serializers.FloatField(help_text="tenants below it are not cleared without")
    note = serializers.CharField()
    failed = Reason(allow_null=True)
    tenants = ContributionOut(many=True)
