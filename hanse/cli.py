"""The `hanse` command: a tenant's verbs, and those that other packages add.

Exit codes: 0 done, 1 refused or failed, 2 the command line or a job file is wrong; with
`submit --wait` the job's own. What was asked for goes to standard output, all else to standard
error.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from hanse import calls, following, jobfile, offerings, tables
from hanse.answers import Job, Quote
from hanse.calls import Call, Page, Row
from hanse.client import Client, checked_address
from hanse.errors import HanseError, JobFileInvalid, Problem
from hanse.extension import ExtensibleGroup
from hanse.jobfile.native import env_option
from hanse.login import Login, current, login_path, store
from hanse.screen import Output, complain, say, show_json

#: What the server's package adds at top level. Kept here so that no other command imports it.
BROKER_COMMANDS = (
    "up",
    "demo",
    "members",
    "sites",
    "tenants",
    "operators",
    "classes",
    "venues",
    "deposit",
    "market",
    "rules",
    "disputes",
    "epochs",
    "alarms",
    "conduct",
    "ledger",
    "samples",
    "inquire",
)


class HanseGroup(ExtensibleGroup):
    merged = {"broker": BROKER_COMMANDS}


app = typer.Typer(
    cls=HanseGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hanse: a clearing house for GPU datacenters.",
)

OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="A table, or the API's own answer as JSON.")
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Id, its first 6 or more characters, or exact name.")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows shown at most.")]
EveryOption = Annotated[
    float, typer.Option("--every", min=0.05, max=3600.0, help="Seconds between two looks.")
]


def _version(asked: bool) -> None:
    if not asked:
        return
    try:
        say(f"hanse {version('hanse')}")
    except PackageNotFoundError:
        say("hanse (a checkout that is not installed)")
    raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that stand before every command."""


@app.command()
def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://… of the broker.")],
    token: Annotated[str, typer.Option("--token", help="Asked for when left out.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a token with the broker and keep it for later commands."""
    found = Login(checked_address(url), token or _asked_token())
    with Client(found.url, found.token) as client:
        me = client.me()
    path = login_path(os.environ)
    store(found, path)
    if output is Output.JSON:
        show_json(me)
        return
    known: dict[str, object] = {**me}
    who = next((known[key] for key in ("name", "tenant", "username") if known.get(key)), None)
    say(f"logged in to {found.url}" + (f" as {who}" if isinstance(who, str) else ""))


@app.command()
def submit(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files, - for stdin.")],
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Over the file's envs.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the jobs have ended.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; needs no server.")
    ] = False,
    quote: Annotated[
        UUID | None, typer.Option("--quote", metavar="ID", help="The quote that the job cites.")
    ] = None,
    every: EveryOption = 2.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Read job files and send their jobs to market."""
    cited = {} if quote is None else {"quote": str(quote)}
    bodies = [draft.body() | cited for draft in _drafts(files, _environment(env or []))]
    if dry_run:
        show_json(bodies[0] if len(bodies) == 1 else bodies)
        return
    with _client() as client:
        jobs = _sent(client, bodies, output)
        if wait:
            jobs = _waited(client, jobs, every)
    if output is Output.JSON:
        show_json(jobs[0] if len(jobs) == 1 else jobs)
    if wait:
        raise typer.Exit(next((code for code in map(following.exit_code, jobs) if code), 0))


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A job file, - for stdin.")],
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Over the file's envs.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how a job's model would be split, where, and at what cost; nothing is submitted."""
    drafts = _drafts([file], _environment(env or []))
    unplanned = [draft.name for draft in drafts if draft.model is None]
    for name in unplanned:
        complain(f"{file}: {name} has no workload.model: describe what is trained")
    if unplanned:
        raise typer.Exit(2)
    with _client() as client:
        choices = [client.plan(draft.body()) for draft in drafts]
    if output is Output.JSON:
        show_json(choices[0] if len(choices) == 1 else choices)
        return
    for draft, choice in zip(drafts, choices, strict=True):
        if len(drafts) > 1:
            say(f"{draft.name}:")
        tables.show_plans(choice)


@app.command()
def quote(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A job file, - for stdin.")],
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Over the file's envs.")
    ] = None,
    every: EveryOption = 0.5,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask what the last round would have said to a job: price, place, or why not."""
    bodies = [draft.body() for draft in _drafts([file], _environment(env or []))]
    with _client() as client:
        asked = [client.ask_quote(body) for body in bodies]
        quotes = _answered(client, asked, every)
        guessed = output is Output.TABLE and any(map(offerings.without_speed, quotes))
        known = list(client.offers()) if guessed else []
    if output is Output.JSON:
        show_json(quotes[0] if len(quotes) == 1 else quotes)
    else:
        tables.show_quotes(quotes)
        for quote in filter(offerings.without_speed, quotes):
            offerings.show_guesses(quote, known)
    raise typer.Exit(int(any(quote["state"] == "FAILED" for quote in quotes)))


@app.command()
def status(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="One job; all of them when left out.")
    ] = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show my jobs, newest first, or one job in full. (Also: hanse ps)"""
    with _client() as client:
        if job is None:
            _show_list(client, calls.jobs(), limit, output, tables.show_jobs)
            return
        found = following.find_job(client, job)
    _show_one(found, output, tables.show_job)


app.command("ps", hidden=True)(status)


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the job has ended.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, help="Which attempt; the newest.")
    ] = None,
    every: EveryOption = 2.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a job has printed: as it is, or with `-o json` as text with its offsets."""
    with _client() as client:
        found = following.find_job(client, job)
        if output is Output.JSON:
            show_json(following.log_document(client, found, attempt, wait=follow, every_s=every))
        elif follow:
            following.follow_log(client, found, attempt, sys.stdout.buffer, every_s=every)
        else:
            following.copy_log(client, found, attempt, sys.stdout.buffer)


@app.command()
def cancel(job: JobArgument, output: OutputOption = Output.TABLE) -> None:
    """Stop a job, saving its checkpoint where it runs."""
    with _client() as client:
        cancelled = client.cancel(following.find_job(client, job)["id"])
    if output is Output.JSON:
        show_json(cancelled)
    else:
        say(f"{cancelled['id']} {cancelled['name']} {cancelled['state']}")


@app.command()
def why(job: JobArgument, output: OutputOption = Output.TABLE) -> None:
    """Say why a job waits, or why it runs where it runs."""
    with _client() as client:
        answer = client.why(following.find_job(client, job)["id"])
    _show_one(answer, output, tables.show_why)


@app.command()
def offers(limit: LimitOption = 100, output: OutputOption = Output.TABLE) -> None:
    """Show what sites offer: prices, and the speed of each job class."""
    with _client() as client:
        show = partial(offerings.show_offers, now=datetime.now(UTC))
        _show_list(client, calls.offers(), limit, output, show)


@app.command()
def rounds(limit: LimitOption = 20, output: OutputOption = Output.TABLE) -> None:
    """Show the market's rounds, newest first."""
    with _client() as client:
        _show_list(client, calls.rounds(), limit, output, tables.show_rounds)


def _client() -> Client:
    known = current(os.environ)
    return Client(known.url, known.token)


def _asked_token() -> str:
    return os.environ.get("HANSE_TOKEN") or str(typer.prompt("Token", hide_input=True)).strip()


def _environment(options: list[str]) -> dict[str, str]:
    try:
        return dict(env_option(text) for text in options)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--env") from None


def _drafts(files: list[Path], env: dict[str, str]) -> list[jobfile.JobDraft]:
    """Nothing is sent unless every file is good: half a batch is nobody's wish."""
    drafts: list[jobfile.JobDraft] = []
    bad = False
    for file in files:
        try:
            found = jobfile.load(_read(file), env=env)
        except JobFileInvalid as error:
            bad = True
            for problem in error.problems:
                complain(f"{file}:{problem}")
            continue
        for draft in found:
            for note in draft.notes:
                complain(f"{file}:{note}")
        drafts.extend(found)
    if bad:
        raise typer.Exit(2)
    return drafts


def _read(file: Path) -> bytes:
    """At most one byte more than a job file may have, so that the limit is said and kept."""
    most = jobfile.MAX_BYTES + 1
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(most)
        with file.open("rb") as source:
            return source.read(most)
    except OSError as error:
        sentence = f"cannot be read: {error.strerror}"
        raise JobFileInvalid((Problem(1, "", sentence),)) from None


def _sent(client: Client, bodies: list[dict[str, Any]], output: Output) -> list[Job]:
    """One after the other; when one is refused, those already sent are on record above it."""
    jobs: list[Job] = []
    for body in bodies:
        try:
            job = client.submit(body)
        except HanseError:
            for sent in jobs if output is Output.JSON else ():
                complain(f"sent already: {sent['id']} {sent['name']}")
            raise
        jobs.append(job)
        if output is Output.TABLE:
            say(f"{job['id']} {job['name']} {job['state']}")
    return jobs


def _answered(client: Client, asked: list[Quote], every_s: float) -> list[Quote]:
    try:
        return following.answered(client, asked, every_s=every_s)
    except KeyboardInterrupt:
        left = ", ".join(quote["id"] for quote in asked)
        complain(f"hanse: no longer waiting; answers will be under /api/v1/quotes: {left}")
        raise


def _waited(client: Client, jobs: list[Job], every_s: float) -> list[Job]:
    try:
        return following.wait(client, jobs, every_s=every_s)
    except KeyboardInterrupt:
        complain("hanse: no longer waiting; the jobs go on (stop one with: hanse cancel JOB)")
        raise


def _show_one(answer: Any, output: Output, show: Any) -> None:
    if output is Output.JSON:
        show_json(answer)
    else:
        show(answer)


def _show_list(
    client: Client, first: Call[Page[Row]], limit: int, output: Output, show: Any
) -> None:
    """Pages until `limit` rows are there. As JSON: whole pages, and `next` of the last."""
    rows: list[Row] = []
    last: Page[Row] | None = None
    for last in client.pages(first):
        rows.extend(last.results)
        if len(rows) >= limit:
            break
    if output is Output.JSON and last is not None:
        show_json({**last.answer, "previous": None, "results": rows})
        return
    show(rows[:limit])
    if len(rows) > limit or (last is not None and last.following is not None):
        complain(f"the first {limit} only; more with --limit")


def main() -> None:
    app(prog_name="hanse")
