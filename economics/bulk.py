"""All job rows of a book at once, field by field; the same reading as `rows.read_jobs`.

Where any row is refused or unusual, there is no result, and the rows are read one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from economics.rows import JOB_KEYS, JobRow
from economics.table import NEEDS_A_LOOK, Columns, alike, amounts, need, only, texts, wholes

REQUIRED = {"id", "site", "class", "value"}
NONE: Mapping[str, float] = {}  # shared by all jobs without `extra`

# The fields of a JobRow in their order: the key of each, and what it is when the key is left out.
FIELDS: Mapping[str, object] = {
    "id": "",
    "site": "",
    "class": "",
    "value": 0.0,
    "demand": math.inf,
    "max_gpus": math.inf,
    "gang": (),
    "pools": None,
    "budget": math.inf,
    "running_on": None,
    "move_cost": 0.0,
    "extra": NONE,
    "weight": 1.0,
    "attained_gpu_s": 0.0,
    "deadline_h": math.inf,
    "tenant": "",
}
TEXTS = ("id", "site", "class", "tenant")
AMOUNTS = ("value", "demand", "budget", "move_cost", "weight", "attained_gpu_s", "deadline_h")


def sound_jobs(raw: object, pools: Collection[str]) -> tuple[JobRow, ...] | None:
    """The jobs of a list of rows, in no order; None if any row needs a closer look.

    `pools`: the ids that a row may name.
    """
    if not isinstance(raw, list):
        return None
    try:
        only(raw, dict)
        rows = tuple(chain.from_iterable(_rows(columns, set(pools)) for _, columns in alike(raw)))
        need(len({row.id for row in rows}) == len(rows))
    except NEEDS_A_LOOK:
        return None
    return rows


def _rows(columns: Columns, pools: set[str]) -> Iterable[JobRow]:
    """Rows that all have these keys."""
    need(columns.keys() >= REQUIRED and columns.keys() <= set(JOB_KEYS))
    need("gang" in columns or "demand" in columns or "max_gpus" in columns)
    need(not ("gang" in columns and "max_gpus" in columns))
    read: dict[str, Iterable[Any]] = {
        **{key: texts(columns[key]) for key in TEXTS if key in columns},
        **{key: amounts(columns[key]) for key in AMOUNTS if key in columns},
    }
    if "weight" in read:
        need(min(read["weight"]) > 0)
    if "max_gpus" in columns:
        read["max_gpus"] = wholes(columns["max_gpus"])
    if "running_on" in columns:
        need(set(columns["running_on"]) <= pools)
        read["running_on"] = columns["running_on"]
    for key, reader in (("gang", _gangs), ("pools", _allowed), ("extra", _extras)):
        if key in columns:
            read[key] = reader(columns[key], pools)
    fields = (read.get(key, repeat(default)) for key, default in FIELDS.items())
    return map(JobRow._make, zip(*fields, strict=False))


def _gangs(values: list[Any], _: set[str]) -> list[tuple[int, ...]]:
    """A whole number each, or a list of them."""
    lists = [value for value in values if type(value) is list]
    wholes([value for value in values if type(value) is not list], least=1)
    wholes(list(chain.from_iterable(lists)), least=1)
    keys = [tuple(value) if type(value) is list else value for value in values]
    return _shared(keys, _sizes)


def _sizes(key: Any) -> tuple[int, ...]:
    sizes = key if isinstance(key, tuple) else (key,)
    need(len(sizes) > 0 and len(set(sizes)) == len(sizes))
    return tuple(sorted(sizes))


def _allowed(values: list[Any], pools: set[str]) -> list[frozenset[str]]:
    def one(names: Any) -> frozenset[str]:
        found = frozenset(names)
        need(found <= pools and len(found) == len(names))
        return found

    only(values, list)
    return _shared(list(map(tuple, values)), one)


def _extras(values: list[Any], pools: set[str]) -> list[Mapping[str, float]]:
    only(values, dict)
    need(set(chain.from_iterable(values)) <= pools)
    fees = iter(amounts(list(chain.from_iterable(map(dict.values, values)))))
    return [dict(zip(value, fees, strict=False)) for value in values]


def _shared(keys: Sequence[Hashable], read: Callable[[Any], Any]) -> list[Any]:
    """What each key is read as, the same object for the same key."""
    found = {key: read(key) for key in set(keys)}
    return [found[key] for key in keys]
