"""What the tenants' API answers, as types. Field for field the JSON of REST v1, nothing derived.

Money is decimal strings in credits, prices in credits per GPU-hour, speeds in samples/s, times
RFC 3339. A newer broker may add keys; none of these goes away within v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

FINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "REJECTED"})


class Reason(TypedDict):
    code: str
    message: str


class Job(TypedDict):
    id: str
    name: str
    job_class: str
    tenant: str
    state: str
    reason: Reason | None
    gpus: Any  #: allowed gang sizes, or the size awarded
    gpu_kinds: list[str]
    samples: int
    samples_done: int
    value: str
    max_cost: str
    spent: str
    held: str  #: in escrow for rounds not yet paid
    deadline: str | None
    preemptible: bool
    created_at: str
    updated_at: str
    attempt: int | None
    site: str | None
    pool: str | None
    predicted_samples_per_s: float | None
    samples_per_s: float | None
    price: str | None
    loss: float | None
    kind: str  #: training or probe
    parent: str | None  #: of a probe: the job that it measures for
    ended_at: str | None


class RoundVerdict(TypedDict):
    round: int
    at: str
    outcome: str
    code: str
    why: str
    pool: str | None
    price: str | None


#: `from` is a keyword of Python, so the functional form.
Event = TypedDict(
    "Event",
    {
        "at": str,
        "event": str,
        "from": str | None,
        "to": str | None,
        "who": str,
        "code": str,
        "why": str,
    },
)


class Why(TypedDict):
    job: str
    state: str
    summary: str
    rounds: list[RoundVerdict]
    story: list[Event]


class Affinity(TypedDict):
    job_class: str
    gpus: int
    declared: float | None
    measured: float | None
    believed: float | None
    reports: int


class Offer(TypedDict):
    site: str
    pool: str
    gpu: str
    gpus: int
    reserve: str
    price: str | None
    valid_until: str | None
    note: str
    affinities: list[Affinity]


class Round(TypedDict):
    number: int
    venue: str
    state: str
    opened_at: str
    closes_at: str
    traded_gpus: float | None
    surplus: str | None
    bids: int
    offers: int
    void: Reason | None
    certified: bool | None
    snapshot_sha256: str | None


class JobClass(TypedDict):
    """One row of the affinity matrix; more keys than these may come."""

    name: str


class Me(TypedDict, total=False):
    """Whom the token belongs to."""

    name: str
    tenant: str
    member: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """A piece of one attempt's log, in bytes."""

    data: bytes
    attempt: int | None  #: which attempt this is; None before the first
    attempts: int  #: how many there are by now
    next_offset: int  #: where the following page begins
    complete: bool  #: nothing will ever follow in this attempt
    truncated: bool  #: the log's cap was reached
