"""Where the fence stands on the clock of a node. Pure.

The agent's fence is a moment of its own host's CLOCK_BOOTTIME, which means nothing on another host,
and the time of day may be wrong on either. So a renewal says how many seconds were left when it was
written, and the reader subtracts how long ago that was:

1. On the agent's own host the moment itself is used.
2. Elsewhere the age is the difference of two time stamps of the *shared file system*: of the
   renewal, and of a file that the reader touches now. One clock gives both: it may be wrong.
3. A renewal that appears while the reader looks every second cannot be older than the last look,
   by the reader's boottime, plus what a file system may hide it. So a clock that is set in mid-job
   moves the fence by LAG_S at most.

Some file systems (Lustre) stamp with the writer's clock: there the skew between the two hosts
counts at the start of a job, and Slurm's munge refuses hosts that differ by more than 300 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

LAG_S = 60.0  #: longest time for which NFS serves old attributes by default (acdirmax)


class Fence(NamedTuple):
    at: float  #: boottime of this host
    serial: str = ""  #: of the newest renewal read
    looked_at: float | None = None  #: boottime of the newest look at the file

    def read(
        self, renewal: dict[str, Any], *, now: float, boot: str, age_s: Callable[[], float]
    ) -> Fence:
        """After a look at the file at `now`; `age_s` tells how long ago it was written."""
        if renewal["boot"] == boot:
            return Fence(float(renewal["fence_at"]), str(renewal["serial"]), now)
        if renewal["serial"] == self.serial:
            return Fence(self.at, self.serial, now)
        age = max(age_s(), 0.0)
        if self.looked_at is not None:
            age = min(age, now - self.looked_at + LAG_S)
        return Fence(now + float(renewal["left_s"]) - age, str(renewal["serial"]), now)


def renewal(fence_at: float, *, now: float, boot: str) -> dict[str, Any]:
    """What the agent writes; `fence_at` and `now` are its boottime, `boot` names its boot."""
    serial = f"{boot}:{fence_at!r}"
    return {"fence_at": fence_at, "boot": boot, "left_s": fence_at - now, "serial": serial}
