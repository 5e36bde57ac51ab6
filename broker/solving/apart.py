"""What a worker has its child do: decide a round, answer a study. No number without an answer."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import structlog
from django.utils import timezone

from broker.solving.supervisor import Crew, Solver, SolverFailed
from federation.decision import Decision
from federation.models import Study
from federation.selectors.frozen import Frozen, frozen, studied_rounds
from federation.services import studies
from federation.services.parts import file_read
from federation.services.studies import Answered, StudyClaim
from federation.snapshot import pack

log = structlog.get_logger("hanse")
FORGOTTEN = "The round's book is past its retention."


def decide_apart(solver: Solver, round: Frozen, crew: Crew | None = None) -> Decision:
    """Decide a round in the child; its failure, its limits and its death are reasons to void."""
    if round.book is None:
        return Decision.void("book_forgotten", FORGOTTEN)
    try:
        told = solver.ask(
            "round",
            inputs={"book": round.book},
            parameters={"venue": round.venue},
            limit_s=round.limit_s,
            crew=crew,
        )
    except SolverFailed as failed:
        _log(failed, venue=round.venue)
        return Decision.void(failed.code, failed.why)
    return Decision.read(told)


def study_apart(solver: Solver, claim: StudyClaim, crew: Crew | None = None) -> Answered:
    """Answer a claimed study in the child and keep the answer. A crew computes parts beside it."""
    try:
        if claim.kind == Study.Kind.PART:
            result = solver.part(
                str(claim.parameters["name"]),
                claim.payload or b"",
                limit_s=claim.limit_s,
                files={
                    name: partial(file_read, round_id=claim.round_id, name=name)
                    for name in claim.parameters["files"]
                },
            )
        else:
            told = _answer(solver, claim, crew)
            if claim.kind == Study.Kind.REPORT:
                return studies.report_plan(claim=claim, plan=told, now=timezone.now())
            result = pack(told)
    except SolverFailed as failed:
        _log(failed, study=str(claim.study_id))
        return _failed(claim, failed)
    except Study.DoesNotExist:
        return Answered(False)  # its round is decided: nobody waits for this part any more
    return studies.study_answer(claim=claim, result=result, now=timezone.now())


def _answer(solver: Solver, claim: StudyClaim, crew: Crew | None) -> dict[str, Any]:
    inputs: dict[str, bytes] = {}
    rounds = studied_rounds(claim.round_id, claim.parameters)
    for at, round_id in enumerate(rounds):
        round = frozen(round_id)
        if round.book is None or round.clearing is None:
            raise SolverFailed("book_forgotten", FORGOTTEN)
        last = round_id == claim.round_id
        inputs["book" if last else f"book-{at}"] = round.book
        inputs["clearing" if last else f"clearing-{at}"] = round.clearing
    if claim.payload is not None:
        inputs["frozen"] = claim.payload
    return solver.ask(
        claim.kind,
        inputs=inputs,
        parameters={**claim.parameters, "books": len(rounds)},
        limit_s=claim.limit_s,
        crew=crew,
    )


def _failed(claim: StudyClaim, failed: SolverFailed) -> Answered:
    """A death may have come from outside: another try. A part goes back to who waits for it."""
    now = timezone.now()
    if failed.died or claim.kind == Study.Kind.PART:
        return studies.study_give_back(claim=claim, now=now)
    return studies.study_fail(claim=claim, code=failed.code, why=failed.why, now=now)


def _log(failed: SolverFailed, **about: str) -> None:
    words = json.dumps(failed.last_words[-500:]) if failed.last_words else ""
    log.warning("solver.failed", code=failed.code, why=failed.why, last_words=words, **about)
