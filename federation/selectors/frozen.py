"""Reads of what a solver needs of a round: its documents as stored, and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from federation.models import Round, Venue

SOLVE_SHARE = 0.8  #: of the venue's patience; the rest is for reading and recording


@dataclass(frozen=True, slots=True)
class Frozen:
    """A round's documents, packed as they are in the database."""

    venue: str
    book: bytes | None  #: None once its retention is over
    clearing: bytes | None
    limit_s: float


@dataclass(frozen=True, slots=True)
class Due:
    """A round that wants a solver."""

    round_id: UUID
    venue: str
    patience_s: float


def solve_limit_s(venue: Venue) -> float:
    """Seconds after which a solver of the venue's books is stopped from outside."""
    return SOLVE_SHARE * venue.solve_patience_s


def frozen(round_id: UUID) -> Frozen:
    """One round's documents. Raises Round.DoesNotExist."""
    round = Round.objects.select_related("venue", "snapshot").get(pk=round_id)
    snapshot = getattr(round, "snapshot", None)
    return Frozen(
        venue=round.venue.name,
        book=bytes(snapshot.body) if snapshot is not None and snapshot.body else None,
        clearing=bytes(round.clearing) if round.clearing else None,
        limit_s=solve_limit_s(round.venue),
    )


def studied_rounds(round_id: UUID, parameters: Mapping[str, Any]) -> list[UUID]:
    """The rounds that a question is about, oldest first; the one it was asked of is the last.

    `parameters`: `epoch` names them all, `rounds` says how many; else it is that one alone.
    """
    if "epoch" in parameters:
        return [UUID(text) for text in parameters["epoch"]]
    count = int(parameters.get("rounds", 1))
    if count == 1:
        return [round_id]
    last = Round.objects.defer("clearing").get(pk=round_id)
    rows = Round.objects.filter(
        venue=last.venue_id,
        number__lte=last.number,
        published_at__isnull=False,
        clearing__isnull=False,
        snapshot__body__isnull=False,
    )
    return list(rows.order_by("-number").values_list("pk", flat=True)[:count])[::-1]


def dues(rounds: Sequence[UUID]) -> list[Due]:
    """Where these rounds belong, in the order given."""
    found = {
        pk: Due(pk, name, patience_s)
        for pk, name, patience_s in Round.objects.filter(pk__in=rounds).values_list(
            "pk", "venue__name", "venue__solve_patience_s"
        )
    }
    return [found[pk] for pk in rounds if pk in found]


def studied(venue: Venue) -> Round | None:
    """The last round of a venue whose book and clearing can still be read."""
    return (
        Round.objects.filter(
            venue=venue,
            published_at__isnull=False,
            clearing__isnull=False,
            snapshot__body__isnull=False,
        )
        .order_by("-number")
        .defer("clearing")
        .first()
    )
