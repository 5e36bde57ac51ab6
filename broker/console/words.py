"""Numbers and moments as an operator reads them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from federation.money import MICRO


def money(micro: int | None, places: int = 2) -> str:
    """Micro-credits as credits with 2 to 6 decimals: 66992000 -> "66.992"; thousands apart."""
    if micro is None:
        return "–"
    sign = "−" if micro < 0 else ""
    whole, part = divmod(abs(int(micro)), MICRO)
    decimals = f"{part:06d}".rstrip("0").ljust(places, "0")
    return f"{sign}{whole:,}.{decimals}"


def price(micro: int | None) -> str:
    """A price with four decimals, always, so that a column of them lines up."""
    if micro is None:
        return "–"
    return f"{micro / MICRO:,.4f}".replace("-", "−")


def exact(micro: int | None) -> str:
    """Micro-credits to the last decimal, for the columns of the ledger."""
    if micro is None:
        return "–"
    return money(micro, places=6)


def number(value: float | None, digits: int = 4) -> str:
    """A measured number with so many significant digits; whole numbers stay whole."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{int(value):,}".replace("-", "−")
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.{digits}g}".replace("-", "−")


def count(value: int | float | None) -> str:
    """Samples and the like, which run to milliards: 3800000 -> "3.8 M"."""
    if value is None:
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.4g} {unit}"
    return f"{value:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one in percent; a tiny one is said to be tiny, not zero."""
    if share is None:
        return "–"
    if share == 0:
        return "0 %"
    if 0 < share * 100 < 0.5 * 10**-digits:
        return f"<{10**-digits:g} %"
    return f"{share * 100:.{digits}f} %"


def span(seconds: float | None) -> str:
    """A length of time: 95 -> "1 min 35 s"."""
    if seconds is None:
        return "–"
    if abs(seconds) < 10:
        return f"{seconds:.3g} s".replace("-", "−")
    whole, sign = round(abs(seconds)), "−" if seconds < 0 else ""
    for size, unit, small, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            rest = whole % size // small
            return f"{sign}{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    if whole >= 60:
        return f"{sign}{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{sign}{whole} s"


def moment(at: datetime, now: datetime) -> str:
    """Time of day in UTC; with the date when it is not of today."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}"
    if at.year == now.year:
        return f"{at.day} {at:%b %H:%M}"
    return f"{at:%Y-%m-%d}"


def in_full(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
