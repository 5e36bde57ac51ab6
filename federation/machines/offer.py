"""Life of an offer: a site's stated capacity, reserve prices and speeds. Never edited."""

from __future__ import annotations

from enum import StrEnum

from federation.machines.base import Machine


class OfferState(StrEnum):
    DRAFT = "draft"  #: written by an operator, not yet put on the market
    ACTIVE = "active"  #: the next book uses it
    PAUSED = "paused"  #: kept, but out of the book
    WITHDRAWN = "withdrawn"  #: taken back by the site
    SUPERSEDED = "superseded"  #: a newer version took its place
    EXPIRED = "expired"  #: its validity window is over


TRANSITIONS: dict[tuple[OfferState, str], OfferState] = {
    (OfferState.DRAFT, "activate"): OfferState.ACTIVE,
    (OfferState.DRAFT, "withdraw"): OfferState.WITHDRAWN,
    (OfferState.ACTIVE, "pause"): OfferState.PAUSED,
    (OfferState.PAUSED, "activate"): OfferState.ACTIVE,
    (OfferState.ACTIVE, "withdraw"): OfferState.WITHDRAWN,
    (OfferState.PAUSED, "withdraw"): OfferState.WITHDRAWN,
    (OfferState.ACTIVE, "supersede"): OfferState.SUPERSEDED,
    (OfferState.PAUSED, "supersede"): OfferState.SUPERSEDED,
    (OfferState.ACTIVE, "expire"): OfferState.EXPIRED,
    (OfferState.PAUSED, "expire"): OfferState.EXPIRED,
}

MACHINE = Machine(
    name="offer",
    states=OfferState,
    transitions=TRANSITIONS,
    live=frozenset({OfferState.ACTIVE, OfferState.PAUSED}),
    final=frozenset({OfferState.WITHDRAWN, OfferState.SUPERSEDED, OfferState.EXPIRED}),
    tones={
        OfferState.DRAFT: "idle",
        OfferState.ACTIVE: "good",
        OfferState.PAUSED: "warn",
        OfferState.WITHDRAWN: "idle",
        OfferState.SUPERSEDED: "done",
        OfferState.EXPIRED: "idle",
    },
)
