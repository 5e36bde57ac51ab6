"""What-if quotes: a job that is not submitted, against the last round's frozen book.

The bid is made as a round would make it: its budget is what the round's work is worth at its bid,
within its max_cost and its tenant's free funds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from federation.errors import BadInput, FieldProblem, NotFound, Refused
from federation.matching import permits
from federation.models import Job, JobClass, Offer, OfferPool, Pool, Round, Study, Tenant, Venue
from federation.money import as_credits, to_micro
from federation.selectors.accounts import funds_micro
from federation.selectors.affinity import Matrix, believed_cells, book_rows
from federation.selectors.frozen import studied
from federation.services.jobs import JobDraft
from federation.services.studies import Question, studies_request

MAX_WAITING = 200  #: unanswered quotes of one tenant
BID = "quote"  #: the job's id in the book; others are UUIDs


@dataclass(frozen=True, slots=True)
class _Market:
    """What the round offered, and how fast things run there now."""

    round: Round
    pools: dict[UUID, Pool]
    cells: Matrix
    funds_micro: int


def quotes_request(
    *, tenant: Tenant, venue: Venue, drafts: Sequence[JobDraft], actor: str, now: datetime
) -> list[Study]:
    """Ask what the last round would have said to these jobs; each is asked by itself.

    Raises BadInput, NotFound before the first published round, Refused("no_funds") and
    Refused("too_many_quotes"); then nothing is stored.
    """
    round = studied(venue)
    if round is None:
        raise NotFound("No round has been published yet that a quote could be based on.")
    waiting = Study.objects.filter(
        tenant=tenant, kind=Study.Kind.QUOTE, state__in=[state.value for state in Study.OPEN]
    ).count()
    if waiting + len(drafts) > MAX_WAITING:
        raise Refused(
            f"{waiting} quotes wait for their answers; at most {MAX_WAITING} may.",
            code="too_many_quotes",
        )
    classes = _classes(drafts, now)
    market = _market(round, tenant, venue)
    questions = [
        Question(_question(draft, classes[draft.job_class], tenant, market), tenant=tenant)
        for draft in drafts
    ]
    return studies_request(
        round=round, kind=Study.Kind.QUOTE, questions=questions, actor=actor, now=now, again=True
    )


def _classes(drafts: Sequence[JobDraft], now: datetime) -> dict[str, JobClass]:
    found = JobClass.objects.in_bulk([draft.job_class for draft in drafts], field_name="name")
    problems = []
    for at, draft in enumerate(drafts):
        path = f"jobs[{at}]." if len(drafts) > 1 else ""
        if draft.job_class not in found:
            why = f"{draft.job_class} is not a registered job class"
            problems.append(FieldProblem(f"{path}job_class", why, "unknown_class"))
        if draft.deadline is not None and draft.deadline <= now:
            problems.append(FieldProblem(f"{path}deadline", "lies in the past"))
    if problems:
        raise BadInput(*problems)
    return found


def _market(round: Round, tenant: Tenant, venue: Venue) -> _Market:
    offers = list(Offer.objects.filter(pk__in=round.offers_used.values("offer_id")))
    lines = OfferPool.objects.filter(offer__in=offers).select_related("pool__site")
    return _Market(
        round=round,
        pools={line.pool_id: line.pool for line in lines},
        cells=believed_cells(offers),
        funds_micro=funds_micro(tenant, venue),
    )


def _question(
    draft: JobDraft, job_class: JobClass, tenant: Tenant, market: _Market
) -> Mapping[str, Any]:
    return {
        "bid": _bid(draft, job_class, tenant, market),
        "speeds": _speeds(job_class, draft.gpus, market),
        "name": draft.name,
    }


def _bid(draft: JobDraft, job_class: JobClass, tenant: Tenant, market: _Market) -> dict[str, Any]:
    """The job as a row of the book."""
    sizes = sorted(set(draft.gpus))
    limits = Job(
        gpu_kinds=list(draft.gpu_kinds),
        sites_allow=list(draft.sites_allow),
        sites_deny=list(draft.sites_deny),
        pools=list(draft.pools),
    )
    allowed = [pool for pool in market.pools.values() if permits(limits, pool)]
    speeds = [
        speed
        for pool in allowed
        for size in sizes
        if (speed := market.cells.speed(pool.pk, job_class.pk, size)) is not None
    ]
    value = to_micro(draft.value)
    budget = _budget_micro(draft, value, max(speeds, default=0.0), market)
    demand = min(draft.samples, budget * 1_000_000 // value)
    if demand < 1:
        raise Refused("The tenant's free funds do not pay for one sample.", code="no_funds")
    row: dict[str, Any] = {
        "id": BID,
        "site": tenant.member.name,
        "tenant": tenant.name,
        "class": job_class.name,
        "value": as_credits(value),
        "demand": demand / 1e6,
        "gang": sizes[0] if len(sizes) == 1 else sizes,
        "budget": as_credits(budget),
    }
    if len(allowed) < len(market.pools):
        row["pools"] = sorted(str(pool) for pool in allowed)
    closed = market.round.closed_at
    if draft.deadline is not None and closed is not None:
        row["deadline_h"] = round_hours((draft.deadline - closed).total_seconds())
    return row


def round_hours(seconds: float) -> float:
    """Hours as a book writes them."""
    return round(seconds / 3600, 9)


def _budget_micro(draft: JobDraft, value: int, fastest: float, market: _Market) -> int:
    """What the job may spend in one round; all its work at once when it is not preemptible."""
    output = draft.samples
    if draft.preemptible:
        output = min(output, int(fastest * market.round.venue.round_s) + 1)
    worth = -(-output * value // 1_000_000)
    return max(0, min(worth, to_micro(draft.max_cost), market.funds_micro))


def _speeds(job_class: JobClass, sizes: Sequence[int], market: _Market) -> list[dict[str, Any]]:
    """How fast the class runs at the pools of the round, for a book in which nobody bid for it."""
    rows = [
        {
            "pool": str(market.pools[pool]),
            "class": job_class.name,
            "samples_per_s": round(speed, 9),
            "gpus": gpus,
        }
        for pool, _, gpus, speed in book_rows(market.cells, market.pools, {job_class.pk: sizes})
    ]
    return sorted(rows, key=lambda row: (row["pool"], row["gpus"]))
