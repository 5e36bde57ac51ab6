"""Money is integer micro-credits inside and decimal text outside; floats never touch a balance."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

MICRO = 1_000_000
MAX_MICRO = 10**15  #: a milliard credits: beyond any sum a person means to type


def to_micro(credits: Decimal) -> int:
    """Credits as typed -> micro-credits, half-even on the seventh decimal."""
    return int((credits * MICRO).to_integral_value(rounding=ROUND_HALF_EVEN))


def as_text(micro: int) -> str:
    """Micro-credits -> decimal text without an exponent: 66992000 -> "66.992000"."""
    sign = "-" if micro < 0 else ""
    whole, part = divmod(abs(micro), MICRO)
    return f"{sign}{whole}.{part:06d}"


def as_credits(micro: int) -> float:
    """Micro-credits -> credits, for the mathematics only."""
    return micro / MICRO
