"""What is paid for what was delivered. Whole micro-credits only; every split adds up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Paid:
    """The two parts of an escrow, micro-credits: to the seller, and back to the buyer."""

    pay_micro: int
    refund_micro: int


def settle(*, payment_micro: int, contracted: int, delivered: int) -> Paid:
    """Pay for what was delivered at the contracted rate, never for more than was contracted.

    `contracted` and `delivered` are samples. The cap takes away the gain of claiming a lower
    speed than one has; payment per sample that of claiming a higher one (economics.md, 3.5).
    Fractions of a micro-credit stay with the buyer.
    """
    for name, amount in (
        ("payment_micro", payment_micro),
        ("contracted", contracted),
        ("delivered", delivered),
    ):
        if amount < 0:
            raise ValueError(f"{name} is negative: {amount}")
    if contracted == 0:
        return Paid(pay_micro=0, refund_micro=payment_micro)
    pay = payment_micro * min(delivered, contracted) // contracted
    return Paid(pay_micro=pay, refund_micro=payment_micro - pay)


def split(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Parts of `total` in proportion to `weights`, by largest remainder; they sum to the whole.

    Ties go to the earlier part. A negative total is split as its opposite is.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is negative")
    whole = sum(weights)
    if whole == 0:
        if total:
            raise ValueError("nothing to split by: the weights sum to zero")
        return (0,) * len(weights)
    if total < 0:
        return tuple(-part for part in split(-total, weights))
    shares = [Fraction(total * weight, whole) for weight in weights]
    parts = [int(share) for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda at: (parts[at] - shares[at], at))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return tuple(parts)
