"""Reading one block of a job file field by field, collecting every problem on the way.

A reader returns a usable value or None; None always comes with a problem on the list, unless the
field was left out and may be. So reading goes on to the end of the file and the tenant sees all
that is wrong at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from hanse.errors import Problem
from hanse.jobfile.document import Entry, Mapping, Node, Scalar, Sequence

NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62})")
NAME_RULE = "must be 1 to 63 letters, digits, '.', '_' or '-', the first a letter or a digit"
PLACE = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._:/-]{0,126})")
PLACE_RULE = "must be the id of a site or pool"
MAX_SCRIPT = 65_536  # characters
MAX_LIST = 256
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*(_\d+)*)?(\.\d*)?([eE][-+]?\d{1,4})?")
_NOT_FINITE = re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be; `places` = digits after the point, 0 = whole numbers."""

    least: Decimal
    most: Decimal
    unit: str
    places: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """One mapping of the file, its path, and the list its problems go to."""

    mapping: Mapping
    path: str
    problems: list[Problem]

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def blame(self, line: int, key: str, sentence: str) -> None:
        self.problems.append(Problem(line, self.at(key), sentence))

    def only(self, known: Iterable[str], later: Iterable[str] = ()) -> None:
        """Refuse every key but `known`; those in `later` are of the format but not built."""
        known, later = tuple(known), tuple(later)
        for key, entry in self.mapping.entries.items():
            if key in known:
                continue
            if key in later:
                self.blame(entry.line, key, "not supported yet")
                continue
            near = difflib.get_close_matches(key, (*known, *later), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            self.blame(entry.line, key, f"unknown key{hint}")

    def entry(self, key: str, *, required: bool = False) -> Entry | None:
        found = self.mapping.entries.get(key)
        if found is None and required:
            self.blame(self.mapping.line, key, "missing")
        return found

    def block(self, key: str, *, required: bool = False) -> Block:
        """A mapping inside this one; an empty one when it is left out."""
        entry = self.entry(key, required=required)
        if entry is not None and isinstance(entry.node, Mapping):
            return Block(entry.node, self.at(key), self.problems)
        if entry is not None and not required and is_null(entry.node):
            entry = None
        if entry is not None:
            self.blame(entry.line, key, "must be a block of keys")
        # What is missing inside a missing block is not worth a line each: those go nowhere.
        lost = required or entry is not None
        line = self.mapping.line
        return Block(Mapping(line), self.at(key), [] if lost else self.problems)

    def text(self, key: str, *, required: bool = False) -> str | None:
        """A script or another free text: no control characters but tab and line ends."""
        entry = self.entry(key, required=required)
        if entry is None:
            return None
        node = entry.node
        if not isinstance(node, Scalar) or (node.plain and node.tag != "str"):
            self.blame(entry.line, key, "must be a text; put it in quotes")
        elif required and not node.text.strip():
            self.blame(entry.line, key, "must not be empty")
        elif len(node.text) > MAX_SCRIPT:
            self.blame(entry.line, key, f"has at most {MAX_SCRIPT} characters")
        elif _CONTROL.search(node.text):
            self.blame(entry.line, key, "must not contain control characters")
        else:
            return node.text
        return None

    def word(self, key: str) -> str | None:
        """A required name: safe as a file name, in a URL and on a terminal."""
        before = len(self.problems)
        text = self.text(key, required=True)
        if text is not None and not NAME.fullmatch(text):
            line = self.mapping.entries[key].node.line
            self.blame(line, key, NAME_RULE)
        return text if len(self.problems) == before else None

    def number(self, key: str, allowed: Range, *, required: bool = False) -> Decimal | None:
        entry = self.entry(key, required=required)
        if entry is None:
            return None
        node = entry.node
        if not isinstance(node, Scalar):
            self.blame(entry.line, key, "must be a number")
            return None
        number, sentence = read_number(node.text, allowed)
        if sentence:
            self.blame(node.line, key, sentence)
        return number

    def flag(self, key: str, *, default: bool) -> bool:
        entry = self.entry(key)
        if entry is None:
            return default
        node = entry.node
        if isinstance(node, Scalar) and node.plain and node.text.lower() in _BOOLEANS:
            return _BOOLEANS[node.text.lower()]
        self.blame(entry.line, key, "must be true or false")
        return default

    def moment(self, key: str) -> datetime | None:
        """An RFC 3339 time with its zone; null is the same as left out."""
        entry = self.entry(key)
        if entry is None or is_null(entry.node):
            return None
        found = _moment(entry.node)
        if found is not None and not 2 <= found.year <= 9998:
            found = None  # its zone would carry it out of the calendar
        if found is None:
            self.blame(
                entry.node.line, key, "must be a time with its zone, such as 2026-12-01T12:00:00Z"
            )
        return found

    def places(self, key: str) -> tuple[str, ...]:
        """A list of ids of sites or pools."""
        entry = self.entry(key)
        if entry is None:
            return ()
        if not isinstance(entry.node, Sequence) or len(entry.node.items) > MAX_LIST:
            self.blame(entry.line, key, f"must be a list of at most {MAX_LIST} ids")
            return ()
        found: list[str] = []
        for number, node in enumerate(entry.node.items):
            at = f"{key}[{number}]"
            if not isinstance(node, Scalar) or not PLACE.fullmatch(node.text):
                self.blame(node.line, at, PLACE_RULE)
            elif node.text in found:
                self.blame(node.line, at, f"{node.text!r} is given twice")
            else:
                found.append(node.text)
        return tuple(found)


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.tag == "null"


def read_number(text: str, allowed: Range) -> tuple[Decimal | None, str]:
    """The number a text stands for, or a sentence that says why it is none."""
    if _NOT_FINITE.fullmatch(text):
        return None, "must be a finite number"
    if not _NUMBER.fullmatch(text) or not re.search(r"\d", text.lower().partition("e")[0]):
        return None, "must be a number"
    if len(text) > 40:
        return None, "has too many digits"
    number = Decimal(text)
    fault = _fault(number, allowed)
    return (None, fault) if fault else (number, "")


def _fault(number: Decimal, allowed: Range) -> str:
    absurd = bool(number) and abs(number.adjusted()) > 30  # before arithmetic on its exponent
    if absurd or not allowed.least <= number <= allowed.most:
        return f"must be between {allowed.least:f} and {allowed.most:f} {allowed.unit}"
    if number == round(number, allowed.places):
        return ""
    if allowed.places:
        return f"has at most {allowed.places} digits after the point"
    return f"must be a whole number of {allowed.unit}"


def _moment(node: Node) -> datetime | None:
    if not isinstance(node, Scalar) or len(node.text) > 40:
        return None
    try:
        found = datetime.fromisoformat(node.text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
