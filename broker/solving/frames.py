"""Messages on a pipe: four bytes of length, then a small JSON object. Books travel as files."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Mapping
from typing import Any

LENGTH = struct.Struct(">I")
LARGEST = 2**20  #: bytes of one message; anything larger belongs in a file


class Closed(Exception):
    """The other end of the pipe is gone."""


def send(pipe: int, message: Mapping[str, Any]) -> None:
    """Write one message. Raises Closed when nobody can read it any more."""
    body = json.dumps(message).encode()
    if len(body) > LARGEST:
        raise ValueError(f"a message of {len(body)} bytes belongs in a file")
    left = memoryview(LENGTH.pack(len(body)) + body)
    while left:
        try:
            left = left[os.write(pipe, left) :]
        except BrokenPipeError:
            raise Closed from None


def receive(pipe: int, *, until: float | None = None) -> dict[str, Any]:
    """Read one message; `until` is a moment of `time.monotonic`, None waits for ever.

    Raises Closed when the other end is gone and TimeoutError when the moment comes first.
    """
    (size,) = LENGTH.unpack(_read(pipe, LENGTH.size, until))
    if size > LARGEST:
        raise Closed
    message: dict[str, Any] = json.loads(_read(pipe, size, until))
    return message


def speaks(pipe: int, *, within_s: float) -> bool:
    """Whether there is something to read, be it the end of the pipe, before so many seconds."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(max(0.0, within_s) * 1000))


def _read(pipe: int, size: int, until: float | None) -> bytes:
    parts = b""
    while len(parts) < size:
        if until is not None and not speaks(pipe, within_s=until - time.monotonic()):
            raise TimeoutError
        part = os.read(pipe, size - len(parts))
        if not part:
            raise Closed
        parts += part
    return parts
