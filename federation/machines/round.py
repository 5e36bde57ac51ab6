"""Life of a round: one batch auction, from opening to settlement."""

from __future__ import annotations

from enum import StrEnum

from federation.machines.base import Machine


class RoundState(StrEnum):
    OPEN = "open"  #: offers and bids may still change
    CLOSED = "closed"  #: the book is frozen in a snapshot and waits for a solver
    SOLVING = "solving"  #: a worker holds the token and is deciding
    CLEARED = "cleared"  #: allocation, prices and certificate are on record
    PUBLISHED = "published"  #: leases are out
    SETTLED = "settled"  #: every contract of the round is paid
    VOID = "void"  #: ended without trade, with a reason


TRANSITIONS: dict[tuple[RoundState, str], RoundState] = {
    (RoundState.OPEN, "close"): RoundState.CLOSED,
    (RoundState.OPEN, "void"): RoundState.VOID,
    (RoundState.CLOSED, "claim"): RoundState.SOLVING,
    (RoundState.CLOSED, "void"): RoundState.VOID,
    (RoundState.SOLVING, "claim"): RoundState.SOLVING,  # taken over after the claim's deadline
    (RoundState.SOLVING, "record"): RoundState.CLEARED,
    (RoundState.SOLVING, "void"): RoundState.VOID,
    (RoundState.CLEARED, "publish"): RoundState.PUBLISHED,
    (RoundState.CLEARED, "void"): RoundState.VOID,
    (RoundState.PUBLISHED, "settle"): RoundState.SETTLED,
}

MACHINE = Machine(
    name="round",
    states=RoundState,
    transitions=TRANSITIONS,
    live=frozenset({RoundState.OPEN, RoundState.CLOSED, RoundState.SOLVING, RoundState.CLEARED}),
    final=frozenset({RoundState.SETTLED, RoundState.VOID}),
    tones={
        RoundState.OPEN: "wait",
        RoundState.CLOSED: "wait",
        RoundState.SOLVING: "wait",
        RoundState.CLEARED: "good",
        RoundState.PUBLISHED: "good",
        RoundState.SETTLED: "done",
        RoundState.VOID: "warn",
    },
)
