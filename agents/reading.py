"""Reading of plain YAML values: the wanted type, or a ConfigError with the path of the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.errors import ConfigError


def a_mapping(value: Any, path: str, known: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(path, "a mapping is expected")
    for key in value:
        if key not in known.split():
            here = str(key) if path == "config" else f"{path}.{key}"
            raise ConfigError(here, f"unknown key; known are {', '.join(known.split())}")
    return value


def a_list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(path, "a list is expected")
    return value


def a_text(value: Any, path: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ConfigError(path, "text is expected (quote it)")
    if not value and not empty:
        raise ConfigError(path, "must not be empty")
    if "\x00" in value:
        raise ConfigError(path, "a NUL character is not allowed")
    return value


def a_number(value: Any, path: str, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(path, "a number is expected")
    if not least <= value < 1e15:
        raise ConfigError(path, f"a number of at least {least:g} is expected")
    return float(value)


def a_positive(value: Any, path: str) -> float:
    number = a_number(value, path, least=0.0)
    if number == 0.0:
        raise ConfigError(path, "more than zero is expected")
    return number


def a_whole(value: Any, path: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(path, "a whole number is expected")
    if value < least:
        raise ConfigError(path, f"at least {least} is expected")
    return value


def a_flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(path, "true or false is expected")
    return value


def a_path(value: Any, path: str, folder: Path) -> Path:
    return folder / Path(a_text(value, path)).expanduser()
