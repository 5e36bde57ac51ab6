"""What one look found: how bad it is, what was seen, what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"  #: it works, and somebody should know
    FAIL = "fail"  #: the site cannot take part like this


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    grade: Grade
    text: str
    fix: str = ""  #: with WARN and FAIL


def ok(check: str, text: str) -> Finding:
    return Finding(check, Grade.OK, text)


def warn(check: str, text: str, fix: str) -> Finding:
    return Finding(check, Grade.WARN, text, fix)


def fail(check: str, text: str, fix: str) -> Finding:
    return Finding(check, Grade.FAIL, text, fix)
