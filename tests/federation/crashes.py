"""A worker that dies between two statements: everything since its last commit is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

_TRANSACTION = ("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT")


class Crash(BaseException):
    """Not an Exception: no handler of the product may take it for a refusal."""


@contextmanager
def crash_at(number: int) -> Iterator[list[int]]:
    """Die before statement `number`, from 0; yields the count of statements so far."""
    seen = [0]

    def run(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.lstrip().upper().startswith(_TRANSACTION):
            seen[0] += 1
            if seen[0] == number + 1:
                raise Crash
        return execute(sql, params, many, context)

    with connection.execute_wrapper(run):
        yield seen


def dies_everywhere(act: Callable[[], object], check: Callable[[], None]) -> int:
    """Let `act` die before its every statement in turn, `check` after each; then let it finish.

    Returns how often it died.
    """
    number = 0
    while True:
        try:
            with crash_at(number):
                act()
        except Crash:
            number += 1
            check()
        else:
            return number
