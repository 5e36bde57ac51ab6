"""The dividend of a consortium: zero-sum transfers part of the way from the market to a target.

Prices pay scarcity; a member that brings the demand can be left with next to nothing. The core is
convex, so with a target in the core every part of the way is as stable as its ends (economics.md,
3.6). Whole micro-credits; nothing here is decided by a solver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from economics.market import Array
from economics.settlement import split

MICRO = 1_000_000  # micro-credits in a credit
FINE = 1_000_000  # parts of a micro-credit that weigh in the split
CAP = 0.10  # of the turnover: no member pays or receives more, unless the venue says otherwise


@dataclass(frozen=True, slots=True)
class Dividend:
    """What each member receives (+) or pays (-)."""

    micro: tuple[int, ...]  # (N,) micro-credits; sums to zero exactly
    alpha: float  # the part of the way that was gone: less than asked where the cap binds
    capped: bool

    @property
    def transfer(self) -> Array:
        """The same in credits, (N,)."""
        return np.array(self.micro, dtype=float) / MICRO


def dividend(
    market: Array, target: Array, *, alpha: float, turnover: float, cap: float = CAP
) -> Dividend:
    """alpha x (target - market), scaled as a whole until nobody's part exceeds cap x turnover.

    `market` and `target` are payoffs (N,) with the same sum, `turnover` what was paid for GPUs in
    the epoch, all in credits. One factor for all keeps the result on the line between the two
    ends, and so in the core. Each part is within one micro-credit of the exact one. Raises
    ValueError for an alpha outside 0 to 1, or a negative turnover or cap.
    """
    check_alpha(alpha)
    if not (turnover >= 0 and cap >= 0):
        raise ValueError("turnover and cap must not be negative")
    wanted = alpha * (target - market)
    most = float(np.abs(wanted).max(initial=0.0))
    limit = np.floor(cap * turnover * MICRO) / MICRO
    factor = 1.0 if most <= limit else float(limit / most)
    return Dividend(zero_sum_micro(wanted * factor), alpha * factor, capped=factor < 1.0)


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless 0 <= alpha <= 1."""
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be between 0 and 1, is {alpha!r}")


def between(market: Array, target: Array, alpha: float) -> Array:
    """(1 - alpha) x market + alpha x target, credits, (N,); raises as `check_alpha`."""
    check_alpha(alpha)
    point: Array = (1.0 - alpha) * market + alpha * target
    return point


def zero_sum_micro(transfer: Array) -> tuple[int, ...]:
    """Whole micro-credits that sum to zero exactly, by largest remainder on both sides."""
    received, paid = np.maximum(transfer, 0.0), np.maximum(-transfer, 0.0)
    total = int(min(received.sum(), paid.sum()) * MICRO + 1 / FINE)
    if total == 0:
        return (0,) * transfer.size
    sides = [split(total, _weights(side)) for side in (received, paid)]
    return tuple(plus - minus for plus, minus in zip(*sides, strict=True))


def _weights(amounts: Array) -> list[int]:
    return [round(amount * MICRO * FINE) for amount in amounts.tolist()]
