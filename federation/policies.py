"""The policies that an operator may choose for a venue: a sentence each, and a rehearsal.

The mathematics, formulas and sources are in `economics.policies`, one file each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from economics.errors import BadBook
from economics.rows import PARAMETERS
from federation.errors import FieldProblem

#: policy -> when to choose it, in one sentence
WORDS: Mapping[str, str] = {
    "surplus": "What is served is worth most; the only policy whose prices keep everybody content.",
    "max_min": "The job served worst, against its share, is served as well as can be.",
    "proportional": "A share of one job may shrink only if others gain more, in proportion.",
    "finish_time": "The job that sharing delays most is delayed as little as can be.",
    "makespan": "The last job of a batch finishes as early as can be.",
    "allox": "Jobs finish early on average, among the tenants that were served least.",
    "las": "Jobs that attained least service go first: small jobs finish quickly, sizes unknown.",
    "gittins": "Jobs most likely to finish soon go first, by the sizes of past jobs.",
}


def policies_shown() -> list[dict[str, str]]:
    """Every policy by name, its sentence and the parameters it takes."""
    return [
        {"policy": name, "when": WORDS[name], "parameters": ", ".join(PARAMETERS[name])}
        for name in WORDS
    ]


def policy_problems(policy: str, parameters: Mapping[str, Any]) -> list[FieldProblem]:
    """What is wrong with a choice, found by rehearsing it: it would void every round."""
    from economics.book import read_book  # noqa: PLC0415 - the solvers load for a rehearsal only
    from economics.policies import policy_of, question_of  # noqa: PLC0415

    try:
        book = read_book(_rehearsal({"policy": policy, "parameters": dict(parameters)}))
        policy_of(policy)(question_of(book))
    except BadBook as refused:
        return [
            FieldProblem(problem.path.removeprefix("rules."), problem.why)
            for problem in refused.problems
        ]
    return []


def _rehearsal(rules: dict[str, Any]) -> dict[str, Any]:
    """The smallest book with something to decide."""
    return {
        "format": "hanse.book/1",
        "round_hours": 1.0,
        "pools": [{"id": "a.g", "site": "a", "gpu": "g", "gpus": 1, "reserve": 1.0}],
        "affinity": [{"pool": "a.g", "class": "c", "samples_per_s": 1000.0}],
        "jobs": [{"id": "j", "site": "a", "class": "c", "value": 9.0, "gang": 1, "demand": 1.0}],
        "rules": rules,
    }
