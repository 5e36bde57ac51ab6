"""What the tenants' API answers, as types. Field for field the JSON of REST v1, nothing derived.

Money is decimal strings in credits, prices in credits per GPU-hour, speeds in samples/s, times
RFC 3339. A newer broker may add keys; none of these goes away within v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

FINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "REJECTED"})
QUOTE_OVER = frozenset({"DONE", "FAILED"})


class Reason(TypedDict):
    code: str
    message: str


class Pin(TypedDict):
    """The version of an offer that a quote is based on."""

    site: str
    version: int
    offer: str


class Quoted(TypedDict):
    """What the quote that a job cites said."""

    id: str
    round: int
    expires_at: str
    pool: str
    gpus: int
    price: str
    samples: int
    samples_per_s: float | None
    payment: str
    offers: list[Pin]


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
    quote: str | None  #: that it cites
    quoted: Quoted | None


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


class SiteRefusal(TypedDict):
    """A site that does not take the job now, by a rule of its own."""

    site: str
    code: str
    why: str
    until: str


class Why(TypedDict):
    job: str
    state: str
    summary: str
    rounds: list[RoundVerdict]
    refusals: list[SiteRefusal]
    story: list[Event]


class Plan(TypedDict):
    """How a model is split over GPUs; more keys than these may come."""

    gpus: int
    tensor: int
    pipeline: int
    data: int
    zero: int
    recompute: str
    micro_batch: int
    memory_gb: dict[str, float]  #: of one GPU, by part, with `total`
    step_time_s: float


class Priced(TypedDict):
    pool: str
    time_s: float
    credits: float
    plan: Plan


class PoolRefused(TypedDict):
    pool: str
    why: str


class Choice(TypedDict):
    """What the planner would choose for a job."""

    gpus: list[int]
    pools: list[str]
    cheapest: Priced | None
    fastest: Priced | None
    front: list[Priced]
    refused: list[PoolRefused]
    why: list[str]
    notes: list[str]


class Affinity(TypedDict):
    job_class: str
    gpus: int
    declared: float | None
    measured: float | None
    believed: float | None
    low: float  #: it lies between these with 90 %
    high: float
    source: str  #: declared, measured, ..., or a prior: neighbours, catalogue, operators, roofline
    priced: bool  #: whether rounds reckon with it
    reports: int
    known_at: str


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


class Placed(TypedDict):
    """Where a quoted job would run, for one round."""

    pool: str
    gpus: int
    samples: int
    price: str
    price_before: str  #: as the round published it, without the job
    samples_per_s: float | None
    payment: str
    price_per_million: str | None
    plan: Plan | None  #: of a described model


class WouldRunAt(TypedDict):
    """The cheapest bid that would run, credits per million samples."""

    pool: str
    value: str


class QuoteAnswer(TypedDict):
    runs: bool
    placed: list[Placed]
    reason: Reason | None  #: why it would not run
    would_run_at: WouldRunAt | None
    displaces_own: list[str]
    displaces_others: int


class Quote(TypedDict):
    """What the last round would have said to a job; `answer` once its state is DONE."""

    id: str
    name: str
    round: int
    state: str  #: PENDING, RUNNING, DONE or FAILED
    created_at: str
    finished_at: str | None
    job_class: str
    gpus: list[int]
    value: str
    expires_at: str | None
    offers: list[Pin]
    plans: Choice | None  #: of a described model
    failed: Reason | None
    answer: QuoteAnswer | None


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
