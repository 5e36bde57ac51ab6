"""What this machine has."""

from __future__ import annotations

import os
from pathlib import Path

from agents.drivers.base import Capacity


def machine() -> Capacity:
    """Cores this process may use, and the memory of the host."""
    return Capacity(cores=len(os.sched_getaffinity(0)), memory_bytes=_memory_bytes())


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return 0
