"""The operator's word to the agent: take nothing new, or hand back what runs and leave.

A small file in the state folder, so that it holds through restarts and needs no running agent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agents.protocol import BadMessage, canonical, decode, encode
from agents.state import write_private

MAX_REASON = 300  #: characters


@dataclass(frozen=True, slots=True)
class Drain:
    """Why nothing new is taken."""

    reason: str
    at: str  #: RFC 3339, the host's time of day
    leave: bool = False  #: ask back what runs, with grace, and end the agent when all is told


#: of a file that cannot be read: closed is the safe side
UNREADABLE = Drain("the file drain.json cannot be read", "")


def write(path: Path, drain: Drain) -> None:
    """Takes effect at the agent's next look, or when it starts."""
    write_private(path, canonical(encode(drain)))


def clear(path: Path) -> None:
    """Take new leases again."""
    path.unlink(missing_ok=True)


def read(path: Path) -> Drain | None:
    """None: the site is open."""
    try:
        return decode(Drain, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, BadMessage):
        return UNREADABLE
