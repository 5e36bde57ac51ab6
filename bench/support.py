"""What benchmarks share: repeats with their spread, memory, one JSON object at the end."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
PACKAGES = ("numpy", "scipy", "cvxpy", "highspy", "clarabel")


@dataclass(frozen=True, slots=True)
class Spread:
    """Wall seconds of the repeats of one thing."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The shortest and the longest."""
        return min(self.seconds), max(self.seconds)


def timed(run: Callable[[], Result], repeats: int) -> tuple[Spread, Result]:
    """Run once to warm up, then `repeats` times; the last result."""
    result = run()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        taken.append(time.perf_counter() - start)
    return Spread(tuple(taken)), result


def peak_mb(run: Callable[[], object]) -> float:
    """Megabytes of resident memory that a run adds at its peak (Linux; nan elsewhere)."""
    forget = Path("/proc/self/clear_refs")
    try:
        forget.write_text("5")  # forget the highest mark so far
    except OSError:
        return float("nan")
    before = _status_kb("VmRSS")
    run()
    return (_status_kb("VmHWM") - before) / 1024


@contextmanager
def database() -> Iterator[None]:
    """A PostgreSQL of our own for the length of the benchmark, unless one is given."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "broker.settings.test"
    if "DATABASE_URL" in os.environ:
        os.environ["HANSE_DATABASE_URL"] = os.environ["DATABASE_URL"]
        yield
        return
    from tests.support.servers import Postgres

    server = Postgres()
    server.create()
    server.start()
    os.environ["HANSE_DATABASE_URL"] = server.url
    try:
        yield
    finally:
        server.remove()


def _status_kb(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise KeyError(key)


def report(name: str, figures: Mapping[str, Any], *, as_json: bool) -> None:
    """A table, and with `--json` one object on the last line."""
    width = max(map(len, figures))
    for key, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{key:<{width}}  {shown}")
    if as_json:
        print(json.dumps({"bench": name, **figures, "versions": versions(), "machine": machine()}))


def versions() -> dict[str, str]:
    """What was measured with."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load_1min": round(os.getloadavg()[0], 2),
    }
