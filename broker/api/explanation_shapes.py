"""Shapes of curves and explanations, for the schema: the values come ready from the selectors.

Both are documents of a format, so their credits are numbers, as in the files.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


def points(**options: Any) -> serializers.ListField:
    """[[GPU-hours, price], …]: from there on that price; null = none at any price."""
    pair = serializers.ListField(
        child=serializers.FloatField(allow_null=True), min_length=2, max_length=2
    )
    return serializers.ListField(child=pair, **options)


class WantedOut(serializers.Serializer[Any]):
    least = serializers.FloatField()
    most = serializers.FloatField()


class CrossingOut(serializers.Serializer[Any]):
    """Where the curves meet, other prices as posted, credits per GPU-hour."""

    lowest = serializers.FloatField(allow_null=True)
    highest = serializers.FloatField(allow_null=True)


class IntervalOut(serializers.Serializer[Any]):
    """Supporting prices, other prices free, credits per GPU-hour."""

    lowest = serializers.FloatField()
    highest = serializers.FloatField()
    position = serializers.FloatField(
        allow_null=True, help_text="of the price: 0 = lowest, 1 = highest"
    )
    posted = serializers.ChoiceField(choices=["below", "inside", "above"])


class MeritOut(serializers.Serializer[Any]):
    """One step of a pool's merit order: what a job would take there if it ran nowhere else."""

    job = serializers.CharField()
    worth = serializers.FloatField(help_text="credits per GPU-hour, after transfer and moving")
    gpu_hours = serializers.FloatField()
    cumulative = serializers.FloatField()
    sold = serializers.FloatField()


class CurvePoolOut(serializers.Serializer[Any]):
    """One pool. What too few tenants make is null to those who bid against them."""

    id = serializers.CharField()
    site = serializers.CharField(help_text="the member that owns it")
    gpu = serializers.CharField()
    gpu_hours = serializers.FloatField()
    reserve = serializers.FloatField()
    price = serializers.FloatField()
    sold = serializers.FloatField()
    wanted = WantedOut(allow_null=True, help_text="GPU-hours wanted at the price")
    at_any_price = serializers.FloatField(allow_null=True, help_text="GPU-hours owed to floors")
    demand = points(allow_null=True)
    supply = points()
    crossing = CrossingOut(allow_null=True)
    interval = IntervalOut(allow_null=True)
    merit = MeritOut(many=True, required=False, help_text="operators only")


class SupplyOut(serializers.Serializer[Any]):
    """One pool in the merit order of its GPU type."""

    pool = serializers.CharField()
    reserve = serializers.FloatField()
    gpu_hours = serializers.FloatField()
    cumulative = serializers.FloatField()
    sold = serializers.FloatField()
    price = serializers.FloatField()


class CurveGpuOut(serializers.Serializer[Any]):
    """All pools of one GPU type, as if they had one price."""

    gpu = serializers.CharField()
    gpu_hours = serializers.FloatField()
    sold = serializers.FloatField()
    price = serializers.FloatField(allow_null=True, help_text="mean of the GPU-hours sold")
    at_any_price = serializers.FloatField(allow_null=True)
    demand = points(allow_null=True)
    supply = points()
    crossing = CrossingOut(allow_null=True)
    merit = SupplyOut(many=True)


class CurvesOut(serializers.Serializer[Any]):
    """`hanse.curves/1` of a round."""

    round = serializers.IntegerField()
    scope = serializers.ChoiceField(choices=["all", "own_pools", "public"])
    format = serializers.CharField()
    book_sha256 = serializers.CharField()
    clearing_sha256 = serializers.CharField()
    pools = CurvePoolOut(many=True)
    gpus = CurveGpuOut(many=True)


class BoundOut(serializers.Serializer[Any]):
    what = serializers.CharField(help_text="demand, width, budget, floor, gang, capacity …")
    pool = serializers.CharField(allow_null=True)
    why = serializers.CharField()


class OfferedOut(serializers.Serializer[Any]):
    """One pool at one size, at the published price. Credits, or credits per GPU-hour."""

    pool = serializers.CharField()
    gpus = serializers.IntegerField(allow_null=True)
    gpu_hours = serializers.FloatField()
    msamples = serializers.FloatField()
    worth = serializers.FloatField(help_text="of a GPU-hour at the job's bid")
    price = serializers.FloatField()
    transfer = serializers.FloatField()
    moving = serializers.FloatField(help_text="credits, once")
    gain_per_gpu_hour = serializers.FloatField()
    gain = serializers.FloatField(help_text="of the round, at full use")
    sold = serializers.FloatField(help_text="GPU-hours awarded")


class BarredOut(serializers.Serializer[Any]):
    pool = serializers.CharField()
    reason = serializers.CharField()
    why = serializers.CharField()


class ThresholdOut(serializers.Serializer[Any]):
    """The smallest bid that gains at the published prices, credits per million samples."""

    pool = serializers.CharField()
    gpus = serializers.IntegerField(allow_null=True)
    value = serializers.FloatField()


class ChangeOut(serializers.Serializer[Any]):
    """What, changed alone, would have let the job gain more at the published prices."""

    kind = serializers.CharField(help_text="bid, budget, deadline, gpus or permission")
    pool = serializers.CharField(allow_null=True)
    why = serializers.CharField()
    value = serializers.FloatField(required=False, help_text="credits per million samples")
    budget = serializers.FloatField(required=False, help_text="credits")
    gpus = serializers.IntegerField(required=False, help_text="that the pool lacks")
    gain = serializers.FloatField(required=False, help_text="credits of the round")
    hours = serializers.FloatField(required=False, help_text="that its work takes")
    slack = serializers.FloatField(required=False, help_text="hours left before its deadline")


class ExplainedOut(serializers.Serializer[Any]):
    """A row of `hanse.explanations/1`."""

    id = serializers.CharField()
    site = serializers.CharField(help_text="the member it is at home with")
    value = serializers.FloatField(help_text="credits per million samples")
    status = serializers.CharField()
    gpu_hours = serializers.FloatField()
    msamples = serializers.FloatField()
    payment_micro = serializers.IntegerField()
    binding = BoundOut(many=True)
    gain = serializers.FloatField(help_text="credits the award leaves it")
    best_gain = serializers.FloatField(help_text="credits of its best choice at the prices")
    regret = serializers.FloatField()
    pools = OfferedOut(many=True)
    barred = BarredOut(many=True)
    gains_from = ThresholdOut(allow_null=True)
    changes = ChangeOut(many=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "class": serializers.CharField()}


class PoolIntervalOut(serializers.Serializer[Any]):
    pool = serializers.CharField()
    price = serializers.FloatField()
    interval = IntervalOut(allow_null=True)


class ExplanationOut(serializers.Serializer[Any]):
    """One job in one round."""

    round = serializers.IntegerField()
    job = ExplainedOut()
    intervals = PoolIntervalOut(many=True, help_text="of its pools")
