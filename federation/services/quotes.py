"""What-if quotes: a job that is not submitted, against the last round's frozen book.

The bid is made as a round would make it: its budget is what the round's work is worth at its bid,
within its max_cost and its tenant's free funds. A quote pins the offer versions that it is based on
and expires; `citing` checks both when a job cites it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from economics.book import document_sha256
from federation.admission import Doors
from federation.errors import BadInput, FieldProblem, NotFound, Refused
from federation.matching import permits
from federation.models import Job, JobClass, Offer, OfferPool, Pool, Round, Study, Tenant, Venue
from federation.money import as_credits, samples_paid, to_micro, worth_micro
from federation.selectors.accounts import funds_micro
from federation.selectors.admission import doors_read, shut
from federation.selectors.affinity import Matrix, believed_cells, book_rows, current_offers
from federation.selectors.frozen import studied
from federation.selectors.plans_pools import stock_read
from federation.services.citing import asked_of
from federation.services.jobs import DEFAULT_RUNTIME_S, JobDraft
from federation.services.planning import Fitted, draft_fitted
from federation.services.studies import Question, studies_request

MAX_WAITING = 200  #: unanswered quotes of one tenant
MAX_DESCRIBED = 5  #: jobs of one request that describe a model: each is planned at once
EXPIRES_ROUNDS = 2  #: a quote may be cited for so many rounds from when it was asked for
BID = "quote"  #: the job's id in the book; others are UUIDs


@dataclass(frozen=True, slots=True)
class _Market:
    """What the round offered, and how fast things run there now."""

    round: Round
    pools: dict[UUID, Pool]
    offers: dict[UUID, Offer]  #: pool -> the version that the round used
    cells: Matrix
    funds_micro: int
    doors: Doors  #: who is not let in where, today


def quotes_request(
    *, tenant: Tenant, venue: Venue, drafts: Sequence[JobDraft], actor: str, now: datetime
) -> list[Study]:
    """Ask what the last round would have said to these jobs; each is asked by itself.

    A question whose answer is still awaited is not asked twice. One that is answered gives a new
    quote with a new expiry, and the answer is not computed twice. Raises BadInput, NotFound before
    the first published round, Refused("no_funds") and Refused("too_many_quotes"); then nothing is
    stored.
    """
    round = studied(venue)
    if round is None:
        raise _nothing_to_study(venue)
    waiting = Study.objects.filter(
        tenant=tenant, kind=Study.Kind.QUOTE, state__in=[state.value for state in Study.OPEN]
    ).count()
    if waiting + len(drafts) > MAX_WAITING:
        raise Refused(
            f"{waiting} quotes wait for their answers; at most {MAX_WAITING} may.",
            code="too_many_quotes",
        )
    classes = _classes(drafts, now)
    market = _market(round, tenant, venue, now)
    questions = [
        _question(draft, fitted, classes[draft.job_class], tenant, market)
        for draft, fitted in zip(drafts, _fitted(drafts, classes, venue, now), strict=True)
    ]
    with transaction.atomic():
        return _asked(round, tenant, questions, actor, now)


def _nothing_to_study(venue: Venue) -> NotFound:
    """Why there is no round that a quote could be based on."""
    if Round.objects.filter(venue=venue, published_at__isnull=False).exists():
        return NotFound(
            "The documents of the last round that had bids are past their retention; ask again "
            "after the next round, for which somebody must bid.",
            code="round_forgotten",
        )
    return NotFound(
        "No round has been published yet that a quote could be based on: a first bid is needed. "
        "Submit a job; after its first round quotes can be asked for.",
        code="no_round",
    )


def _asked(
    round: Round, tenant: Tenant, questions: Sequence[Mapping[str, Any]], actor: str, now: datetime
) -> list[Study]:
    """The quotes of these questions, in their order: awaited ones, and new ones for the others."""
    expires = now + timedelta(seconds=EXPIRES_ROUNDS * round.venue.round_s)
    moment = expires.astimezone(UTC).isoformat()
    marks = [document_sha256(question) for question in questions]
    known = _known(round, tenant, marks)
    awaited = {mark: study for mark, study in known.items() if _awaited(study, now)}
    new = {
        mark: Question({**question, "asked": mark, "expires_at": moment}, tenant=tenant)
        for mark, question in zip(marks, questions, strict=True)
        if mark not in awaited
    }
    made = studies_request(
        round=round,
        kind=Study.Kind.QUOTE,
        questions=list(new.values()),
        actor=actor,
        now=now,
    )
    for mark, study in zip(new, made, strict=True):
        awaited[mark] = _answered(study, known.get(mark), now)
    return [awaited[mark] for mark in marks]


def _awaited(study: Study, now: datetime) -> bool:
    if study.state not in Study.OPEN:
        return False
    return datetime.fromisoformat(study.parameters["expires_at"]) > now


def _known(round: Round, tenant: Tenant, marks: Sequence[str]) -> dict[str, Study]:
    """The newest quote of each question, by its mark; those that failed are asked anew."""
    rows = Study.objects.filter(
        round=round, tenant=tenant, kind=Study.Kind.QUOTE, parameters__asked__in=marks
    )
    live = rows.exclude(state=Study.State.FAILED).order_by("created_at", "id")
    return {study.parameters["asked"]: study for study in live}


def _answered(study: Study, earlier: Study | None, now: datetime) -> Study:
    """A new quote takes the answer of an earlier one to the very same question."""
    if earlier is not None and earlier.result is not None and study.state == Study.State.PENDING:
        study.state, study.result, study.finished_at = Study.State.DONE, earlier.result, now
        study.save(update_fields=["state", "result", "finished_at"])
    return study


def _classes(drafts: Sequence[JobDraft], now: datetime) -> dict[str, JobClass]:
    found = JobClass.objects.in_bulk([draft.job_class for draft in drafts], field_name="name")
    problems = []
    described = sum(draft.model is not None for draft in drafts)
    if described > MAX_DESCRIBED:
        why = f"{described} of them describe a model; at most {MAX_DESCRIBED} of one request may"
        problems.append(FieldProblem("jobs", f"{why}: ask for the others in another request"))
    for at, draft in enumerate(drafts):
        path = f"jobs[{at}]." if len(drafts) > 1 else ""
        if draft.job_class not in found:
            why = f"{draft.job_class} is not a registered job class"
            problems.append(FieldProblem(f"{path}job_class", why, "unknown_class"))
        if draft.deadline is not None and draft.deadline <= now:
            problems.append(FieldProblem(f"{path}deadline", "lies in the past"))
        if draft.quote is not None:
            why = "a quote is asked for here: leave it out, and cite it when the job is submitted"
            problems.append(FieldProblem(f"{path}quote", why))
        if not draft.gpus and draft.model is None:
            why = "name one or more sizes, or describe the model and they are chosen"
            problems.append(FieldProblem(f"{path}gpus", why))
    if problems:
        raise BadInput(*problems)
    return found


def _market(round: Round, tenant: Tenant, venue: Venue, now: datetime) -> _Market:
    offers = list(Offer.objects.filter(pk__in=round.offers_used.values("offer_id")))
    lines = OfferPool.objects.filter(offer__in=offers).select_related("pool__site", "offer")
    return _Market(
        round=round,
        pools={line.pool_id: line.pool for line in lines},
        offers={line.pool_id: line.offer for line in lines},
        cells=believed_cells(offers),
        funds_micro=funds_micro(tenant, venue),
        doors=doors_read(venue, current_offers(venue, now), now),
    )


def _fitted(
    drafts: Sequence[JobDraft], classes: Mapping[str, JobClass], venue: Venue, now: datetime
) -> list[Fitted]:
    """Sizes and pools of the jobs that describe their models, planned as at a submission."""
    found = []
    described = any(draft.model is not None for draft in drafts)
    stock = stock_read(venue, now) if described else None
    for at, draft in enumerate(drafts):
        try:
            job_class = classes[draft.job_class]
            found.append(
                draft_fitted(draft=draft, job_class=job_class, venue=venue, now=now, stock=stock)
            )
        except BadInput as refused:
            path = f"jobs[{at}]." if len(drafts) > 1 else ""
            raise BadInput(
                *(replace(p, path=f"{path}{p.path}") for p in refused.problems)
            ) from None
    return found


def _question(
    asked: JobDraft, fitted: Fitted, job_class: JobClass, tenant: Tenant, market: _Market
) -> Mapping[str, Any]:
    """What a worker, and whoever cites the quote, must know."""
    draft = fitted.draft
    allowed = _allowed(draft, job_class, tenant, market)
    question = {
        "bid": _bid(draft, job_class, tenant, market, allowed),
        "speeds": _speeds(job_class, draft.gpus, market),
        "name": draft.name,
        "job": asked_of(asked),
        "offers": _pins(draft, job_class, market, allowed),
    }
    return question | ({"plans": fitted.planned.document} if fitted.planned else {})


def _allowed(draft: JobDraft, job_class: JobClass, tenant: Tenant, market: _Market) -> list[Pool]:
    """Pools of the round that the job's own limits and the sites' rules leave."""
    limits = Job(
        tenant=tenant,
        job_class=job_class,
        gpus=list(draft.gpus),
        max_runtime_s=draft.max_runtime_s or DEFAULT_RUNTIME_S,
        gpu_kinds=list(draft.gpu_kinds),
        sites_allow=list(draft.sites_allow),
        sites_deny=list(draft.sites_deny),
        pools=list(draft.pools),
    )
    return [
        pool
        for pool in market.pools.values()
        if permits(limits, pool) and not shut(market.doors, limits, pool)
    ]


def _pins(
    draft: JobDraft, job_class: JobClass, market: _Market, allowed: Sequence[Pool]
) -> list[dict[str, Any]]:
    """The version of every offer that the job could use: a pool of it takes the job, at a speed
    that is known."""
    used = {
        pool.site.name: market.offers[pool.pk]
        for pool in allowed
        if any(market.cells.speed(pool.pk, job_class.pk, size) is not None for size in draft.gpus)
    }
    return [
        {"site": site, "version": offer.version, "offer": str(offer.pk)}
        for site, offer in sorted(used.items())
    ]


def _bid(
    draft: JobDraft,
    job_class: JobClass,
    tenant: Tenant,
    market: _Market,
    allowed: Sequence[Pool],
) -> dict[str, Any]:
    """The job as a row of the book."""
    sizes = sorted(set(draft.gpus))
    speeds = [
        speed
        for pool in allowed
        for size in sizes
        if (speed := market.cells.speed(pool.pk, job_class.pk, size)) is not None
    ]
    value = to_micro(draft.value)
    budget = _budget_micro(draft, value, max(speeds, default=0.0), market)
    demand = min(draft.samples, samples_paid(budget, value))
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
    worth = worth_micro(output, value)
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
