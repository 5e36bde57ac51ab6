"""JSON as strict as RFC 8259 and as small as the endpoint says."""

from __future__ import annotations

import json
import math
from typing import Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer

DEFAULT_LIMIT = 256 * 1024


class TooLarge(APIException):
    status_code = 413
    default_code = "too_large"


def strict_json(raw: bytes) -> Any:
    """Raises ValueError for anything that two readers could take for two different things.

    That is NaN and Infinity, a number beyond a float, a key that stands twice, a body that is not
    UTF-8, and nesting so deep that a reader may give up on it.
    """
    try:
        return json.loads(
            raw.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None


class StrictJSONParser(JSONParser):
    """Refuses what `strict_json` refuses and bodies over the view's `body_limit`."""

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        view = (parser_context or {}).get("view")
        limit = getattr(view, "body_limit", DEFAULT_LIMIT)
        raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.")
        try:
            data = strict_json(raw)
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise ParseError("An object is expected.")
        return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond any number here")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result
