"""Real PyTorch on the CPU, in an environment of its own: `make test-torch`. Skipped elsewhere."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import pytest

# One thread: these models are so small that threads only wait for each other, on a busy machine
# for minutes. Read when PyTorch is first imported, by our own processes too.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def progress(monkeypatch, tmp_path):
    """The file that an agent would read, of a job that no launcher has spread."""
    path = tmp_path / "progress"
    monkeypatch.setenv("HANSE_PROGRESS", str(path))
    for name in ("HANSE_SAMPLES", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    import hanse

    memory = sys.modules[hanse.report.__module__]._Memory
    monkeypatch.setattr(memory, "written_at", -math.inf)
    return path


@pytest.fixture
def lines(progress):
    def read(path: Path = progress) -> list[dict]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read
