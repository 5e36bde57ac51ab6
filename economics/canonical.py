"""JSON with one spelling: strict reading, RFC 8785 writing, and the digest of a document."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from json.encoder import encode_basestring
from operator import itemgetter
from types import NoneType
from typing import Any, NoReturn

from economics.errors import BadBook, Problem
from economics.memory import no_cycles
from economics.table import alike

LARGEST_FILE = 256 * 1024 * 1024  # bytes
DEEPEST = 24  # levels of nesting; the formats need four
LARGEST_EXACT = 2**53  # whole numbers a double holds exactly
NESTED = {dict, list}
SPELLED = {None: "null", True: "true", False: "false"}

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
        with no_cycles():
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
    with no_cycles():
        if not isinstance(document, Mapping):
            return _spelled([document], DEEPEST)[0].encode("utf-8")
        fields = {key: _Spelled(_field(key, value)) for key, value in document.items()}
        return _spelled([fields], DEEPEST)[0].encode("utf-8")


def document_sha256(document: object) -> str:
    """Digest of the canonical bytes, without the document's own `sha256` key."""
    if isinstance(document, Mapping):
        document = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(canonical_json(document)).hexdigest()


def number_text(number: float) -> str:
    """A number as ECMAScript writes it: shortest digits that read back to the same double."""
    if isinstance(number, int) and abs(number) < LARGEST_EXACT:
        return int.__repr__(int(number))
    try:
        text = float.__repr__(float(number))
    except OverflowError:
        raise ValueError("a whole number is beyond every double") from None
    if "n" in text:
        raise ValueError(f"{text} has no JSON form")
    if "e" not in text:
        return _without_fraction(text)
    mantissa, exponent = text.split("e")
    sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    return sign + _placed(digits.replace(".", ""), int(exponent) + 1)


def _without_fraction(text: str) -> str:
    """`3.0` is written `3`, and `-0.0` is written `0`."""
    whole = text.removesuffix(".0")
    return "0" if whole == "-0" else whole


def _placed(digits: str, point: int) -> str:
    """`digits` with the decimal point after the first `point` of them, as ECMAScript does."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _spelled(values: list[Any], levels: int) -> list[str]:
    """Each value as text. Values of one type are spelled together: rows column by column.

    `levels` is how much deeper lists and objects may be nested.
    """
    types = set(map(type, values))
    if len(types) == 1:
        return _spelled_alike(types.pop(), values, levels)
    texts = [""] * len(values)
    for kind in types:
        at = [place for place, value in enumerate(values) if type(value) is kind]
        alike = _spelled_alike(kind, [values[place] for place in at], levels)
        for place, text in zip(at, alike, strict=True):
            texts[place] = text
    return texts


class _Spelled(str):
    """A value that is spelled already."""

    __slots__ = ()


def _spelled_alike(kind: type, values: list[Any], levels: int) -> list[str]:
    if issubclass(kind, str):
        return values if kind is _Spelled else list(map(encode_basestring, values))
    if kind is float:
        return _spelled_floats(values)
    if issubclass(kind, bool | NoneType):
        return [SPELLED[value] for value in values]
    if kind is int and -LARGEST_EXACT < min(values) <= max(values) < LARGEST_EXACT:
        return list(map(repr, values))
    if issubclass(kind, int | float):
        return list(map(number_text, values))
    return _spelled_nested(kind, values, levels)


def _spelled_nested(kind: type, values: list[Any], levels: int) -> list[str]:
    if not issubclass(kind, list | tuple | Mapping):
        raise ValueError(f"{kind.__name__} has no JSON form")
    if levels == 0:
        raise ValueError("nested too deeply")
    if issubclass(kind, list | tuple):
        return _spelled_lists(values, levels - 1)
    return _spelled_objects(list(map(dict, values)) if kind is not dict else values, levels - 1)


def _spelled_floats(values: list[float]) -> list[str]:
    """Most doubles are written alike in Python and in ECMAScript; the others go one by one."""
    texts = list(map(float.__repr__, values))
    together = ",".join(texts) + ","
    if "e" not in together and "n" not in together:
        return texts if ".0," not in together else list(map(_without_fraction, texts))
    return list(map(number_text, values))


def _spelled_lists(values: list[Sequence[Any]], levels: int) -> list[str]:
    items = list(chain.from_iterable(values))
    texts = _spelled(items, levels) if items else []
    ends = list(accumulate(map(len, values)))
    starts = [0, *ends]
    return [f"[{','.join(texts[start:end])}]" for start, end in zip(starts, ends, strict=False)]


def _spelled_objects(values: list[Mapping[Any, Any]], levels: int) -> list[str]:
    """Objects of the same keys share their punctuation, and each key is a column of values."""
    texts = ["{}"] * len(values)
    for places, columns in alike(values):
        if not all(isinstance(key, str) for key in columns):
            raise ValueError("a key that is no text has no JSON form")
        keys = sorted(columns, key=_utf16)
        marks = [encode_basestring(key).replace("%", "%%") + ":%s" for key in keys]
        template = "{" + ",".join(marks) + "}"
        fields = zip(*(_spelled(columns[key], levels) for key in keys), strict=True)
        for place, text in zip(places, map(template.__mod__, fields), strict=bool(keys)):
            texts[place] = text
    return texts


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _field(key: object, value: object) -> str:
    """A field of the document; rows are spelled as they stand, and their texts sorted."""
    if key not in ROW_KEYS or not isinstance(value, list | tuple):
        return _spelled([value], DEEPEST - 1)[0]
    rows = _spelled(list(value), DEEPEST - 2)
    return f"[{','.join([rows[at] for at in _order(value, ROW_KEYS[str(key)])])}]"


def _order(rows: Sequence[Any], keys: tuple[str, ...]) -> Iterable[int]:
    """Places of the rows by id; as they stand when they are no rows."""
    if not all(issubclass(kind, Mapping) for kind in set(map(type, rows))):
        return range(len(rows))
    names: list[Any]
    try:
        names = list(map(itemgetter(*keys), rows))
        texts = set(map(type, names if len(keys) == 1 else chain.from_iterable(names))) <= {str}
    except KeyError:
        texts = False
    if not texts:
        names = [[_row_key(row, key) for key in keys] for row in rows]
    return sorted(range(len(rows)), key=names.__getitem__)


def _row_key(row: Mapping[str, Any], key: str) -> tuple[float, str]:
    value = row.get(key, 1 if key == "gpus" else "")
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value), ""
    return math.inf, str(value)


def _within_depth(value: object, levels: int) -> bool:
    """Whether what JSON gave us ends within `levels`; no recursion, so deep input cannot harm."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        items = [item.values() if isinstance(item, dict) else item for item in layer]
        layer = [child for item in items for child in item if type(child) in NESTED]
        if not layer:
            return True
    return False


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
