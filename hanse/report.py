"""Progress of a training loop, told to the site agent through one file.

The agent measures speed from these lines and the broker pays by them, so a line is either whole
and true or not written: one append per line, nothing buffered. Standard library only, because it
is imported into the tenant's training process.

The agent sets the environment: HANSE_PROGRESS (file), HANSE_SAMPLES (what this attempt should
train), HANSE_SAMPLES_DONE (trained by earlier attempts), HANSE_CHECKPOINT_DIR, HANSE_PROBE.
"""

from __future__ import annotations

import json
import math
import operator
import os
import sys
import time
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

LINE_BYTES = 4096  # longest line: a page, far below what any file system splits
_RESERVED = frozenset({"samples", "t", "step_time_s", "loss"})


class _Memory:
    """What this process remembers between calls; nothing here decides what a line says."""

    written_at = -math.inf  # time.monotonic() of the last line, seconds
    complained = False


def report(
    samples: SupportsIndex | float,
    *,
    step_time_s: SupportsFloat | None = None,
    loss: SupportsFloat | None = None,
    min_interval_s: float = 0.0,
    **extra: object,
) -> bool:
    """Say that this attempt has trained `samples` in all; True when a line was written.

    `samples` is cumulative over this attempt, not over the job. `step_time_s` is wall seconds per
    optimiser step. With `min_interval_s` a call sooner after the last line is left out: call it
    once without for the final count. Outside a Hanse job (no HANSE_PROGRESS) nothing happens.
    """
    path = os.environ.get("HANSE_PROGRESS")
    if not path:
        return False
    now = time.monotonic()
    line = _line(_whole(samples), now, step_time_s, loss, extra)
    if now - _Memory.written_at < min_interval_s:
        return False
    if not _append(path, line):
        return False
    _Memory.written_at = now
    return True


def samples_wanted() -> int | None:
    """Samples this attempt should train; None outside a Hanse job."""
    return _count("HANSE_SAMPLES")


def samples_done() -> int:
    """Samples that earlier attempts of this job have trained."""
    return _count("HANSE_SAMPLES_DONE") or 0


def checkpoint_dir() -> Path | None:
    """Where checkpoints survive this attempt; None outside a Hanse job."""
    text = os.environ.get("HANSE_CHECKPOINT_DIR")
    return Path(text) if text else None


def is_probe() -> bool:
    """Whether this is a short paid measurement, whose training result nobody keeps."""
    return os.environ.get("HANSE_PROBE", "").strip().lower() in {"1", "true", "yes"}


def _count(variable: str) -> int | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{variable} must be a whole number of samples, not {text!r}")
    return int(text)


def _line(
    samples: int,
    now: float,
    step_time_s: SupportsFloat | None,
    loss: SupportsFloat | None,
    extra: dict[str, object],
) -> bytes:
    taken = sorted(_RESERVED & extra.keys())
    if taken:
        raise ValueError(f"{taken[0]!r} is a field of every line, not an extra")
    fields: dict[str, object] = {"samples": samples, "t": now}
    if step_time_s is not None:
        fields["step_time_s"] = _finite("step_time_s", step_time_s, least=0.0)
    if loss is not None:
        fields["loss"] = _finite("loss", loss)
    text = json.dumps(fields | extra, allow_nan=False, separators=(",", ":"))
    line = text.encode() + b"\n"
    if len(line) > LINE_BYTES:
        raise ValueError(f"a progress line has at most {LINE_BYTES} bytes, got {len(line)}")
    return line


def _whole(samples: SupportsIndex | float) -> int:
    """A count as an integer; frameworks hand over 0-d arrays and sums that became floats."""
    if isinstance(samples, float):
        if not samples.is_integer():  # NaN and infinity are not integers either
            raise ValueError(f"samples must be a whole number, got {samples}")
        samples = int(samples)
    count = operator.index(samples)
    if count < 0:
        raise ValueError(f"samples must not be negative, got {count}")
    return count


def _finite(name: str, value: SupportsFloat, *, least: float = -math.inf) -> float:
    number = float(value)
    if not math.isfinite(number) or number < least:
        raise ValueError(f"{name} must be a finite number of at least {least}, got {number}")
    return number


def _append(path: str, line: bytes) -> bool:
    """One write with O_APPEND, so that lines of several processes never interleave.

    A full disk must not end hours of training: the failure is said once, on standard error.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            whole = os.write(file, line) == len(line)
        finally:
            os.close(file)
    except OSError as error:
        _complain(f"{path}: {error.strerror}")
        return False
    if not whole:
        _complain(f"{path}: the line was cut short")
    return whole


def _complain(why: str) -> None:
    if not _Memory.complained:
        _Memory.complained = True
        sys.stderr.write(f"hanse: progress cannot be written, training goes on: {why}\n")
