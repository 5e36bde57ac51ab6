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
from typing import SupportsFloat, SupportsIndex, cast

LINE_BYTES = 4096  # longest line: a page, far below what any file system splits
_RESERVED = frozenset({"samples", "t", "step_time_s", "loss"})
_COUNTS = {"accumulation": 0, "replicas": 1, "nodes": 1, "memory_peak_bytes": 0}  # and the least
_NUMBERS = ("sync_time_s", "local_batch", "grad_sqr", "grad_var")  # finite and not negative
_GPU_CHARACTERS = 200


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

    Speed forecasts also read these of `extra`, each checked, None meaning unknown:
    `sync_time_s` (seconds of a step spent waiting for other replicas), `local_batch` (samples of
    one replica in one pass), `accumulation` (passes of a step before its last), `replicas` (GPUs),
    `nodes`, `gpu` (its kind), `memory_peak_bytes` (of one GPU), `grad_sqr` (squared norm of the
    gradient) and `grad_var` (variance of the gradient of one whole step).
    Raises ValueError for a number that cannot be one of these.
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
    text = json.dumps(fields | _measured(extra), allow_nan=False, separators=(",", ":"))
    line = text.encode() + b"\n"
    if len(line) > LINE_BYTES:
        raise ValueError(f"a progress line has at most {LINE_BYTES} bytes, got {len(line)}")
    return line


def _measured(extra: dict[str, object]) -> dict[str, object]:
    """The extras with those that forecasts read checked, and without what is unknown."""
    known = dict(extra)
    for name in (*_COUNTS, *_NUMBERS, "gpu"):
        if name in known and known[name] is None:
            del known[name]
    for name in _COUNTS.keys() & known.keys():
        known[name] = _whole(cast(SupportsIndex, known[name]), name, least=_COUNTS[name])
    for name in known.keys() & _NUMBERS:
        known[name] = _finite(name, cast(SupportsFloat, known[name]), least=0.0)
    kind = known.get("gpu", "")
    if not isinstance(kind, str) or len(kind) > _GPU_CHARACTERS:
        raise ValueError(
            f"gpu must be a text of at most {_GPU_CHARACTERS} characters, got {kind!r}"
        )
    return known


def _whole(value: SupportsIndex | float, name: str = "samples", *, least: int = 0) -> int:
    """A count as an integer; frameworks hand over 0-d arrays and sums that became floats."""
    if isinstance(value, float):
        if not value.is_integer():  # NaN and infinity are not integers either
            raise ValueError(f"{name} must be a whole number, got {value}")
        value = int(value)
    count = operator.index(value)
    if count < least:
        raise ValueError(f"{name} must not be below {least}, got {count}")
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
