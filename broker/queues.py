"""Which queue a task goes to. Rounds of one venue always go to the same one, so that a worker can
be pinned to it and what it has warm stays warm.

A worker that names no queue takes from all of them. A message says which row to look at, nothing
more, so a queue holds no book.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from kombu.entity import Exchange, Queue

MAIN = "hanse"  #: ticks
STUDIES = "studies"  #: reports, quotes and parts of rounds
SOLVE = "solve"  #: rounds; no dot in a name, the file queue ends a file's name with it


def solve_queue(venue: str, *, count: int, pins: Mapping[str, str]) -> str:
    """The queue of a venue's rounds: the one it is pinned to, else one of `count` by its name."""
    if venue in pins:
        return f"{SOLVE}-{pins[venue]}"
    digest = hashlib.sha256(venue.encode()).digest()
    return f"{SOLVE}-{int.from_bytes(digest[:8], 'big') % count}"


def queues(*, count: int, pins: Mapping[str, str]) -> tuple[Queue, ...]:
    """Every queue of an installation; a worker without `--queues` consumes them all."""
    names = [MAIN, STUDIES, *(f"{SOLVE}-{number}" for number in range(count))]
    names += sorted({f"{SOLVE}-{pin}" for pin in pins.values()} - set(names))
    exchange = Exchange(MAIN, type="direct")
    return tuple(Queue(name, exchange, routing_key=name) for name in names)
