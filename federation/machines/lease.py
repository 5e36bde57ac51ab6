"""Life of a lease: one attempt, by one site, to run one job."""

from __future__ import annotations

from enum import StrEnum

from federation.machines.base import Machine


class LeaseState(StrEnum):
    OFFERED = "offered"  #: written by a published round; the agent has not confirmed it
    ACTIVE = "active"  #: the agent has it and renews it with every sync
    SILENT = "silent"  #: a renewal was missed; the site may well be running it
    DONE = "done"  #: the agent reported its end
    FENCED = "fenced"  #: the site has stopped it by its own clock, or must have by now
    REVOKED = "revoked"  #: taken back by the broker, the stop confirmed by the agent
    DECLINED = "declined"  #: the site said no


_LIVE = (LeaseState.OFFERED, LeaseState.ACTIVE, LeaseState.SILENT)

TRANSITIONS: dict[tuple[LeaseState, str], LeaseState] = {
    (LeaseState.OFFERED, "renew"): LeaseState.ACTIVE,
    (LeaseState.ACTIVE, "renew"): LeaseState.ACTIVE,
    (LeaseState.SILENT, "renew"): LeaseState.ACTIVE,
    (LeaseState.OFFERED, "silence"): LeaseState.SILENT,
    (LeaseState.ACTIVE, "silence"): LeaseState.SILENT,
    **{(state, "finish"): LeaseState.DONE for state in _LIVE},
    **{(state, "decline"): LeaseState.DECLINED for state in _LIVE},
    **{(state, "revoke"): LeaseState.REVOKED for state in _LIVE},
    **{(state, "fence"): LeaseState.FENCED for state in _LIVE},
}

LIVE = frozenset(_LIVE)  #: holds GPUs; at most one for each job

MACHINE = Machine(
    name="lease",
    states=LeaseState,
    transitions=TRANSITIONS,
    live=LIVE,
    final=frozenset(LeaseState) - LIVE,
    tones={
        LeaseState.OFFERED: "wait",
        LeaseState.ACTIVE: "good",
        LeaseState.SILENT: "warn",
        LeaseState.DONE: "done",
        LeaseState.FENCED: "bad",
        LeaseState.REVOKED: "idle",
        LeaseState.DECLINED: "bad",
    },
)
