"""Staying with a job until it ends: its progress, its log, and the exit code it leaves."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from hanse.answers import FINAL_STATES, QUOTE_OVER, Job, Quote
from hanse.client import Client
from hanse.errors import AmbiguousJob, NoSuchJob
from hanse.screen import complain, plain

SHORTEST_PREFIX = 6  # characters of an id
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_EXIT = re.compile(r"exit_(\d{1,3})")


def find_job(client: Client, text: str) -> Job:
    """The one job that an id, the beginning of an id, or an exact name stands for."""
    if _UUID.fullmatch(text):
        return client.job(text)
    found = [job for job in client.jobs() if _names(text, job)]
    exact = [job for job in found if job["id"] == text]
    if len(exact or found) == 1:
        return (exact or found)[0]
    live = [job for job in found if job["state"] not in FINAL_STATES and job["name"] == text]
    if len(live) == 1:
        return live[0]  # the one that still goes on is meant, not its forerunners
    if not found:
        raise NoSuchJob(f"no job has the id or name {text!r}")
    shown = ", ".join(f"{job['id']} ({job['name']}, {job['state']})" for job in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    raise AmbiguousJob(f"{text!r} stands for {len(found)} jobs: {shown}{more}")


def _names(text: str, job: Job) -> bool:
    by_id = len(text) >= SHORTEST_PREFIX and job["id"].lower().startswith(text.lower())
    return by_id or text in (job["id"], job["name"])


def exit_code(job: Job) -> int:
    """0 when it succeeded, the command's own exit code when the API tells it, else 1."""
    if job["state"] == "SUCCEEDED":
        return 0
    reason = job.get("reason")
    match = _EXIT.fullmatch(reason["code"]) if reason else None
    return int(match[1]) if match and 0 < int(match[1]) < 256 else 1


def wait(client: Client, jobs: Sequence[Job], *, every_s: float) -> list[Job]:
    """Look every `every_s` seconds until all have ended; the last look at each."""
    latest = {job["id"]: job for job in jobs}
    with _Board(jobs) as board:
        while True:
            for job in latest.values():
                board.show(job)
            live = [job for job in latest.values() if job["state"] not in FINAL_STATES]
            if not live:
                return list(latest.values())
            time.sleep(every_s)
            latest |= {job["id"]: client.job(job["id"]) for job in live}


def answered(client: Client, quotes: Sequence[Quote], *, every_s: float) -> list[Quote]:
    """Look every `every_s` seconds until all have their answers, or have failed; in their order."""
    latest = {quote["id"]: quote for quote in quotes}
    while waiting := [quote for quote in latest.values() if quote["state"] not in QUOTE_OVER]:
        time.sleep(every_s)
        latest |= {quote["id"]: client.quote(quote["id"]) for quote in waiting}
    return [latest[quote["id"]] for quote in quotes]


class _Board:
    """Progress bars on a terminal; elsewhere one line per change of state. On standard error."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._seen: dict[str, str] = {}
        self._bars = Progress(
            TextColumn("{task.fields[label]}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        if sys.stderr.isatty():
            for job in jobs:
                task = self._bars.add_task(
                    "", label=plain(job["name"]), state="", total=job["samples"]
                )
                self._tasks[job["id"]] = task

    def __enter__(self) -> _Board:
        if self._tasks:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            self._bars.stop()

    def show(self, job: Job) -> None:
        text = _state(job)
        if self._tasks:
            self._bars.update(
                self._tasks[job["id"]], completed=job.get("samples_done") or 0, state=plain(text)
            )
        elif self._seen.get(job["id"]) != text:
            complain(f"{job['name']} {job['id']}: {text}")
        self._seen[job["id"]] = text


def _state(job: Job) -> str:
    reason = job.get("reason")
    where = f" at {job['site']}" if job.get("site") else ""
    return f"{job['state']}{where}" + (f": {reason['message']}" if reason else "")


def copy_log(client: Client, job: Job, attempt: int | None, out: IO[bytes]) -> None:
    """What there is of the log now, page by page; says so when there is nothing."""
    _, attempts, size, _ = _drain(client, job["id"], attempt, 0, out)
    if size == 0 and attempt is not None and attempt > attempts:
        complain(f"there is no attempt {attempt} yet; the job has had {attempts}")
    elif size == 0:
        complain("no log yet" if attempts else _unstarted(client, job))


def _unstarted(client: Client, job: Job) -> str:
    """Why there is no log, and where the one of a probe is that measured for the job."""
    said = "no log: the job has not been started yet"
    probes = (one for one in client.jobs(kind="probe") if one.get("parent") == job["id"])
    probe = next(probes, None)
    if probe is None:
        return said
    return f"{said}; its probe has a log of its own: hanse logs {probe['id']}"


def follow_log(
    client: Client, job: Job, attempt: int | None, out: IO[bytes], *, every_s: float
) -> None:
    """The log as it grows, over all later attempts unless one was named, until the job ends."""
    shown, offset = attempt, 0
    while True:
        # The state is read first: what was written before the end is then still fetched below.
        ended = client.job(job["id"])["state"] in FINAL_STATES
        page_attempt, attempts, offset, complete = _drain(client, job["id"], shown, offset, out)
        shown = shown or page_attempt
        if complete and shown is not None:
            if attempt is not None:
                return
            if shown < attempts:
                complain(f"--- attempt {shown + 1} ---")
                shown, offset = shown + 1, 0
                continue
        if ended:
            return
        time.sleep(every_s)


def log_document(
    client: Client, job: Job, attempt: int | None, *, wait: bool, every_s: float
) -> dict[str, object]:
    """The log as one value for a programme; bytes that are no UTF-8 are replaced."""
    out = io.BytesIO()
    if wait:
        follow_log(client, job, attempt, out, every_s=every_s)
    else:
        copy_log(client, job, attempt, out)
    data = out.getvalue()
    text = data.decode(errors="replace")
    return {"job": job["id"], "name": job["name"], "bytes": len(data), "text": text}


def _drain(
    client: Client, job_id: str, attempt: int | None, offset: int, out: IO[bytes]
) -> tuple[int | None, int, int, bool]:
    """Copy until nothing more is there; (attempt, attempts, next offset, complete)."""
    while True:
        page = client.logs(job_id, offset, attempt)
        out.write(page.data)
        out.flush()
        offset = page.next_offset
        if page.truncated and page.complete and not page.data:
            complain("the log reached its cap; what followed was not kept")
        if not page.data or page.attempt is None:
            return page.attempt or attempt, page.attempts, offset, page.complete
        attempt = page.attempt  # a newer attempt must not change the log under our offset
