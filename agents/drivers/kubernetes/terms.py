"""What an attempt is called in the cluster, and what of it is written on its objects.

Pure. Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass

from agents.drivers.kubernetes.settings import LABEL_VALUE

ATTEMPT, SITE, RANK = "hanse/attempt", "hanse/site", "hanse/rank"  #: labels
ORDERS, SCRIPT, TERMS, STOP, CONFIRMED, MADE = (
    f"hanse/{name}" for name in ("orders", "script", "terms", "stop", "confirmed", "made")
)  #: annotations
INDEX = "batch.kubernetes.io/job-completion-index"  #: the server's own, on pods of Indexed Jobs
JOB, FORWARD = "job", "progress"  #: names of a pod's two containers
SHORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
SLACK_S = 30.0  #: the control plane's deadline comes this long after the guard's
CENTI = 100
LONGEST_CS = 10**15
LONGEST_S = 10**8


@dataclass(frozen=True, slots=True)
class Terms:
    """What of a task must outlive the agent; an annotation of the first Job."""

    gpus: int
    ranks: int
    grace_s: float
    lead_s: float
    log_cap_bytes: int
    indexed: bool = False

    def text(self) -> str:
        return json.dumps(asdict(self))


def read_terms(text: str) -> Terms | None:
    """None when somebody has spoilt it."""
    try:
        value = json.loads(text)
        return Terms(
            gpus=int(value["gpus"]),
            ranks=max(int(value["ranks"]), 1),
            grace_s=float(value["grace_s"]),
            lead_s=float(value["lead_s"]),
            log_cap_bytes=int(value["log_cap_bytes"]),
            indexed=bool(value["indexed"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def base_name(attempt: str) -> str:
    """The same attempt has the same name, in every agent."""
    if SHORT_NAME.fullmatch(attempt):
        return f"hanse-{attempt}"
    return f"hanse-{hashlib.sha256(attempt.encode()).hexdigest()[:40]}"


def site_label(site: str) -> str:
    if LABEL_VALUE.fullmatch(site):
        return site
    return hashlib.sha256(site.encode()).hexdigest()[:40]


def job_names(attempt: str, terms: Terms) -> list[str]:
    base = base_name(attempt)
    if terms.ranks == 1 or terms.indexed:
        return [base]
    # rank 0 has the plain name, so that a start with other nodes is a second start too
    return [base, *(f"{base}-{rank}" for rank in range(1, terms.ranks))]


def orders(
    fence_cs: float, lead_s: float, *, stop_s: float | None = None, reason: str = "-"
) -> str:
    """What the guard of one pod reads; `fence_cs` on that pod's own clock."""
    fence = int(min(max(fence_cs, 0.0), LONGEST_CS))
    stop = "-" if stop_s is None else str(round(stop_s * CENTI))
    return f"{fence} {round(lead_s * CENTI)} {stop} {reason}"


def deadline(seconds: float) -> int:
    """Whole seconds that the API server can count."""
    return math.ceil(min(max(seconds, 1.0), LONGEST_S))
