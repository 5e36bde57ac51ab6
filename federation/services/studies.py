"""Write side of studies: asked for, claimed by a worker, answered; handed out again when lost.

A study reads a frozen book and changes nothing, so doing one twice does no harm. The database is
the record: a message that is lost, or a worker that is killed, costs time only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from economics.book import document_sha256
from federation.models import Round, Study, Tenant
from federation.selectors.frozen import solve_limit_s
from federation.snapshot import pack, unpack

MAX_CLAIMS = 3  #: workers that may try a study before it has failed
AGAIN = timedelta(seconds=30)  #: a message that nobody answered is taken for lost
QUOTES_KEPT = timedelta(days=30)
#: operators' questions: many clearings each, and nobody's round waits for them
LONG = frozenset({"shares", "joining", "leaving", "response", "misreport", "conduct"})
LONG_S = 1800.0
PARTS_KEPT = timedelta(hours=1)  #: of a round whose worker died; others forget theirs at once
_OPEN = [state.value for state in Study.OPEN]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a round."""

    parameters: Mapping[str, Any]
    tenant: Tenant | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class StudyClaim:
    """The right to answer a study. `token` guards the answer."""

    study_id: UUID
    round_id: UUID
    kind: str
    token: UUID
    parameters: Mapping[str, Any]
    payload: bytes | None
    limit_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer is kept, or not; and which studies a worker should be given next."""

    kept: bool
    next: list[UUID] = field(default_factory=list)


def studies_request(
    *,
    round: Round,
    kind: str,
    questions: Sequence[Question],
    actor: str,
    now: datetime,
    again: bool = False,
) -> list[Study]:
    """The studies that answer these questions, in their order; made where there are none yet.

    `again`: those that have failed are tried anew.
    """
    digests = [document_sha256(question.parameters) for question in questions]
    Study.objects.bulk_create(
        [
            Study(
                round=round,
                kind=kind,
                parameters=dict(question.parameters),
                digest=digest,
                payload=question.payload,
                tenant=question.tenant,
                requested_by=actor[:150],
                due_at=now + AGAIN,
                created_at=now,
            )
            for question, digest in zip(questions, digests, strict=True)
        ],
        ignore_conflicts=True,
    )
    asked = Study.objects.filter(round=round, kind=kind, digest__in=digests)
    if again:
        asked.filter(state=Study.State.FAILED).update(
            state=Study.State.PENDING,
            **{"code": "", "why": "", "claims": 0, "finished_at": None, "due_at": now + AGAIN},
        )
    found = {study.digest: study for study in asked}
    return [found[digest] for digest in digests]


def report_request(*, round: Round, share: float, actor: str, now: datetime) -> Study:
    """The report on what every tenant brings to a round; one for each round and threshold."""
    [study] = studies_request(
        round=round,
        kind=Study.Kind.REPORT,
        questions=[Question({"share": share})],
        actor=actor,
        now=now,
        again=True,
    )
    return study


def study_claim(
    *, study_id: UUID, token: UUID, now: datetime, at_once: int = 0
) -> StudyClaim | None:
    """Take a waiting study to answer it; None when it does not wait, or `at_once` run already."""
    study = (
        Study.objects.select_related("round__venue")
        .filter(pk=study_id, state=Study.State.PENDING)
        .first()
    )
    if study is None or (at_once and _running(now).count() >= at_once):
        return None
    if study.claims >= MAX_CLAIMS:
        why = f"{MAX_CLAIMS} workers in turn did not come back with an answer."
        _end(study.pk, study.token, Study.State.PENDING, "solver_lost", why, now)
        return None
    won = Study.objects.filter(pk=study.pk, state=study.state, claims=study.claims).update(
        state=Study.State.RUNNING,
        token=token,
        claims=study.claims + 1,
        due_at=now + timedelta(seconds=_patience_s(study)),
    )
    if not won:
        return None
    return StudyClaim(
        study_id=study.pk,
        round_id=study.round_id,
        kind=study.kind,
        token=token,
        parameters=study.parameters,
        payload=None if study.payload is None else bytes(study.payload),
        limit_s=LONG_S if study.kind in LONG else solve_limit_s(study.round.venue),
    )


def _patience_s(study: Study) -> float:
    return 1.2 * LONG_S if study.kind in LONG else study.round.venue.solve_patience_s


def _running(now: datetime) -> QuerySet[Study]:
    return Study.objects.filter(state=Study.State.RUNNING, token__isnull=False, due_at__gte=now)


def study_answer(*, claim: StudyClaim, result: bytes, now: datetime) -> Answered:
    """Keep an answer, if the claim still holds. The last contribution completes its report."""
    kept = Study.objects.filter(pk=claim.study_id, token=claim.token).update(
        state=Study.State.DONE, result=result, token=None, finished_at=now
    )
    if kept and claim.kind == Study.Kind.CONTRIBUTION:
        reports_gather(round_id=claim.round_id, now=now)
    return Answered(bool(kept), studies_waiting(count=1))


def report_plan(*, claim: StudyClaim, plan: dict[str, Any], now: datetime) -> Answered:
    """Keep a report's first half and ask for the contributions that it needs.

    `plan`: every tenant's `standings`, and the names in `reclear`.
    """
    kept = Study.objects.filter(pk=claim.study_id, token=claim.token).update(
        payload=pack(plan), token=None
    )
    if not kept:
        return Answered(False)
    study = Study.objects.select_related("round").get(pk=claim.study_id)
    asked = _contributions(study, plan, now)
    reports_gather(round_id=claim.round_id, now=now)
    return Answered(True, [each.pk for each in asked if each.state == Study.State.PENDING])


def _contributions(report: Study, plan: Mapping[str, Any], now: datetime) -> list[Study]:
    return studies_request(
        round=report.round,
        kind=Study.Kind.CONTRIBUTION,
        questions=[Question({"tenant": name}) for name in plan["reclear"]],
        actor=report.requested_by,
        now=now,
    )


def reports_gather(*, now: datetime, round_id: UUID | None = None) -> list[UUID]:
    """Complete the planned reports whose contributions have all ended. Returns the reports."""
    planned = Study.objects.filter(
        kind=Study.Kind.REPORT, state=Study.State.RUNNING, payload__isnull=False, token=None
    ).select_related("round")
    if round_id is not None:
        planned = planned.filter(round_id=round_id)
    done = []
    for report in planned:
        plan = unpack(report.payload or b"")
        found = _contributions(report, plan, now)
        if any(study.state in _OPEN for study in found):
            continue
        result = pack({**plan, "contributions": [_line(study) for study in found]})
        if Study.objects.filter(pk=report.pk, state=Study.State.RUNNING).update(
            state=Study.State.DONE, result=result, payload=None, finished_at=now
        ):
            done.append(report.pk)
    return done


def _line(study: Study) -> dict[str, Any]:
    """A contribution as it stands in a report: its figures, or why there are none."""
    if study.result is None:
        return {**study.parameters, "failed": study.code, "why": study.why}
    return unpack(study.result)


def study_fail(*, claim: StudyClaim, code: str, why: str, now: datetime) -> Answered:
    """End a study without an answer: another try would fail as well."""
    kept = _end(claim.study_id, claim.token, Study.State.RUNNING, code, why, now)
    if kept and claim.kind == Study.Kind.CONTRIBUTION:
        reports_gather(round_id=claim.round_id, now=now)
    return Answered(kept, studies_waiting(count=1))


def study_give_back(*, claim: StudyClaim, now: datetime) -> Answered:
    """Put a study back because its worker could not go on; it is handed out again at once."""
    kept = Study.objects.filter(pk=claim.study_id, token=claim.token).update(
        state=Study.State.PENDING, token=None, due_at=now + AGAIN
    )
    return Answered(bool(kept), [claim.study_id] if kept else [])


def _end(
    study_id: UUID, token: UUID | None, state: str, code: str, why: str, now: datetime
) -> bool:
    return bool(
        Study.objects.filter(pk=study_id, token=token, state=state).update(
            state=Study.State.FAILED, code=code[:64], why=why[:1000], token=None, finished_at=now
        )
    )


def studies_waiting(*, count: int) -> list[UUID]:
    """The oldest studies that wait for a worker."""
    waiting = Study.objects.filter(state=Study.State.PENDING).order_by("created_at", "id")
    return list(waiting.values_list("pk", flat=True)[:count])


def studies_due(*, now: datetime, limit: int = 500) -> list[UUID]:
    """Open studies whose message or worker was lost: to be handed out again.

    Parts are left out: who waits for them takes them back.
    """
    due = Study.objects.filter(state__in=_OPEN, due_at__lt=now).exclude(kind=Study.Kind.PART)
    due = due.exclude(Q(kind=Study.Kind.REPORT) & Q(payload__isnull=False))  # wait for others
    ids = list(due.order_by("created_at").values_list("pk", flat=True)[:limit])
    return [
        pk
        for pk in ids
        if Study.objects.filter(pk=pk, state__in=_OPEN, due_at__lt=now).update(
            state=Study.State.PENDING, token=None, due_at=now + AGAIN
        )
    ]


def studies_forget(*, now: datetime) -> int:
    """Drop old quotes, and parts that nobody waits for any more."""
    quotes = Q(kind=Study.Kind.QUOTE, created_at__lt=now - QUOTES_KEPT)
    shared = [Study.Kind.PART, Study.Kind.FILE]
    parts = Q(kind__in=shared, created_at__lt=now - PARTS_KEPT)
    count, _ = Study.objects.filter(quotes | parts).delete()
    return count
