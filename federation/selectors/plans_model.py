"""A job's `model` as the planner reads it: every bad field by its path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from economics.errors import Problem
from federation.affinity.planner.checks import Rule, count
from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.model import RULES, ModelDescription
from federation.affinity.planner.plan import Plan
from federation.affinity.planner.pool import Pool
from federation.affinity.planner.reading import read_model
from federation.affinity.planner.splits import divisors
from federation.affinity.planner.synchronisation import (
    Resources,
    Synchronisation,
    Variable,
    synchronise,
)
from federation.errors import BadInput, FieldProblem

MOST_VARIABLES = 1000
MOST_WAYS = 1536  #: stages times micro-batches; a few hundred are many
LONGEST_NAME = 200
MEGABYTE = 1e6
SIZE_MB = Rule(most=1e9)
ROWS = count(1e12)
VARIABLE_KEYS = ("name", "size_mb", "sparse", "rows")


@dataclass(frozen=True, slots=True)
class VariableSaid:
    """A trainable tensor as its tenant describes it."""

    name: str
    size: float  #: bytes
    sparse: bool  #: an embedding, of which a step touches the rows of its tokens
    rows: int  #: of its first axis


@dataclass(frozen=True, slots=True)
class Asked:
    """What is trained, and its variables where the tenant describes them."""

    model: ModelDescription
    variables: tuple[VariableSaid, ...] = ()


def model_asked(document: Mapping[str, Any], *, samples: float | None) -> Asked:
    """Read a job's `model`; `samples` of the whole run. Raises BadInput for each field."""
    own = {name: value for name, value in document.items() if name in RULES}
    problems = [
        FieldProblem(f"model.{name}", f"unknown key; known are {', '.join(RULES)}, variables")
        for name in document
        if name not in RULES and name != "variables"
    ]
    try:
        model = read_model(own, samples=samples)
    except BadDescription as refused:
        raise BadInput(*problems, *map(_field, refused.problems)) from None
    problems += _ways_problems(model)
    variables, more = _variables(document.get("variables"), model)
    if problems or more:
        raise BadInput(*problems, *more)
    return Asked(model, variables)


def synchronisation_of(asked: Asked, pool: Pool, plan: Plan) -> Synchronisation | None:
    """How the plan's data-parallel ranks keep the variables alike; None when none is described.

    Each rank holds its share of every variable, and each node has a server. A sparse variable has
    at most one row touched for each token of a rank.
    """
    if not asked.variables:
        return None
    share = 1.0 / (plan.tensor * plan.pipeline)
    tokens = asked.model.seq * asked.model.global_batch / plan.data
    link = pool.device.inter if plan.nodes > 1 else pool.device.intra
    here = min(plan.gpus, plan.gpus_per_node)
    return synchronise(
        [
            Variable(
                one.name,
                one.rows,
                one.size * share,
                min(1.0, tokens / one.rows) if one.sparse else 1.0,
            )
            for one in asked.variables
        ],
        Resources(plan.data, plan.nodes, link, link * here),
    )


def _field(problem: Problem) -> FieldProblem:
    return FieldProblem(f"model.{problem.path}", problem.why)


def _ways_problems(model: ModelDescription) -> list[FieldProblem]:
    """Layers and batch with very many divisors would be work without an end."""
    ways = len(divisors(model.layers)) * len(divisors(model.global_batch))
    if ways <= MOST_WAYS:
        return []
    why = (
        f"{model.layers} layers and a batch of {model.global_batch} can be divided in {ways} ways;"
        f" at most {MOST_WAYS} are weighed. Take a batch with fewer divisors"
    )
    return [FieldProblem("model.global_batch", why)]


def _variables(
    said: object, model: ModelDescription
) -> tuple[tuple[VariableSaid, ...], list[FieldProblem]]:
    path = "model.variables"
    if said is None:
        return (), []
    if not isinstance(said, list | tuple) or not 0 < len(said) <= MOST_VARIABLES:
        return (), [FieldProblem(path, f"a list of 1 to {MOST_VARIABLES} variables")]
    problems: list[FieldProblem] = []
    found: list[VariableSaid] = []
    seen: set[str] = set()
    for at, row in enumerate(said):
        wrong = _variable_problems(row, f"{path}[{at}]", seen)
        problems += wrong
        if not wrong:
            seen.add(row["name"])
            found.append(_variable(row, model))
    return tuple(found), problems


def _variable(row: Mapping[str, Any], model: ModelDescription) -> VariableSaid:
    """Rows left out: of a sparse one those of the vocabulary, of another one, so it is not cut."""
    sparse = row.get("sparse") is True
    rows = row.get("rows")
    whole = int(rows) if rows is not None else model.vocab if sparse else 1
    return VariableSaid(row["name"], float(row["size_mb"]) * MEGABYTE, sparse, whole)


def _variable_problems(row: object, path: str, seen: set[str]) -> list[FieldProblem]:
    if not isinstance(row, Mapping):
        return [FieldProblem(path, f"an object with {', '.join(VARIABLE_KEYS)}")]
    known = ", ".join(VARIABLE_KEYS)
    found = [
        FieldProblem(f"{path}.{name}", f"unknown key; known are {known}")
        for name in row
        if name not in VARIABLE_KEYS
    ]
    found += _name_problems(row.get("name"), f"{path}.name", seen)
    figures = [("size_mb", SIZE_MB, row.get("size_mb", math.nan))]
    if row.get("rows") is not None:
        figures.append(("rows", ROWS, row["rows"]))
    for name, rule, value in figures:
        problem = rule.problem(f"{path}.{name}", value)
        if problem is not None:
            found.append(FieldProblem(problem.path, problem.why))
    if not isinstance(row.get("sparse", False), bool):
        found.append(FieldProblem(f"{path}.sparse", "true or false"))
    return found


def _name_problems(name: object, path: str, seen: set[str]) -> list[FieldProblem]:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        return [FieldProblem(path, f"1 to {LONGEST_NAME} printable characters")]
    return [FieldProblem(path, f"{name!r} stands twice")] if name in seen else []
