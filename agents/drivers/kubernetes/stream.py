"""One container's log, read on from where we were.

The log API has no byte offsets: it gives whole lines since a second. Each line comes with the
node's own time stamp, so a place is the newest stamp seen and how many lines carried it; what
comes again is dropped. Only stamps of one node are compared with each other, so that its time of
day may be as wrong as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from agents.drivers.kubernetes.server import ApiServer

FIRST_READ = 256 * 1024  #: bytes in one answer
LARGEST_READ = 16 * 1024 * 1024
NANO = 10**9


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was read."""

    nano: int = 0  #: stamp of the newest line, nanoseconds since 1970 by the node's clock
    same: int = 0  #: lines that carried it


@dataclass(frozen=True, slots=True)
class Part:
    lines: tuple[bytes, ...]  #: each with its newline, but for the last of an ended container
    place: Place
    more: bool  #: the answer was full: read again at once
    gap: bool = False  #: the node has dropped lines that were never read
    endless: bool = False  #: a line too long to be read at all


def read_on(server: ApiServer, path: str, container: str, place: Place, *, final: bool) -> Part:
    """The next lines. Raises ServerAway or ServerRefused; `final`: the container has ended."""
    limit = FIRST_READ
    while True:
        data = server.text(path, **_query(container, place, limit))
        part = _part(data, place, final=final and len(data) < limit, full=len(data) >= limit)
        if part.lines or len(data) < limit:
            return part
        if limit >= LARGEST_READ:
            return Part((), place, more=False, endless=True)
        limit *= 4


def _query(container: str, place: Place, limit: int) -> dict[str, str]:
    query = {"container": container, "timestamps": "true", "limitBytes": str(limit)}
    if place.nano:
        second = datetime.fromtimestamp(place.nano // NANO, UTC)
        query["sinceTime"] = second.strftime("%Y-%m-%dT%H:%M:%SZ")
    return query


def _part(data: bytes, place: Place, *, final: bool, full: bool) -> Part:
    found: list[bytes] = []
    nano, same, skipped, gap = place.nano, place.same, 0, False
    for stamp, line in _stamped(data, final=final):
        if stamp < place.nano or (stamp == place.nano and skipped < place.same):
            skipped += stamp == place.nano
            continue
        gap = gap or (not found and bool(place.nano) and skipped == 0)
        same = same + 1 if stamp == nano else 1
        nano = stamp
        found.append(line)
    return Part(tuple(found), Place(nano, same), more=full, gap=gap)


def _stamped(data: bytes, *, final: bool) -> Iterator[tuple[int, bytes]]:
    """Whole lines with their stamps; one without a stamp goes on from the line before."""
    last = 0
    whole, _, rest = data.rpartition(b"\n")
    lines = [line + b"\n" for line in whole.split(b"\n")] if whole else []
    if rest and final:
        lines.append(rest)
    for line in lines:
        stamp, space, text = line.partition(b" ")
        nano = _nano(stamp) if space else None
        last = last if nano is None else nano
        if last:
            yield last, line if nano is None else text


def _nano(stamp: bytes) -> int | None:
    """RFC 3339 with up to nine digits of a second."""
    text = stamp.decode("ascii", "replace")
    head, _, rest = text.partition(".")
    digits = ""
    for character in rest:
        if not character.isdigit():
            break
        digits += character
    zone = rest[len(digits) :] if rest else ""
    try:
        moment = datetime.fromisoformat(head + zone)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return int(moment.timestamp()) * NANO + int(digits[:9].ljust(9, "0"))
