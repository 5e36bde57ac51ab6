"""Fields that take JSON as it is written, and nothing that only looks like it."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from rest_framework import serializers

DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?\Z")


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt key must not be dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError(dict.fromkeys(unknown, "unknown field"))
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """Text as JSON writes it: a number or true is not quietly turned into one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if data is not serializers.empty and data is not None and not isinstance(data, str):
            raise serializers.ValidationError("text is expected")
        return super().run_validation(data)


class Flag(serializers.BooleanField):
    """true or false, and nothing that only looks like it."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("true or false is expected")
        return data


class WholeNumber(serializers.IntegerField):
    """An integer as JSON writes one: no text, no true, no 3.0."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("a whole number is expected")
        return super().to_internal_value(data)


class Seconds(serializers.FloatField):
    """A duration as a JSON number."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("a number of seconds is expected")
        if isinstance(data, int) and abs(data) > 2**62:
            raise serializers.ValidationError("too large")
        return super().to_internal_value(data)


class Credits(serializers.DecimalField):
    """Money: decimal text (numbers are accepted too), at most six decimals."""

    def __init__(self, *, least: str = "0.000001", **options: Any) -> None:
        super().__init__(max_digits=16, decimal_places=6, min_value=Decimal(least), **options)

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, str | int | float):
            raise serializers.ValidationError("credits as decimal text are expected")
        if isinstance(data, str) and not DECIMAL.match(data):
            raise serializers.ValidationError('credits as decimal text, such as "12.50"')
        return super().to_internal_value(data)


class Moment(serializers.DateTimeField):
    """A time that means the same everywhere."""

    def enforce_timezone(self, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise serializers.ValidationError("the time needs a zone, such as Z")
        return super().enforce_timezone(value)


class Number(serializers.FloatField):
    """A finite number as JSON writes one."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or abs(data) > 1e18:
            raise serializers.ValidationError("a number is expected")
        return super().to_internal_value(data)
