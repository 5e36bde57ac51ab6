"""Numbers and lists as the sentences of a round write them (compare reasons.py)."""

from __future__ import annotations

from collections.abc import Sequence


def amount(value: float) -> str:
    """Credits, GPU-hours or Msamples: six digits are enough for a sentence."""
    return f"{value:.6g}"


def gpus(count: float) -> str:
    """So many GPUs."""
    return f"{amount(count)} GPU{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
