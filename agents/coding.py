"""Messages as JSON and back. `decode` is strict; see `agents.protocol` for what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar, cast

MAX_LOG_CHUNK = 64 * 1024  #: bytes of log in one report, before base64
MAX_TEXT = 4096  #: characters of any one text field except commands and logs
MAX_COMMAND = 64 * 1024
#: marks a field that came after the first release: it is not sent while it is None, so that a
#: reader that does not know it yet reads on
ADDED = types.MappingProxyType({"added": True})

T = TypeVar("T")
Reader = Callable[[Any], Any]  #: a JSON value -> what it means; raises BadMessage
_PLAIN = frozenset({str, int, float, bool, type(None)})


class BadMessage(ValueError):
    """A message that does not fit the protocol: `path` names the field, `why` says what to mend."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one value, one text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def encode(message: Any) -> Any:
    """A message as plain JSON values."""
    kind = type(message)
    if kind in _PLAIN:
        return message
    if dataclasses.is_dataclass(kind):
        pairs = ((name, getattr(message, name), added) for name, added in _fields(kind))
        return {name: encode(v) for name, v, added in pairs if v is not None or not added}
    if isinstance(message, tuple | list):
        return [encode(item) for item in message]
    if isinstance(message, dict):
        return {key: encode(item) for key, item in message.items()}
    return message


@functools.cache
def _fields(kind: Any) -> list[tuple[str, bool]]:
    """The fields of a message, and which came after the first release."""
    return [(f.name, "added" in f.metadata) for f in dataclasses.fields(kind)]


def decode(kind: type[T], data: Any, path: str = "") -> T:
    """Build `kind` from JSON values; raises BadMessage with the path of the first bad field."""
    try:
        return cast(T, _record(cast(Any, kind))(data))
    except BadMessage as error:
        raise BadMessage(_join(path, error.path) or "body", error.why) from None


def _join(path: str, rest: str) -> str:
    """The path of `rest`, which is a field or a place in a list."""
    dot = "." if path and rest and not rest.startswith("[") else ""
    return f"{path}{dot}{rest}"


@functools.cache
def _record(kind: Any) -> Reader:
    """Reads one kind of message. Readers are made once; what they refuse names the path within."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: _reader(hints[f.name], f.name) for f in dataclasses.fields(kind)}
    missing = dataclasses.MISSING
    needed = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is missing and f.default_factory is missing
    ]

    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise BadMessage("", "an object is expected")
        if not fields.keys() >= data.keys():
            unknown = next(key for key in data if key not in fields)
            raise BadMessage(str(unknown) or '""', "unknown field")
        values = {}
        for name, reader in fields.items():
            if name in data:
                try:
                    values[name] = reader(data[name])
                except BadMessage as error:
                    raise BadMessage(_join(name, error.path), error.why) from None
            elif name in needed:
                raise BadMessage(name, "missing")
        return kind(**values)

    return read


def _reader(hint: Any, name: str) -> Reader:
    """Reads the values of one type of field."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        [inner] = [a for a in typing.get_args(hint) if a is not type(None)]
        return _optional(_reader(inner, name))
    if origin is tuple:
        return _list(_reader(typing.get_args(hint)[0], ""))
    if dataclasses.is_dataclass(hint):
        return _record(cast(Any, hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return functools.partial(_word, hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    long = name.endswith(("command", "setup", "data"))
    return functools.partial(_text, limit=MAX_LOG_CHUNK * 2 if long else MAX_TEXT)


def _optional(inner: Reader) -> Reader:
    return lambda value: None if value is None else inner(value)


def _list(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise BadMessage("", "a list is expected")
        found = []
        for at, one in enumerate(value):
            try:
                found.append(item(one))
            except BadMessage as error:
                raise BadMessage(_join(f"[{at}]", error.path), error.why) from None
        return tuple(found)

    return read


def _mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadMessage("", "an object is expected")
    found = {}
    for key, item in value.items():
        name = _text(key, MAX_TEXT)
        try:
            found[name] = _text(item, MAX_COMMAND)
        except BadMessage as error:
            raise BadMessage(name, error.why) from None
    return found


def _word(words: type[StrEnum], value: Any) -> StrEnum:
    try:
        return words(value)
    except ValueError:
        raise BadMessage("", f"one of {', '.join(words)} is expected") from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadMessage("", "true or false is expected")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadMessage("", "a whole number is expected")
    if abs(value) > 2**62:
        raise BadMessage("", "too large")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadMessage("", "a number is expected")
    if isinstance(value, int) and abs(value) > 2**62:
        raise BadMessage("", "too large")
    if not math.isfinite(value):
        raise BadMessage("", "a finite number is expected")
    return float(value)


_SIMPLE: dict[Any, Reader] = {
    bool: _flag,
    int: _whole,
    float: _number,
    dict[str, str]: _mapping,
}


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise BadMessage("", "text is expected")
    if len(value) > limit:
        raise BadMessage("", f"at most {limit} characters")
    if "\x00" in value:
        raise BadMessage("", "a NUL character is not allowed")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # no file and no database takes half a surrogate pair
            raise BadMessage("", "half a surrogate pair is not a character") from None
    return value
