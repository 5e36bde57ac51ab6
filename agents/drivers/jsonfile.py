"""Small JSON files through which agent and guard tell each other things, also on a full disk.

Where there is room a file is written anew, whole or not at all. What must get through without any
has its room from the start: a renewal is written over the last one, and a stop or an end takes the
place of a file of blanks that was laid down with the attempt. A file system that copies on write
may still refuse both. Standard library only: the guard imports it.
"""

from __future__ import annotations

import json
import os
from typing import Any

RECORD = 512  #: bytes of a file that is written again and again
ROOM = 4096  #: bytes laid down for one that may come when nothing is free
SHORT = 200  #: characters of a text in it that would not fit, each at most 12 bytes


def read_json(path: str) -> dict[str, Any] | None:
    """None when it is not there or not whole."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: str, value: dict[str, Any]) -> None:
    """Whole or not at all, whoever reads and whenever the power goes."""
    draft = f"{path}.new"
    with open(draft, "wb") as file:
        file.write(json.dumps(value).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def rewrite(path: str, value: dict[str, Any]) -> None:
    """Over a file that is there; raises FileNotFoundError. A reader may see it half done."""
    data = json.dumps(value).encode().ljust(RECORD)
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, 0)
    finally:
        os.close(fd)


def renewal(fence_at: float) -> dict[str, Any]:
    """A fence for `rewrite`, said twice: half of an old and half of a new one do not agree."""
    return {"fence_at": fence_at, "again": fence_at}


def fence_of(value: dict[str, Any]) -> float | None:
    """Boottime of a renewal that is whole."""
    fence_at = value["fence_at"]
    return float(fence_at) if value.get("again", fence_at) == fence_at else None


def keep_room(path: str) -> None:
    """Lay blanks down for a later `write_into_room`."""
    with open(f"{path}.room", "wb") as file:
        file.write(b" " * ROOM)
        file.flush()
        os.fsync(file.fileno())


def write_into_room(path: str, value: dict[str, Any]) -> None:
    """Write without asking the file system for anything; long texts are cut.

    Raises FileNotFoundError when neither its room nor the file itself is there.
    """
    data = json.dumps(value).encode()
    if len(data) > ROOM:
        short = {
            key: item[:SHORT] if isinstance(item, str) else item for key, item in value.items()
        }
        data = json.dumps(short).encode()
    room = f"{path}.room" if os.path.exists(f"{path}.room") else path
    fd = os.open(room, os.O_WRONLY)
    try:
        os.pwrite(fd, data.ljust(ROOM), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    if room != path:
        os.replace(room, path)
