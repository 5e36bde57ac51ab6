"""A venue's offers and bids as one frozen document."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from federation.models import Offer, PoolPrice, Round, Venue
from federation.money import as_credits
from federation.selectors.admission import staying
from federation.selectors.affinity import Matrix, book_rows
from federation.snapshot.bids import LeftOut, Rows, bids_read, rows_make
from federation.snapshot.documents import spell_with
from federation.snapshot.view import PoolRow, View, view_read


@dataclass(frozen=True, slots=True)
class Book:
    """A frozen book and what was decided on the way to it."""

    text: bytes  #: `hanse.book/1` as canonical JSON
    bids: int
    offers: tuple[Offer, ...]
    left_out: tuple[LeftOut, ...]
    gpus: int


def book_build(*, venue: Venue, now: datetime, cells: Matrix | None = None) -> Book:
    """Freeze the venue's offers and bids as one document. Runs in the caller's transaction.

    `cells`: the affinity matrix, where it was read already.
    """
    stays = staying(venue, now)
    bids = [bid for bid in bids_read(venue) if bid[0] not in stays]
    view = view_read(venue, (bid[0] for bid in bids), now, cells)
    rows = rows_make(bids, view)
    document: dict[str, Any] = {
        "format": "hanse.book/1",
        "round_hours": venue.round_s / 3600.0,
        "pools": [_pool_row(row) for row in view.pools.values()],
        "affinity": _affinity_rows(view, rows),
        "rules": _rules(venue, view),
    }
    previous = _previous_prices(view)
    if previous:
        document["previous_prices"] = previous
    return Book(
        text=spell_with(document, "jobs", rows.jobs),
        bids=len(rows.jobs),
        offers=tuple(view.offers),
        left_out=tuple(rows.left_out),
        gpus=sum(row.gpus for row in view.pools.values()),
    )


def _rules(venue: Venue, view: View) -> dict[str, Any]:
    rules: dict[str, Any] = {
        "policy": venue.policy,
        "epsilon": venue.epsilon,
        "core_repair": venue.core_repair,
        "seller_share": venue.seller_share,
    }
    if venue.policy_parameters:
        rules["parameters"] = venue.policy_parameters
    caps = {
        row.name: as_credits(row.cap_micro)
        for row in view.pools.values()
        if row.cap_micro is not None
    }
    if caps:
        rules["price_cap"] = caps
    return rules


def _pool_row(row: PoolRow) -> dict[str, Any]:
    return {
        "id": row.name,
        "site": row.pool.site.member.name,
        "gpu": row.pool.gpu,
        "gpus": row.gpus,
        "reserve": as_credits(row.reserve_micro),
    }


def _affinity_rows(view: View, rows: Rows) -> list[dict[str, Any]]:
    """Speeds of the classes that bid."""
    return [
        {
            "pool": view.pools[pool].name,
            "class": rows.classes[job_class],
            "samples_per_s": round(speed, 9) if view.takes(pool, gpus) else 0.0,
            "gpus": gpus,
        }
        for pool, job_class, gpus, speed in book_rows(view.cells, view.pools, rows.sizes)
    ]


def _previous_prices(view: View) -> dict[str, float]:
    rounds = Round.objects.filter(venue=view.venue, published_at__isnull=False)
    last = rounds.order_by("-number").values_list("pk", flat=True).first()
    prices = PoolPrice.objects.filter(round=last).values_list("pool_id", "price_micro")
    return {
        view.pools[pool].name: as_credits(price) for pool, price in prices if pool in view.pools
    }
