"""What is paid for what was delivered. Whole micro-credits only; every split adds up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction

PPM = 1_000_000  # parts per million in a whole
MS_PER_HOUR = 3_600_000


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


class Cause(StrEnum):
    """Who caused that less was delivered than contracted."""

    SITE = "site"
    TENANT = "tenant"
    MARKET = "market"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agreed to when the contract was made. No field is negative.

    Raises ValueError, with the name of the field, for an amount that makes no sense.
    """

    payment_micro: int  # escrow of the buyer for all that was contracted, micro-credits
    contracted: int  # samples
    bond_micro: int  # of the seller, micro-credits
    price_micro: int  # micro-credits per GPU-hour
    reserve_micro: int  # micro-credits per GPU-hour the site accepts at least
    kappa_ppm: int = 500_000  # penalty per sample missing, parts per million of the rate
    dead_band_ppm: int = 50_000  # of what was due that may be missing without a penalty
    tolerance_ppm: int = 20_000  # by which the two counters may differ, of the larger

    def __post_init__(self) -> None:
        _check_amounts(self)
        for name in ("dead_band_ppm", "tolerance_ppm"):
            if getattr(self, name) > PPM:
                raise ValueError(f"{name} is more than the whole: {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was measured. Raises ValueError, with the name of the field, for a negative amount."""

    delivered: int  # samples by the site agent's counter
    counted: int | None  # samples by the trainer's counter; None = it did not report
    gpu_ms: int  # GPU-milliseconds the job held
    due: int | None = None  # samples due when the contract ended early; None = all of them
    cause: Cause = Cause.NONE  # of a shortfall
    started: bool = True

    def __post_init__(self) -> None:
        _check_amounts(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who gets which part of the escrow and of the bond, micro-credits; both add up exactly."""

    accepted: int  # samples both counters vouch for; those beyond the contract are not paid
    pay_micro: int  # escrow to the seller
    refund_micro: int  # escrow back to the buyer
    penalty_micro: int  # bond to the buyer
    bond_back_micro: int  # bond back to the seller
    shortfall: int  # samples missing beyond the dead-band by the site's fault
    disputed: bool  # the counters are too far apart: the figures hold if the lower one does


def settle_contract(terms: Terms, delivery: Delivery) -> Outcome:
    """Divide escrow and bond by what was delivered (economics.md, 3.5).

    The lower of the two counters is accepted. The seller is paid for it, capped at the contract;
    where the tenant caused the shortfall, at least the reserve price of the GPU time used, capped
    at the contracted GPU-hours, so that the escrow suffices. A shortfall the site caused costs
    kappa times the rate per sample missing beyond the dead-band, a site that did not even start
    its whole bond, and never more. Wherever a micro-credit must be rounded the buyer has it: pay
    is rounded down, the number of samples owed and the penalty up.
    """
    both = (
        delivery.delivered,
        delivery.delivered if delivery.counted is None else delivery.counted,
    )
    accepted = min(both)
    paid = settle(
        payment_micro=terms.payment_micro, contracted=terms.contracted, delivered=accepted
    )
    pay = paid.pay_micro
    if delivery.cause is Cause.TENANT:
        pay = max(pay, _running_cost_micro(terms, delivery.gpu_ms))
    shortfall = _shortfall(terms, delivery, accepted)
    penalty = _penalty_micro(terms, delivery, shortfall)
    return Outcome(
        accepted=accepted,
        pay_micro=pay,
        refund_micro=terms.payment_micro - pay,
        penalty_micro=penalty,
        bond_back_micro=terms.bond_micro - penalty,
        shortfall=shortfall,
        disputed=(max(both) - accepted) * PPM > terms.tolerance_ppm * max(both),
    )


def _running_cost_micro(terms: Terms, gpu_ms: int) -> int:
    """The reserve price of GPU time, at most that of the GPU-hours the escrow bought."""
    if terms.price_micro == 0:
        return 0
    used = terms.reserve_micro * gpu_ms // MS_PER_HOUR
    bought = terms.reserve_micro * terms.payment_micro // terms.price_micro
    return min(used, bought, terms.payment_micro)


def _shortfall(terms: Terms, delivery: Delivery, accepted: int) -> int:
    """Samples missing below the dead-band, if that is the site's fault."""
    if delivery.cause is not Cause.SITE:
        return 0
    due = terms.contracted if delivery.due is None else min(delivery.due, terms.contracted)
    return max(0, _divided_up((PPM - terms.dead_band_ppm) * due, PPM) - accepted)


def _penalty_micro(terms: Terms, delivery: Delivery, shortfall: int) -> int:
    if delivery.cause is Cause.SITE and not delivery.started:
        return terms.bond_micro
    if shortfall == 0:
        return 0
    owed = _divided_up(terms.payment_micro * terms.kappa_ppm * shortfall, terms.contracted * PPM)
    return min(owed, terms.bond_micro)


def _divided_up(amount: int, by: int) -> int:
    """The quotient, rounded up."""
    return -(-amount // by)


def _check_amounts(row: Terms | Delivery) -> None:
    for field in fields(row):
        amount = getattr(row, field.name)
        if isinstance(amount, int) and amount < 0:
            raise ValueError(f"{field.name} is negative: {amount}")
