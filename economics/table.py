"""Objects of like keys as columns: what lets a hundred thousand rows be read in a few steps.

A column is checked as a whole. Where anything in it is refused or merely unusual (a whole number
written `2.0`, say), `Odd` is raised and the rows are read one by one: only that reading knows what
to say about each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from economics.schema import LARGEST_NUMBER

Row = Mapping[Any, Any]
Keys = tuple[Any, ...]
Columns = Mapping[Any, list[Any]]


class Odd(Exception):
    """Something here needs a closer look."""


# What the checks below may raise: TypeError where a value cannot be hashed, OverflowError where it
# is beyond every double, UnicodeEncodeError where it is half a letter.
NEEDS_A_LOOK = (Odd, TypeError, OverflowError, UnicodeEncodeError)


def alike(rows: Sequence[Row]) -> Iterator[tuple[list[int], Columns]]:
    """Rows that have the same keys: their places, and {key: its value in each of them}."""
    by_size: dict[int, list[int]] = {}
    for place, size in enumerate(map(len, rows)):
        by_size.setdefault(size, []).append(place)
    for places in by_size.values():
        members = [rows[place] for place in places]
        keys = tuple(members[0])
        try:  # rows of one size that all have these keys have no others
            yield places, _columns(members, keys)
        except KeyError:
            for same, at in _by_keys(members).items():
                yield (
                    [places[place] for place in at],
                    _columns([members[place] for place in at], same),
                )


def need(holds: bool) -> None:
    if not holds:
        raise Odd


def only(values: Collection[Any], kind: type) -> None:
    """All values are of exactly this type."""
    need(set(map(type, values)) <= {kind})


def texts(values: list[Any]) -> list[str]:
    """Texts that are not empty."""
    only(values, str)
    need(all(values))
    "".join(values).encode("utf-8")
    return values


def amounts(values: list[Any]) -> list[float]:
    """Finite numbers from 0 to LARGEST_NUMBER."""
    kinds = set(map(type, values))
    need(kinds <= {int, float})
    numbers = np.array(values, dtype=float)
    need(bool(((numbers >= 0) & (numbers <= LARGEST_NUMBER)).all()))
    return values if kinds == {float} else list(map(float, values))


def wholes(values: list[Any], least: int = 0, most: int = int(LARGEST_NUMBER)) -> list[int]:
    """Whole numbers, written as such, from `least` to `most`."""
    only(values, int)
    need(not values or least <= min(values) <= max(values) <= most)
    return values


def _by_keys(rows: list[Row]) -> dict[Keys, list[int]]:
    """{keys in the order they stand: places of the rows that have them}."""
    found: dict[Keys, list[int]] = {}
    for place, keys in enumerate(map(tuple, rows)):
        found.setdefault(keys, []).append(place)
    return found


def _columns(rows: list[Row], keys: Keys) -> Columns:
    """One pass over the rows, which is kinder to the memory than one for each key."""
    if len(keys) < 2:
        return {key: [row[key] for row in rows] for key in keys}
    values = list(chain.from_iterable(map(itemgetter(*keys), rows)))
    return {key: values[at :: len(keys)] for at, key in enumerate(keys)}
