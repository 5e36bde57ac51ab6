"""A job for tests: `python steady.py RATE [WITNESS]` delivers RATE samples/s until it is done.

Each beat appends one line to the WITNESS file: attempt, time of day, samples. A second copy running
at the same time anywhere on this machine would show there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import hanse

BEAT_S = 0.1


def main(rate: float, witness: str | None) -> int:
    wanted = int(os.environ["HANSE_SAMPLES"])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    done = 0
    while done < wanted and not stopping:
        time.sleep(BEAT_S)
        done = min(wanted, done + max(1, int(rate * BEAT_S)))
        hanse.report(done, loss=1.0 / (1 + done))
        print(f"{done}/{wanted}", flush=True)  # noqa: T201 - a job's log
        if witness:
            with open(witness, "a") as file:
                file.write(f"{os.environ['HANSE_ATTEMPT']} {time.time():.3f} {done}\n")
    return 143 if stopping else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
