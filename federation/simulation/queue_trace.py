"""A trace of jobs that queue for the GPUs of one cluster, and how the public files are read.

Shapes: J jobs. Units: GPUs · seconds from the start of the trace.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np

from economics.market import Array


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order they arrive; among those that arrive together, in the order of the file."""

    arrival: Array  # (J,) s
    gpus: Array  # (J,) GPUs, all at once or none
    seconds: Array  # (J,) s on those GPUs

    @classmethod
    def of(cls, arrival: Array, gpus: Array, seconds: Array) -> Trace:
        """Sort jobs by arrival; raises ValueError for a job that asks for nothing."""
        if not ((gpus > 0).all() and (seconds > 0).all() and np.isfinite(arrival).all()):
            raise ValueError("a job has a moment it arrives, some GPUs and some seconds to run")
        order = np.argsort(arrival, kind="stable")
        return cls(arrival[order] - arrival.min(initial=np.inf), gpus[order], seconds[order])

    @property
    def jobs(self) -> int:
        return int(self.arrival.size)

    @property
    def service(self) -> Array:
        """GPU-seconds each job needs in total, (J,)."""
        return self.gpus * self.seconds


def read_sixty_jobs(path: Path) -> Trace:
    """The 60-job trace that is shipped with Tiresias."""
    rows = list(_rows(path))
    return Trace.of(
        arrival=_column(rows, "submit_time"),
        gpus=_column(rows, "num_gpu"),
        seconds=_column(rows, "duration"),
    )


def read_philly(path: Path, cluster: str, *, jobs: int, after: int = 0) -> Trace:
    """Jobs number `after` to `after + jobs` of a virtual cluster of Philly, by submission.

    Jobs of 1 to 32 GPUs that ran a minute at least.
    """
    meant = (
        row
        for row in sorted(_rows(path), key=lambda row: row["submit_time"])
        if row["vc"] == cluster
        and 1 <= float(row["num_gpus"]) <= 32
        and float(row["duration_s"]) >= 60
    )
    rows = list(islice(meant, after, after + jobs))
    moments = [datetime.fromisoformat(row["submit_time"]) for row in rows]
    first = min(moments)
    return Trace.of(
        arrival=np.array([(moment - first).total_seconds() for moment in moments]),
        gpus=_column(rows, "num_gpus"),
        seconds=_column(rows, "duration_s"),
    )


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    yield from csv.DictReader(text.splitlines())


def _column(rows: list[Mapping[str, str]], name: str) -> Array:
    return np.array([float(row[name]) for row in rows])
