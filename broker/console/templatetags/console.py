"""Filters and small parts of the console's templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any

from django import template
from django.core.paginator import Page
from django.template import Context
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from broker.console import charts, words
from federation.services.story import MACHINES

register = template.Library()


def _known(say: Callable[..., str]) -> Callable[..., str]:
    """Django hands filters an empty text where an attribute of nothing was asked for."""

    @wraps(say)
    def filtered(value: Any, *options: int) -> str:
        return say(None if value == "" else value, *options)

    return filtered


for _filter in (
    *(words.money, words.price, words.exact),
    *(words.number, words.count, words.percent, words.span),
):
    register.filter(_filter.__name__, _known(_filter))

#: words that are no machine's states -> tone
TONES = {
    "assignment": {"recorded": "wait", "waiting": "wait", "placed": "good", "dropped": "warn"},
    "check": {"holds": "good", "fails": "bad"},
    "proof": {
        **{"certified": "done", "not certified": "bad"},
        **{"sums to zero": "done", "does not sum to zero": "bad"},
    },
}


@register.inclusion_tag("console/parts/pill.html")
def pill(machine: str, state: str) -> dict[str, str]:
    """A state as word, shape and colour; the tone comes from the machine's own table."""
    return {"tone": tone_of(machine, state), "word": state.replace("_", " ")}


def tone_of(machine: str, state: str) -> str:
    known = MACHINES.get(machine)
    if known is None:
        return TONES[machine].get(state, "idle")
    return str(known.tones[known.states(state)])


@register.simple_tag(takes_context=True)
def turn(context: Context, page: Page[Any], number: int) -> str:
    """The address of another page of the same list, all else as it is."""
    query = context["request"].GET.copy()
    query[getattr(page, "key", "page")] = str(number)
    return f"?{query.urlencode()}"


@register.filter
def moment(at: datetime | None) -> SafeString | str:
    """A moment as a time of day; the whole of it, in UTC, on hover."""
    if at is None:
        return "–"
    full = words.in_full(at)
    text = words.moment(at, timezone.now())
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), full, text)


@register.filter
def short(value: object) -> str:
    """The first letters of an id or a hash."""
    return str(value)[:8]


@register.filter
def of_total(part: float | None, whole: float | None) -> float:
    """A share in percent, 0 to 100, for a bar's width."""
    return 0.0 if not part or not whole else min(100.0, 100.0 * part / whole)


@register.filter
def less(a: int, b: int) -> int:
    return a - b


@register.filter
def lookup(table: dict[Any, Any], key: object) -> Any:
    """An entry of a table by a key that is itself a variable."""
    return table.get(key)


@register.filter
def latest(values: Sequence[float | None]) -> float | None:
    """The last known one of a trend."""
    return next((v for v in reversed(values) if v is not None), None)


@register.filter
def hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600.0


@register.inclusion_tag("console/parts/copy.html")
def copyable(text: str, shown: str = "") -> dict[str, str]:
    """A text that a button copies; `shown` stands in for a long one."""
    return {"text": str(text), "shown": shown or str(text)}


@register.inclusion_tag("console/parts/spark.html")
def spark(values: list[float | None], label: str) -> dict[str, Any]:
    """A small line of the last values; a gap where there was none."""
    return {"lines": charts.spark(values), "label": label}
