"""Run something on many threads at the same moment, each with its own database connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def together(count: int, action: Callable[[int], T]) -> list[T]:
    """Results of `action(0..count-1)`, all released by one barrier."""
    gate = threading.Barrier(count)

    def one(number: int) -> T:
        try:
            gate.wait(timeout=30)
            return action(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as crew:
        return list(crew.map(one, range(count)))
