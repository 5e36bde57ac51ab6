"""How an attempt ended, as its agent says it, and whose doing each end is."""

from __future__ import annotations

from dataclasses import dataclass

from federation.causes import VETOED, VETOED_UNANNOUNCED

#: agent's reason -> (event of the lease, whose doing it was)
ENDINGS = {
    "exited": ("finish", "job"),
    "runtime_limit": ("finish", "job"),
    "revoked": ("revoke", "broker"),
    "never_started": ("revoke", "broker"),
    "fenced": ("fence", "broker"),
    "declined": ("decline", "site"),
    VETOED: ("decline", "policy"),
    VETOED_UNANNOUNCED: ("decline", "policy"),
    "driver_failed": ("finish", "site"),
    "lost": ("finish", "site"),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    reason: str
    exit_code: int | None = None
    message: str = ""
    code: str = ""  #: the site's own rule or decision that was the reason; "" = none
