"""Messages as JSON and back. `decode` is strict; see `agents.protocol` for what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from enum import StrEnum
from typing import Any, TypeVar, cast

MAX_LOG_CHUNK = 64 * 1024  #: bytes of log in one report, before base64
MAX_TEXT = 4096  #: characters of any one text field except commands and logs
MAX_COMMAND = 64 * 1024
#: marks a field that came after the first release: it is not sent while it is None, so that a
#: reader that does not know it yet reads on
ADDED = types.MappingProxyType({"added": True})

T = TypeVar("T")


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
    if dataclasses.is_dataclass(message) and not isinstance(message, type):
        pairs = ((f, getattr(message, f.name)) for f in dataclasses.fields(message))
        return {f.name: encode(v) for f, v in pairs if v is not None or "added" not in f.metadata}
    if isinstance(message, tuple | list):
        return [encode(item) for item in message]
    if isinstance(message, dict):
        return {key: encode(item) for key, item in message.items()}
    return message


def decode(kind: type[T], data: Any, path: str = "") -> T:
    """Build `kind` from JSON values; raises BadMessage with the path of the first bad field."""
    if not isinstance(data, dict):
        raise BadMessage(path or "body", "an object is expected")
    hints, fields = _shape(cast(Any, kind))
    for key in data:
        if key not in fields:
            raise BadMessage(_join(path, str(key) or '""'), "unknown field")
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        here = _join(path, name)
        if name in data:
            values[name] = _value(hints[name], data[name], here)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise BadMessage(here, "missing")
    return kind(**values)


@functools.cache
def _shape(kind: Any) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    """Types and fields of a message by name."""
    fields = dataclasses.fields(kind)
    return typing.get_type_hints(kind), {f.name: f for f in fields}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        [inner] = [a for a in typing.get_args(hint) if a is not type(None)]
        return _value(inner, value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise BadMessage(path, "a list is expected")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        return _mapping(value, path)
    if dataclasses.is_dataclass(hint):
        return decode(cast(Any, hint), value, path)
    return _scalar(hint, value, path)


def _mapping(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadMessage(path, "an object is expected")
    return {
        _text(key, path, MAX_TEXT): _text(item, _join(path, str(key)), MAX_COMMAND)
        for key, item in value.items()
    }


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            raise BadMessage(path, f"one of {', '.join(hint)} is expected") from None
    if hint is bool:
        if not isinstance(value, bool):
            raise BadMessage(path, "true or false is expected")
        return value
    if hint is int:
        return _whole(value, path)
    if hint is float:
        return _number(value, path)
    long = path.endswith(("command", "setup", "data"))
    return _text(value, path, MAX_LOG_CHUNK * 2 if long else MAX_TEXT)


def _whole(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadMessage(path, "a whole number is expected")
    if abs(value) > 2**62:
        raise BadMessage(path, "too large")
    return value


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadMessage(path, "a number is expected")
    if isinstance(value, int) and abs(value) > 2**62:
        raise BadMessage(path, "too large")
    if not math.isfinite(value):
        raise BadMessage(path, "a finite number is expected")
    return float(value)


def _text(value: Any, path: str, limit: int) -> str:
    if not isinstance(value, str):
        raise BadMessage(path, "text is expected")
    if len(value) > limit:
        raise BadMessage(path, f"at most {limit} characters")
    if "\x00" in value:
        raise BadMessage(path, "a NUL character is not allowed")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # no file and no database takes half a surrogate pair
            raise BadMessage(path, "half a surrogate pair is not a character") from None
    return value
