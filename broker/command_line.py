"""What the operators' commands share: load the broker, call a service, show rows.

They work on the database of HANSE_HOME (or of the settings that the environment names), as the
account that may read that folder: it is the operator's own machine.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import django
import typer
from rich.console import Console
from rich.table import Table

#: tables need room when the output is a file or a pipe
screen = Console(width=None if sys.stdout.isatty() else 120)
WHOLE = frozenset({"id", "lease"})  #: columns that are copied into the next command
ACTOR = f"cli:{getpass.getuser()}"  #: who did it, in the audit log


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


Out = Annotated[Output, typer.Option("--output", "-o", help="table or json")]


def set_up() -> datetime:
    """Load Django for a command; returns the time the command acts at."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings.dev")
    if os.environ["DJANGO_SETTINGS_MODULE"] == "broker.settings.dev":
        home = Path(os.environ.get("HANSE_HOME") or ".hanse/up").resolve()
        if not (home / "hanse.sqlite3").exists():
            why = f"There is no federation in {home}; start one with `hanse up`, or set HANSE_HOME."
            fail(why, "no_database")
    django.setup()
    from django.db.utils import OperationalError
    from django.utils import timezone

    from federation.services.members import venue_ensure

    try:
        venue_ensure(now=timezone.now())
    except OperationalError:
        fail("This federation has no database yet; start it once with `hanse up`.", "no_database")
    return timezone.now()


def fail(why: str, code: str) -> NoReturn:
    """One sentence on standard error, and exit code 1."""
    typer.echo(f"{why} ({code})", err=True)
    raise typer.Exit(1)


def named(model: Any, name: str, kind: str) -> Any:
    """The row of this name; a refusal when there is none."""
    row = model.objects.filter(name=name).first()
    if row is None:
        fail(f"There is no {kind} called {name}.", "not_found")
    return row


def identified(model: Any, text: str, kind: str) -> Any:
    """The row of this id; a refusal when there is none, or when it is no id."""
    try:
        row = model.objects.filter(pk=UUID(text)).first()
    except ValueError:
        row = None
    if row is None:
        fail(f"There is no {kind} {text}.", "not_found")
    return row


def assigned(text: str) -> tuple[str, Any]:
    """NAME=VALUE: a value is JSON, or else a name such as a time zone."""
    name, equals, value = text.partition("=")
    if not equals:
        fail(f"{text} is not NAME=VALUE.", "bad_parameter")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def do(action: Any, **fields: Any) -> Any:
    """Call a service; a refusal becomes one sentence and exit code 1."""
    from federation.errors import (
        FederationError,
        InvalidTransition,
    )

    try:
        return action(**fields)
    except FederationError as error:
        fail(str(error), error.code)
    except InvalidTransition as error:
        fail(f"Not possible: {error}.", "invalid_transition")


def show(rows: list[dict[str, Any]], output: Output) -> None:
    """Rows as a table or as JSON on standard output."""
    if output is Output.JSON:
        typer.echo(json.dumps(rows, default=str))
        return
    if not rows:
        typer.echo("None yet.")
        return
    table = Table()
    for key in rows[0]:
        whole = 36 if key in WHOLE else None
        table.add_column(key.replace("_", " "), min_width=whole)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    screen.print(table)


def _cell(value: object) -> str:
    """A moment to the second, without its T, as every table of `hanse` has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return "" if value is None else str(value)
