"""Operators' questions: who gets what, what a member gains by joining, what a lie would bring.

Each is a study of a published round, or of several: computed by the workers, changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from federation.errors import BadInput, FieldProblem, NotFound
from federation.models import Member, Round, Study
from federation.services.studies import Question, studies_request

MOST_ROUNDS = 60  #: books that one question may look at
MOST_DRAWS = 5000
Check = Callable[[str, object], FieldProblem | None]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number or name of a question."""

    default: Any
    check: Check


def _number(least: float, most: float) -> Check:
    def check(path: str, value: object) -> FieldProblem | None:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if fits and least <= value <= most:  # type: ignore[operator]
            return None
        return FieldProblem(path, f"a number from {least:g} to {most:g} is expected")

    return check


def _whole(least: int, most: int) -> Check:
    def check(path: str, value: object) -> FieldProblem | None:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return None
        return FieldProblem(path, f"a whole number from {least} to {most} is expected")

    return check


def _name(path: str, value: object) -> FieldProblem | None:
    if isinstance(value, str) and 0 < len(value) <= 63:
        return None
    return FieldProblem(path, "the name of a member is expected")


_ROUNDS = Parameter(1, _whole(1, MOST_ROUNDS))
_SITE = Parameter(None, _name)
_ALPHA = Parameter(0.5, _number(0, 1))
_DRAWS = Parameter(100, _whole(20, MOST_DRAWS))
#: kind -> its parameters; a default of None must be given
QUESTIONS: Mapping[str, Mapping[str, Parameter]] = {
    Study.Kind.SHARES: {"alpha": _ALPHA},
    Study.Kind.JOINING: {
        "site": _SITE,
        "alpha": _ALPHA,
        "joining_cost": Parameter(0.0, _number(0, 1e9)),
        "rounds": _ROUNDS,
        "draws": _DRAWS,
    },
    Study.Kind.LEAVING: {"rounds": _ROUNDS, "draws": _DRAWS},
    Study.Kind.RESPONSE: {"sweeps": Parameter(12, _whole(1, 50))},
    Study.Kind.MISREPORT: {"site": _SITE},
    Study.Kind.CONDUCT: {},
}


def inquiry_request(
    *, round: Round, kind: str, parameters: Mapping[str, Any], actor: str, now: datetime
) -> Study:
    """Ask a question about a published round; the same question is one study, whoever asks.

    The seed of what is drawn follows from the question, so the answer can be computed again.
    Raises BadInput with every field that does not fit, NotFound for a round without a clearing.
    """
    known = QUESTIONS.get(kind)
    if known is None:
        raise BadInput(FieldProblem("kind", f"one of {', '.join(QUESTIONS)} is expected"))
    if round.published_at is None:
        raise NotFound("This round has not been published.", code="not_published")
    problems = [FieldProblem(name, "unknown field") for name in parameters if name not in known]
    whole: dict[str, Any] = {}
    for name, parameter in known.items():
        whole[name] = parameters.get(name, parameter.default)
        problem = parameter.check(name, whole[name])
        if problem is not None:
            problems.append(problem)
    if problems:
        raise BadInput(*problems)
    whole["seed"] = _seed(round, kind)
    if kind == Study.Kind.CONDUCT:  # members of one owner count as one supplier
        whole["owners"] = {row.name: row.behind for row in Member.objects.exclude(owner="")}
    [study] = studies_request(
        round=round,
        kind=kind,
        questions=[Question(whole)],
        actor=actor,
        now=now,
        again=True,
    )
    return study


def _seed(round: Round, kind: str) -> int:
    text = f"{round.clearing_sha256}:{kind}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
