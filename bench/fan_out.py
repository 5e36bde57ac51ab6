"""A report fanned out over workers: `python -m bench.fan_out --jobs 10000 --tenants 50 --json`.

A real PostgreSQL and a real Valkey are started for it. A round with its book and clearing is put
on record; then Celery workers of 1, 2 and 4 processes each compute what every tenant brought to it,
one task for each tenant. `seconds` is from handing the report out to its last figure, with solvers
warm. Books travel by reference: `message_bytes` is the size of a study's message.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.support import Spread, report, timed
from tests.economics.large import large_book
from tests.support.servers import Postgres, Valkey

if TYPE_CHECKING:
    from federation.models import Round

PATIENCE_S = 600.0
LOOK_S = 0.02


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("jobs", 10_000), ("tenants", 50), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with servers():
        figures = measure(asked)
    report("fan_out", figures, as_json=asked.json)


@contextmanager
def servers() -> Iterator[None]:
    """PostgreSQL and Valkey, named to this process's Django and to its workers'."""
    postgres, valkey = Postgres(), Valkey()
    postgres.create()
    postgres.start()
    valkey.start()
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "broker.settings.prod",
        "HANSE_DATABASE_URL": postgres.url,
        "HANSE_REDIS_URL": valkey.url,
        "HANSE_SECRET_KEY": "for a benchmark only " * 3,
    }
    try:
        yield
    finally:
        valkey.stop()
        postgres.remove()


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one report for each number of processes, and the speed-up over the first."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    round = a_round(asked.jobs, asked.tenants)
    taken: dict[int, Spread] = {}
    for processes in asked.processes:
        with a_worker(processes):
            taken[processes], _ = timed(lambda: one_report(round, asked.tenants), asked.repeats)
    first = taken[asked.processes[0]].median
    figures: dict[str, Any] = {
        "jobs": asked.jobs,
        "tenants": asked.tenants,
        "repeats": asked.repeats,
        "book_bytes": len(bytes(round.snapshot.body or b"")),
        "message_bytes": message_bytes(),
    }
    for processes, spread in taken.items():
        figures[f"seconds_{processes}"] = spread.median
        figures[f"spread_{processes}"] = spread.spread
        figures[f"speedup_{processes}"] = first / spread.median
    return figures


def a_round(jobs: int, tenants: int) -> Round:
    """A published round of divisible jobs of so many tenants, as the database keeps it."""
    from django.utils import timezone

    from economics.book import document_sha256, read_book
    from economics.rounds import decide
    from federation.models import Round, Snapshot
    from federation.services.members import venue_ensure
    from federation.snapshot import pack

    book = large_book(jobs)
    for at, job in enumerate(book["jobs"]):
        job["tenant"] = f"tenant-{at * 7919 % tenants:03d}"
        for limit in ("max_gpus", "budget"):
            job.pop(limit, None)
        job["site"] = "site-0"
    now = timezone.now()
    round = Round.objects.create(
        venue=venue_ensure(now=now, solve_patience_s=PATIENCE_S),
        number=1,
        state="published",
        closes_at=now,
        published_at=now,
        clearing=pack(decide(read_book(book))),
        created_at=now,
    )
    Snapshot.objects.create(
        round=round, sha256=document_sha256(book), body=pack(book), created_at=now
    )
    return Round.objects.select_related("snapshot").get(pk=round.pk)


@contextmanager
def a_worker(processes: int) -> Iterator[None]:
    """A Celery worker for reports alone."""
    from broker.embedded import Child

    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "celery", "--app=broker.celery", "--quiet", "worker"),
            *("--queues=studies", f"--concurrency={processes}", "--loglevel=WARNING"),
        ]
        child = Child("worker", command, dict(os.environ), Path(folder) / "worker.log")
        child.start()
        try:
            yield
        finally:
            child.stop()


def one_report(round: Round, tenants: int) -> None:
    """Ask for the report anew and wait for its last figure."""
    from django.utils import timezone

    from broker.tasks import hand_out_studies
    from federation.models import Study
    from federation.services.studies import report_request, reports_gather
    from federation.snapshot import unpack

    Study.objects.all().delete()
    study = report_request(round=round, share=0.0, actor="bench", now=timezone.now())
    hand_out_studies([study.pk])
    deadline = time.monotonic() + PATIENCE_S
    while study.state in Study.OPEN:
        if time.monotonic() > deadline:
            raise TimeoutError("the report did not come")
        time.sleep(LOOK_S)
        reports_gather(now=timezone.now())  # what a tick does
        study.refresh_from_db()
    found = unpack(study.result or b"")["contributions"]
    assert len(found) == tenants
    assert all(row["exact"] for row in found)


def message_bytes() -> int:
    """Size of a study's message as Celery writes it."""
    from celery import group
    from kombu.utils.json import dumps

    from broker.celery import app
    from broker.tasks import run_study

    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue("sizes")
        group([run_study.s("00000000-0000-0000-0000-000000000000")]).apply_async(queue="sizes")
        message = queue.get(timeout=10)
        message.ack()
        size = len(dumps(message.headers)) + len(message.body)
        queue.close()
    return size


if __name__ == "__main__":
    main()
