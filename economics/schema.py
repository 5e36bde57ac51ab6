"""Reading a JSON object field by field. A refusal is noted with its path, and reading goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from economics.errors import BadBook, Problem

MOST_LISTED = 1000  # problems of one document
LARGEST_NUMBER = 1e15  # beyond this, micro-credits no longer fit a double


class Problems:
    """What was refused so far: the first of it word by word, the rest by number."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._more = 0

    def note(self, path: str, why: str) -> None:
        if len(self._found) < MOST_LISTED:
            self._found.append(Problem(path, why))
        else:
            self._more += 1

    def raise_if_any(self) -> None:
        if self._more:
            self._found.append(Problem("...", f"and {self._more} more problems"))
        if self._found:
            raise BadBook(tuple(self._found))


class Fields:
    """One JSON object at a path. A refused field reads as a harmless stand-in."""

    def __init__(self, raw: object, path: str, problems: Problems, known: Iterable[str]) -> None:
        self.path = path
        self.problems = problems
        self.raw: Mapping[str, object] = {}
        if not isinstance(raw, Mapping):
            problems.note(path or "book", "must be an object")
            return
        self.raw = raw
        for key in sorted(set(map(str, raw)) - set(known)):
            problems.note(self.at(key), "unknown key")

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def __contains__(self, key: str) -> bool:
        return key in self.raw

    def refuse(self, key: str, why: str) -> None:
        self.problems.note(self.at(key), why)

    def text(self, key: str) -> str:
        if key not in self.raw:
            self.refuse(key, "is missing")
            return ""
        return read_text(self.raw[key], self.at(key), self.problems)

    def number(self, key: str, default: float | None = None, most: float = LARGEST_NUMBER) -> float:
        """A finite number from 0 to `most`; `default` None means the key is required."""
        if key not in self.raw:
            if default is None:
                self.refuse(key, "is missing")
            return default or 0.0
        return read_number(self.raw[key], self.at(key), self.problems, most)

    def whole(self, key: str, default: int | None = None, least: int = 0) -> int:
        if key not in self.raw:
            if default is None:
                self.refuse(key, "is missing")
            return default or 0
        return read_whole(self.raw[key], self.at(key), self.problems, least)

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
            return default
        return value

    def items(self, key: str, *, required: bool = False) -> Sequence[object]:
        """The items of a list."""
        if key not in self.raw:
            if required:
                self.refuse(key, "is missing")
            return ()
        value = self.raw[key]
        if not isinstance(value, list | tuple):
            self.refuse(key, "must be a list")
            return ()
        return value

    def rows(self, key: str, *, required: bool = False) -> list[tuple[str, object]]:
        """The items of a list, each with its path."""
        items = self.items(key, required=required)
        return [(f"{self.at(key)}[{at}]", item) for at, item in enumerate(items)]

    def amounts(self, key: str, known: Iterable[str], of: str) -> dict[str, float]:
        """An object of numbers whose keys are known ids, such as {pool: credits}."""
        value = self.raw.get(key, {})
        if not isinstance(value, Mapping):
            self.refuse(key, "must be an object")
            return {}
        found, known = {}, set(known)
        for name, number in value.items():
            path = f"{self.at(key)}.{name}"
            if name not in known:
                self.problems.note(path, f"unknown {of}")
            found[str(name)] = read_number(number, path, self.problems)
        return found


def read_text(value: object, path: str, problems: Problems) -> str:
    if not isinstance(value, str) or not value:
        problems.note(path, "must be a text that is not empty")
        return ""
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        problems.note(path, "is not valid Unicode")
        return ""
    return value


def read_number(
    value: object, path: str, problems: Problems, most: float = LARGEST_NUMBER
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        problems.note(path, "must be a number")
        return 0.0
    if isinstance(value, float) and not math.isfinite(value):
        problems.note(path, "must be finite")
        return 0.0
    if value < 0:
        shown = f", is {value}" if value >= -most else ""
        problems.note(path, f"must not be negative{shown}")
        return 0.0
    if value > most:
        problems.note(path, f"must be at most {most:g}")
        return 0.0
    return float(value)


def read_whole(value: object, path: str, problems: Problems, least: int = 0) -> int:
    number = read_number(value, path, problems)
    if isinstance(value, bool) or number != value:
        return 0  # refused already
    if number != int(number):
        problems.note(path, "must be a whole number")
    elif number < least:
        problems.note(path, f"must be at least {least}")
    return int(number)
