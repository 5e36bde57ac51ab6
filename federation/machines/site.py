"""Life of a site: one datacenter with an agent."""

from __future__ import annotations

from enum import StrEnum

from federation.machines.base import Machine


class SiteState(StrEnum):
    ENROLLED = "enrolled"  #: created by an operator; its agent has not synced yet
    ONLINE = "online"  #: syncs in time
    SILENT = "silent"  #: missed a renewal
    DRAINING = "draining"  #: keeps what runs, takes nothing new
    RETIRED = "retired"  #: gone for good


TRANSITIONS: dict[tuple[SiteState, str], SiteState] = {
    (SiteState.ENROLLED, "sync"): SiteState.ONLINE,
    (SiteState.ONLINE, "sync"): SiteState.ONLINE,
    (SiteState.SILENT, "sync"): SiteState.ONLINE,
    (SiteState.DRAINING, "sync"): SiteState.DRAINING,
    (SiteState.ONLINE, "silence"): SiteState.SILENT,
    (SiteState.ENROLLED, "drain"): SiteState.DRAINING,
    (SiteState.ONLINE, "drain"): SiteState.DRAINING,
    (SiteState.SILENT, "drain"): SiteState.DRAINING,
    (SiteState.DRAINING, "open"): SiteState.ONLINE,
    (SiteState.DRAINING, "await"): SiteState.ENROLLED,  # opened before its agent ever synced
    (SiteState.ENROLLED, "retire"): SiteState.RETIRED,
    (SiteState.ONLINE, "retire"): SiteState.RETIRED,
    (SiteState.SILENT, "retire"): SiteState.RETIRED,
    (SiteState.DRAINING, "retire"): SiteState.RETIRED,
}

MACHINE = Machine(
    name="site",
    states=SiteState,
    transitions=TRANSITIONS,
    live=frozenset(SiteState) - {SiteState.RETIRED},
    final=frozenset({SiteState.RETIRED}),
    tones={
        SiteState.ENROLLED: "idle",
        SiteState.ONLINE: "good",
        SiteState.SILENT: "bad",
        SiteState.DRAINING: "warn",
        SiteState.RETIRED: "idle",
    },
)
