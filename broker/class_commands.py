"""`hanse classes`: the registry of job classes, and what is known of one before anybody runs it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.command_line import ACTOR, Out, Output, do, fail, named, set_up, show

if TYPE_CHECKING:
    from federation.models import JobClass

app = typer.Typer(no_args_is_help=True, help="The registry of job classes.")


@app.command("add")
def classes_add(
    name: str, title: str = "", owner: Annotated[str, typer.Option(help="a member")] = ""
) -> None:
    """Register a job class."""
    now = set_up()
    from federation.models import Member
    from federation.services.members import class_create

    member = named(Member, owner, "member") if owner else None
    do(class_create, name=name, title=title, owner=member, actor=ACTOR, now=now)
    typer.echo(f"Job class {name} registered.")


@app.command("list")
def classes_list(output: Out = Output.TABLE) -> None:
    """All job classes."""
    set_up()
    from federation.models import JobClass

    rows = JobClass.objects.select_related("owner")
    show(
        [
            {"name": c.name, "title": c.title, "owner": c.owner.name if c.owner else ""}
            for c in rows
        ],
        output,
    )


@app.command("profile")
def classes_profile(
    name: str,
    file: Annotated[
        Path | None, typer.Argument(help="JSON; {} = nothing is known. Without it: show.")
    ] = None,
) -> None:
    """Show, or set, what is known of a class before anybody runs it."""
    now = set_up()
    from federation.models import JobClass

    job_class = named(JobClass, name, "class")
    if file is None:
        typer.echo(json.dumps(job_class.profile, indent=2))
        return
    do(_set_from, file=file, job_class=job_class, profile=_read(file), now=now)
    typer.echo(f"The profile of {name} is set.")


def _set_from(*, file: Path, job_class: JobClass, profile: object, now: datetime) -> None:
    """As `profile_set`; a bad field is named with its file."""
    from federation.errors import BadInput, FieldProblem
    from federation.services.priors import profile_set

    try:
        profile_set(job_class=job_class, profile=profile, by=None, actor=ACTOR, now=now)
    except BadInput as refused:
        raise BadInput(
            *(FieldProblem(f"{file}, {p.path}".rstrip(", "), p.why) for p in refused.problems)
        ) from None


def _read(file: Path) -> object:
    """The JSON of a file; else a sentence that names the file and the place."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        fail(f"{file}, line {error.lineno}, column {error.colno}: {error.msg}.", "bad_file")
    except UnicodeDecodeError as error:
        fail(f"{file}, byte {error.start}: this is not UTF-8.", "bad_file")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}.", "bad_file")
