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


def worth_micro(samples: int, value_micro: int) -> int:
    """What samples are worth at a bid of micro-credits per million, rounded up.

    At least the product of the mathematics' floating-point numbers: a budget of the worth must pay
    for the work, and their last digit is not to decide that it does not.
    """
    worth = -(-samples * value_micro // MICRO)
    return worth + ((value_micro / MICRO) * (samples / MICRO) > worth / MICRO)


def samples_paid(budget_micro: int, value_micro: int) -> int:
    """How many samples a budget pays for at a bid of micro-credits per million, see `worth_micro`.

    0 or more; below 0 for a budget below 0.
    """
    samples = budget_micro * MICRO // value_micro
    return samples - ((value_micro / MICRO) * (samples / MICRO) > budget_micro / MICRO)


def as_credits(micro: int) -> float:
    """Micro-credits -> credits, for the mathematics only."""
    return micro / MICRO
