"""Writing what a command found: to a file that nobody reads half written, or to standard output."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from federation.affinity.samples import BadSamples


def put_json(document: object, output: Path | None) -> None:
    """A JSON document."""
    put(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", output)


def put(text: str, output: Path | None) -> None:
    """A text; raises `BadSamples` when the file cannot be written."""
    if output is None:
        sys.stdout.write(text)
        return
    try:
        _replace(output, text)
    except OSError as error:
        raise BadSamples((f"{output}: {error.strerror or error}",)) from None


def _replace(path: Path, text: str) -> None:
    """Write beside the target and rename."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
