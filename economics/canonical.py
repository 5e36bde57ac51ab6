"""JSON with one spelling: strict reading, RFC 8785 writing, and the digest of a document."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

from economics.errors import BadBook, Problem

LARGEST_FILE = 256 * 1024 * 1024  # bytes
DEEPEST = 24  # levels of nesting; the formats need four
LARGEST_EXACT = 2**53  # whole numbers a double holds exactly

# What a row is sorted by, for every list of rows in the formats.
ROW_KEYS: dict[str, tuple[str, ...]] = {
    "pools": ("id",),
    "affinity": ("pool", "class", "gpus"),
    "transfer": ("from", "to"),
    "jobs": ("id",),
    "floors": ("job",),
    "allocation": ("job", "pool"),
    "unplaced": ("job",),
    "certificate": ("check",),
    "sites": ("site",),
    "rules": ("rule",),
}


def parse_json(text: str | bytes, *, name: str = "document") -> object:
    """The value of a JSON text; refuses duplicate keys, NaN, Infinity, absurd size and nesting."""
    if len(text) > LARGEST_FILE:
        _refuse(name, f"is larger than {LARGEST_FILE} bytes")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        _refuse(name, "is nested too deeply")
    except ValueError as error:
        _refuse(name, f"is not JSON we read: {error}")
    if not _within_depth(value, DEEPEST):
        _refuse(name, "is nested too deeply")
    return value


def canonical_json(document: object) -> bytes:
    """RFC 8785 bytes of a document whose rows are first sorted by id.

    Raises ValueError for what has no canonical spelling (NaN, lone surrogates, other types).
    """
    if not _within_depth(document, DEEPEST):
        raise ValueError("nested too deeply")
    return _spell(_sorted_rows(document)).encode("utf-8")


def document_sha256(document: object) -> str:
    """Digest of the canonical bytes, without the document's own `sha256` key."""
    if isinstance(document, Mapping):
        document = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(canonical_json(document)).hexdigest()


def number_text(number: float) -> str:
    """A number as ECMAScript writes it: shortest digits that read back to the same double."""
    if isinstance(number, int) and abs(number) < LARGEST_EXACT:
        return str(number)
    number = float(number)
    if not math.isfinite(number):
        raise ValueError(f"{number} has no JSON form")
    if number == 0.0:
        return "0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    return ("-" if sign else "") + _placed(text, len(text) + int(exponent))


def _placed(digits: str, point: int) -> str:
    """`digits` with the decimal point after the first `point` of them, as ECMAScript does."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _spell(value: object) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(_spell(item) for item in value) + "]"
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_spell(key)}:{_spell(value[key])}" for key in keys) + "}"
    raise ValueError(f"{type(value).__name__} has no JSON form")


def _sorted_rows(document: object) -> object:
    if not isinstance(document, Mapping):
        return document
    return {
        key: _sorted_by(rows, ROW_KEYS[key]) if key in ROW_KEYS else rows
        for key, rows in document.items()
    }


def _sorted_by(rows: object, keys: tuple[str, ...]) -> object:
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        return rows
    return sorted(rows, key=lambda row: [_row_key(row, key) for key in keys])


def _row_key(row: Mapping[str, Any], key: str) -> tuple[float, str]:
    value = row.get(key, 1 if key == "gpus" else "")
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value), ""
    return math.inf, str(value)


def _within_depth(value: object, levels: int) -> bool:
    """Whether nesting ends within `levels`; no recursion, so deep input cannot harm."""
    layer = [value]
    for _ in range(levels):
        layer = [child for item in layer for child in _children(item)]
        if not layer:
            return True
    return False


def _children(item: object) -> list[object]:
    if isinstance(item, Mapping):
        return [child for child in item.values() if isinstance(child, Mapping | list | tuple)]
    if isinstance(item, list | tuple):
        return [child for child in item if isinstance(child, Mapping | list | tuple)]
    return []


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"duplicate key {', '.join(map(repr, twice))}")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _refuse(name: str, why: str) -> NoReturn:
    raise BadBook((Problem(name, why),)) from None
