"""Reading CSV tables in blocks: columns as numbers, and a sentence for each wrong cell."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from federation.affinity.samples import BadSamples

Array = NDArray[np.float64]
BLOCK = 65_536  #: rows that are held at once
MOST_PROBLEMS = 100  #: sentences after which reading stops


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a table. Lines are counted from the header, which is line 1."""

    lines: Sequence[int]  #: of each row; blank lines are no rows, and are counted
    columns: dict[str, tuple[str, ...]]
    rows: int

    def line(self, place: int) -> int:
        return self.lines[place]

    def texts(self, name: str) -> tuple[str, ...]:
        """A column, or empty cells where the table lacks it."""
        return self.columns.get(name) or ("",) * self.rows


class Problems:
    """Sentences that were collected; raises once there are too many, or at `settle`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: list[str] = []

    def add(self, where: str, why: str) -> None:
        self.found.append(f"{self.name}: {where}: {why}" if where else f"{self.name}: {why}")
        if len(self.found) >= MOST_PROBLEMS:
            self.found.append(f"{self.name}: and perhaps more; reading stopped here")
            self.settle()

    def settle(self) -> None:
        if self.found:
            raise BadSamples(tuple(self.found))


def blocks(
    path: Path, problems: Problems, *, needed: Collection[str], optional: Collection[str]
) -> Iterator[Block]:
    """The rows of a file, a block at a time; raises `BadSamples` for what is no such table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, problems, needed, optional)
            line = 2
            while rows := list(islice(reader, BLOCK)):
                yield _block(header, *_kept(rows, line), problems)
                line += len(rows)
    except OSError as error:
        problems.add("", error.strerror or str(error))
    except (csv.Error, UnicodeDecodeError) as error:
        problems.add("", f"is not a CSV file that we read: {error}")
    problems.settle()


def numbers(block: Block, name: str, problems: Problems, *, empty: float | None = None) -> Array:
    """A column as numbers, (n,); `empty` stands for empty cells, refused when it is None."""
    texts = block.texts(name)
    if empty is not None:
        texts = tuple(text if text.strip() else repr(empty) for text in texts)
    try:
        if not _plain("".join(texts)):
            raise ValueError
        return np.array(texts, dtype=float)
    except ValueError:
        return np.array(
            [_number(text, block.line(place), name, problems) for place, text in enumerate(texts)]
        )


def _number(text: str, line: int, name: str, problems: Problems) -> float:
    try:
        if not _plain(text):
            raise ValueError
        return float(text)
    except ValueError:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        problems.add(f"line {line}, {name}", f"{shown!r} is not a number" if text else "is empty")
        return 1.0  # the table is refused; this only lets the other cells be looked at


def _plain(text: str) -> bool:
    """Whether it holds none of what Python reads as numbers and other programs do not."""
    return text.isascii() and "_" not in text


def _check_header(
    header: list[str], problems: Problems, needed: Collection[str], optional: Collection[str]
) -> None:
    if not header:
        problems.add("", "the file is empty: a line with the names of the columns is missing")
        problems.settle()
    for name in needed:
        if name not in header:
            problems.add(name, "this column is missing")
    for name in dict.fromkeys(header):
        where = name or "a column without a name"
        if header.count(name) > 1:
            problems.add(where, "this column stands twice")
        if name not in needed and name not in optional:
            known = ", ".join([*needed, *optional])
            problems.add(where, f"this column is not known; known are {known}")
    problems.settle()


def _kept(rows: list[list[str]], first: int) -> tuple[list[list[str]], Sequence[int]]:
    """Rows that are not blank, and their lines."""
    kept = [place for place, row in enumerate(rows) if len(row) > 1 or (row and row[0].strip())]
    if len(kept) == len(rows):
        return rows, range(first, first + len(rows))
    return [rows[place] for place in kept], [first + place for place in kept]


def _block(
    header: list[str], rows: list[list[str]], lines: Sequence[int], problems: Problems
) -> Block:
    wrong = [place for place, row in enumerate(rows) if len(row) != len(header)]
    for place in wrong:
        cells = len(rows[place])
        problems.add(f"line {lines[place]}", f"{cells} cells where the header has {len(header)}")
    problems.settle()
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    return Block(lines, dict(zip(header, columns, strict=True)), len(rows))
