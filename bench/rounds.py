"""From database rows to posted prices, step by step: `python -m bench.rounds --jobs 100000 --json`.

A real PostgreSQL is started for it (or DATABASE_URL names one that may be filled), furnished with a
venue and its waiting jobs, and the broker's own services close, claim, decide and record a fresh
round each time. `posted` is all of that, from the first read to the commit that posts the prices.
What follows it (explanations to the jobs left out, one publication at the end) is timed apart.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.support import database

if TYPE_CHECKING:
    from federation.models import Venue

REPEATS = 5
#: where the seconds go: module, function, step. A step's seconds leave out the steps inside it.
WATCHED = (
    ("federation.services.rounds", "cells_at_gate", "read rows"),
    ("federation.services.rounds", "probes_place", "probes and last laps"),
    ("federation.services.rounds", "last_laps", "probes and last laps"),
    ("federation.services.rounds", "book_build", "book"),
    ("federation.snapshot.book", "bids_read", "read rows"),
    ("federation.snapshot.book", "view_read", "read rows"),
    ("federation.snapshot.bids", "terms_read", "group"),
    ("federation.services.rounds", "seal", "spell, hash and pack the book"),
    ("federation.services.rounds", "unpack", "read the book back"),
    ("federation.decision", "read_book", "parse"),
    ("economics.rounds", "_allocated", "solve"),
    ("economics.rounds", "_settled", "prices"),
    ("economics.rounds", "_transfers", "core"),
    ("economics.rounds", "_document", "document"),
    ("economics.rounds", "_certified", "certify"),
    ("federation.decision", "verify_against", "verify again"),
    ("federation.services.rounds", "pack", "pack the clearing"),
)
#: the rest of each service
SERVICES = ("close", "claim", "decide", "record")
VERSIONS = ("django", "psycopg2-binary", "numpy", "highspy")


@dataclass
class Stopwatch:
    """Seconds of each step, of nested ones only where they were spent."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[name] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took

    def watch(self, module: str, function: str, step: str) -> None:
        """Time every call of a module's function from now on."""
        place = importlib.import_module(module)
        inner: Callable[..., Any] = getattr(place, function)

        @functools.wraps(inner)
        def timed(*args: Any, **named: Any) -> Any:
            with self.step(step):
                return inner(*args, **named)

        setattr(place, function, timed)


@dataclass(frozen=True, slots=True)
class Result:
    """One round: seconds of each step, and what came out."""

    seconds: dict[str, float]
    posted_s: float
    explained_s: float
    peak_mb: float | None
    bids: int
    awards: int
    facts: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--gpus", type=int, default=32, help="of each pool")
    parser.add_argument("--feasible", type=int, default=10, help="pools each class runs on")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    sizes = {k: v for k, v in vars(asked).items() if k not in ("json", "repeats")}
    with database():
        results, published_s = _measure(sizes, asked.repeats)
    report = _report(sizes, results, published_s)
    _print(report)
    if asked.json:
        print(json.dumps(report))


def _measure(sizes: dict[str, Any], repeats: int) -> tuple[list[Result], float]:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    import economics.rounds  # noqa: F401 - imported before the clock runs, as in a worker
    from federation.models import Job
    from federation.services import rounds
    from tests.support.crowd import Crowd, furnish
    from tests.support.world import later

    call_command("migrate", verbosity=0)
    print(f"furnishing {sizes['jobs']} jobs ...", flush=True)
    venue = furnish(Crowd(**sizes), now=later(0)).venue
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    watch = Stopwatch()
    for place in WATCHED:
        watch.watch(*place)
    results = []
    for number in range(repeats):
        results.append(_round(venue, watch, number))
        print(f"round {number + 1}: {results[-1].posted_s:.2f} s to posted prices", flush=True)
        if number + 1 < repeats:
            _undo(venue)
    started = time.perf_counter()
    rounds.rounds_publish(now=later(1000.0 * repeats))
    published_s = time.perf_counter() - started
    placed = Job.objects.exclude(state="pending").count()
    assert placed == results[-1].awards, f"{placed} of {results[-1].awards} awards were placed"
    return results, published_s


def _round(venue: Venue, watch: Stopwatch, number: int) -> Result:
    """Close, claim, decide and record one round; then tell the jobs that it left out."""
    from federation.decision import decide
    from federation.models import Assignment, Round
    from federation.services import outcomes, rounds
    from tests.support.world import later

    now = later(1000.0 * (number + 1))
    rounds.round_ensure_open(venue=venue, now=now - timedelta(seconds=venue.round_s))
    watch.seconds.clear()
    before = _memory("VmRSS") if _forget_peak() else None
    started = time.perf_counter()
    with watch.step("close"):
        [round_id] = rounds.rounds_close(now=now)
    with watch.step("claim"):
        claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=now)
        assert claim is not None
        book = claim.book
    with watch.step("decide"):
        decision = decide(book)
    assert decision.clearing is not None, decision.void_why
    with watch.step("record"):
        kept = rounds.round_record(claim=claim, decision=decision, solve_s=0.0, now=now)
    posted = time.perf_counter() - started
    assert kept
    peak = None if before is None else _memory("VmHWM") - before
    seconds = dict(watch.seconds)
    started = time.perf_counter()
    outcomes.rounds_explain(now=now, fresh=[round_id])
    explained = time.perf_counter() - started
    round = Round.objects.get(pk=round_id)
    assert round.certified
    facts = {key: decision.clearing[key] for key in ("status", "gap", "welfare")}
    awards = Assignment.objects.filter(round=round).count()
    return Result(seconds, posted, explained, peak, round.bids, awards, facts)


def _undo(venue: Venue) -> None:
    """End the round without trade, so that the next one has the same jobs."""
    from federation.models import Round
    from federation.services import rounds
    from tests.support.world import later

    round = Round.objects.get(venue=venue, state="cleared")
    rounds.round_void(round=round, code="bench", why="a repeat follows", now=later(0))


def _forget_peak() -> bool:
    """Start this process's memory peak anew; False where the kernel does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _memory(name: str) -> float:
    """A line of the kernel's account of this process, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "spread": round(max(values) - min(values), 4),
    }


def _report(sizes: dict[str, Any], results: list[Result], published_s: float) -> dict[str, Any]:
    last = results[-1]
    steps = dict.fromkeys([*(step for *_, step in WATCHED), *SERVICES])
    peaks = [result.peak_mb for result in results if result.peak_mb is not None]
    return {
        **sizes,
        "repeats": len(results),
        "database": "postgresql",
        "bids": last.bids,
        "awards": last.awards,
        **last.facts,
        "posted_seconds": _summary([result.posted_s for result in results]),
        "steps": {step: _summary([r.seconds.get(step, 0.0) for r in results]) for step in steps},
        "explained_seconds": _summary([result.explained_s for result in results]),
        "published_seconds": round(published_s, 4),
        "peak_mb": _summary(peaks) if peaks else None,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in VERSIONS},
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _print(report: dict[str, Any]) -> None:
    """The table: a step, its median and its spread in seconds."""
    for step, found in report["steps"].items():
        print(f"{step:32} {found['median']:9.3f} {found['spread']:9.3f}")
    for key in ("posted_seconds", "explained_seconds", "peak_mb"):
        if report[key] is not None:
            print(f"{key:32} {report[key]['median']:9.3f} {report[key]['spread']:9.3f}")
    print(f"{'published_seconds':32} {report['published_seconds']:9.3f}")


if __name__ == "__main__":
    main()
