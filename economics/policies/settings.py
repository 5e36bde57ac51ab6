"""The numbers an operator gives a policy under `rules.parameters`, read strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping

from economics.errors import BadBook, Problem


def positive(
    parameters: Mapping[str, object], name: str, default: float, *, most: float = math.inf
) -> float:
    """One number above 0 and at most `most`; raises BadBook with the path of the parameter."""
    value = parameters.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        limit = "" if math.isinf(most) else f" and at most {most:g}"
        raise _refused(name, f"must be a number above 0{limit}")
    return float(value)


def positives(
    parameters: Mapping[str, object], name: str, default: tuple[float, ...] | None
) -> tuple[float, ...]:
    """One or more numbers above 0, ascending; without a default they must be given."""
    values = parameters.get(name, default)
    if values is None:
        raise _refused(name, "is missing: the policy cannot do without it")
    if not isinstance(values, list | tuple) or not values:
        raise _refused(name, "must be a list of at least one number above 0")
    numbered = {f"{name}[{at}]": value for at, value in enumerate(values)}
    return tuple(sorted(positive(numbered, at, math.nan) for at in numbered))


def _refused(name: str, why: str) -> BadBook:
    return BadBook((Problem(f"rules.parameters.{name}", why),))
