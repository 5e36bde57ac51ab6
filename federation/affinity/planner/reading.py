"""PLAN.json and POOLS.json: strict reading, one problem for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from economics.errors import Problem
from federation.affinity.planner.checks import Rule, refuse_any
from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.model import RULES, ModelDescription
from federation.affinity.planner.pool import (
    BELIEF_RULES,
    DEVICE_RULES,
    POOL_RULES,
    BelievedSpeed,
    Device,
    Pool,
)

HERE = "the GPUs given"
PLACE = ("gpus", "gpus_per_node")
KEYS = {*RULES, *PLACE, "gpu"}


def read_plan(document: object) -> tuple[ModelDescription, Pool]:
    """PLAN.json: a model, and the GPUs to plan it for."""
    fields = _object(document, "PLAN")
    place = {name: POOL_RULES[name] for name in PLACE}
    refuse_any(
        [
            *_unknown(fields, KEYS, ""),
            *_numbers(fields, RULES | place, ""),
            *_device_problems(fields, ""),
        ]
    )
    model = ModelDescription(**_read(fields, RULES))
    return model, Pool(HERE, _device(fields), **_read(fields, place))


def read_model(document: object, *, samples: float | None) -> ModelDescription:
    """The model of PLAN.json, whose own GPUs may be left out and are not looked at."""
    fields = _object(document, "PLAN")
    refuse_any([*_unknown(fields, KEYS, ""), *_numbers(fields, RULES, "")])
    return ModelDescription(**_read(fields, RULES), samples=samples)


def read_pools(document: object) -> list[Pool]:
    """POOLS.json: `{"pools": [{"id", "gpu", "gpus", "gpus_per_node", "price"}]}`."""
    fields = _object(document, "POOLS")
    refuse_any(_unknown(fields, {"pools"}, ""))
    rows = fields.get("pools")
    if not isinstance(rows, list) or not rows:
        refuse_any([Problem("pools", "must be a list with at least one pool")])
        return []
    found: list[Pool] = []
    problems: list[Problem] = []
    for at, row in enumerate(rows):
        try:
            found.append(_pool(row, f"pools[{at}]"))
        except BadDescription as refused:
            problems += refused.problems
    refuse_any(problems)
    return found


def _pool(row: object, path: str) -> Pool:
    fields = _object(row, path)
    given = {name: rule for name, rule in POOL_RULES.items() if name != "efficiency"}
    if "efficiency" in fields:
        given["efficiency"] = POOL_RULES["efficiency"]
    belief = fields.get("believed")
    problems = _unknown(fields, {"id", "gpu", "believed", *POOL_RULES}, f"{path}.")
    problems += _numbers(fields, given, f"{path}.") + _device_problems(fields, f"{path}.")
    if belief is not None:
        problems += _group_problems(belief, BELIEF_RULES, f"{path}.believed")
    if not isinstance(fields.get("id"), str) or not fields["id"]:
        problems.append(Problem(f"{path}.id", "must be a name"))
    refuse_any(problems)
    believed = None if belief is None else BelievedSpeed(**_read(belief, BELIEF_RULES))
    return Pool(fields["id"], _device(fields), **_read(fields, given), believed=believed)


def _device(fields: Mapping[str, Any]) -> Device:
    return Device(**_read(fields["gpu"], DEVICE_RULES))


def _device_problems(fields: Mapping[str, Any], path: str) -> list[Problem]:
    if "gpu" not in fields:
        return [Problem(f"{path}gpu", "missing")]
    return _group_problems(fields["gpu"], DEVICE_RULES, f"{path}gpu")


def _group_problems(group: object, rules: Mapping[str, Rule], path: str) -> list[Problem]:
    if not isinstance(group, dict):
        return [Problem(path, f"must be an object with {', '.join(rules)}")]
    return _unknown(group, set(rules), f"{path}.") + _numbers(group, rules, f"{path}.")


def _object(document: object, path: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise BadDescription((Problem(path, "must be a JSON object"),))
    return document


def _unknown(fields: Mapping[str, Any], known: Collection[str], path: str) -> list[Problem]:
    return [Problem(f"{path}{name}", "unknown key") for name in fields if name not in known]


def _numbers(fields: Mapping[str, Any], rules: Mapping[str, Rule], path: str) -> list[Problem]:
    found = []
    for name, rule in rules.items():
        if name not in fields:
            found.append(Problem(f"{path}{name}", "missing"))
        elif (problem := rule.problem(f"{path}{name}", fields[name])) is not None:
            found.append(problem)
    return found


def _read(fields: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Numbers as the rules want them: 96.0 layers are 96."""
    return {
        name: int(fields[name]) if rule.whole else float(fields[name])
        for name, rule in rules.items()
    }
