"""Reads of rounds."""

from __future__ import annotations

from typing import Any

from federation.models import PoolPrice, Round
from federation.money import as_text
from federation.snapshot import unpack


def prices_of(round: Round) -> list[dict[str, Any]]:
    """What every pool cleared at, credits per GPU-hour."""
    rows = PoolPrice.objects.filter(round=round).select_related("pool__site")
    return [
        {
            "pool": str(row.pool),
            "site": row.pool.site.name,
            "gpus": row.gpus,
            "reserve": as_text(row.reserve_micro),
            "price": as_text(row.price_micro),
            "rent": as_text(row.price_micro - row.reserve_micro),
            "traded_gpu_hours": row.traded_gpu_hours,
        }
        for row in sorted(rows, key=lambda r: str(r.pool))
    ]


def book_of(round: Round) -> dict[str, Any] | None:
    """The frozen `hanse.book/1` document, while its retention lasts."""
    snapshot = getattr(round, "snapshot", None)
    return unpack(snapshot.body) if snapshot is not None and snapshot.body else None


def clearing_of(round: Round) -> dict[str, Any] | None:
    """The `hanse.clearing/1` document, once there is one."""
    return unpack(round.clearing) if round.clearing else None
