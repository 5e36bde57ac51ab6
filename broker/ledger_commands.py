"""`hanse ledger`: does it hold, statements, files, and money out."""

from __future__ import annotations

import json
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.command_line import ACTOR, Output, do, fail, named, set_up, show
from broker.venue_commands import Venue

app = typer.Typer(no_args_is_help=True, help="The ledger: checks, statements, files, withdrawals.")


@app.command("check")
def ledger_check(
    replay: Annotated[
        bool, typer.Option("--replay", help="also compute every balance from the rounds again")
    ] = False,
) -> None:
    """Verify every group, balance and link; exit 1 when one does not hold."""
    set_up()
    from federation.selectors import ledger
    from federation.selectors.replay import replay as again

    found = ledger.verify()
    for head in found.heads:
        typer.echo(f"{head.currency} {head.position} {head.digest}")
    for finding in found.findings:
        typer.echo(finding, err=True)
    if not found.holds:
        fail(f"The ledger does not hold: {found.problems} problems.", "does_not_hold")
    typer.echo(f"The ledger holds: {found.groups} groups, {found.entries} entries.")
    if not replay:
        return
    replayed = again()
    for finding in replayed.findings:
        typer.echo(finding, err=True)
    if not replayed.holds:
        fail(f"The ledger differs: {replayed.problems} findings.", "does_not_follow")
    typer.echo(
        f"Every balance follows: {replayed.contracts} contracts, {replayed.settlements} "
        f"settlements, {replayed.rounds} rounds."
    )


@app.command("statement")
def ledger_statement(
    member: str,
    month: Annotated[str, typer.Option(help="such as 2026-11, in the venue's time zone")],
    venue: Venue = "main",
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or csv")] = "table",
) -> None:
    """A member's month: every purse, opened, moved and closed."""
    set_up()
    from federation import models
    from federation.money import as_text
    from federation.selectors.statements import month_statement, statement_csv, statement_document

    try:
        asked = datetime.strptime(month, "%Y-%m")  # noqa: DTZ007 a month has no zone of its own
    except ValueError:
        fail(f"{month} is not a month such as 2026-11.", "bad_month")
    found = month_statement(
        named(models.Member, member, "member"),
        venue=named(models.Venue, venue, "venue"),
        year=asked.year,
        month=asked.month,
    )
    if output == "csv":
        sys.stdout.writelines(statement_csv(found))
        return
    if output == "json":
        typer.echo(json.dumps(statement_document(found), indent=2))
        return
    show(
        [
            {
                "purse": purse.purse,
                "opened": as_text(purse.opening_micro),
                "moved": as_text(purse.moved_micro),
                "closed": as_text(purse.closing_micro),
            }
            for purse in found.purses
        ],
        Output.TABLE,
    )


@app.command("export")
def ledger_export(
    file: Path,
    form: Annotated[
        str, typer.Option("--format", help="csv, json, or archive, which can be restored")
    ] = "archive",
) -> None:
    """Write the whole ledger to a file."""
    now = set_up()
    from federation.selectors.exports import ledger_csv, ledger_json
    from federation.services.archive import archive_write

    pieces = {"csv": ledger_csv, "json": ledger_json}
    if form in pieces:
        with file.open("w", encoding="utf-8", newline="") as target:
            target.writelines(pieces[form]())
    elif form == "archive":
        do(archive_write, target=file, now=now)
    else:
        fail(f"{form} is none of csv, json, archive.", "bad_format")
    typer.echo(f"Written: {file}")


@app.command("restore")
def ledger_restore(
    file: Path,
    check: Annotated[bool, typer.Option("--check", help="only read it to its end")] = False,
) -> None:
    """Restore the ledger of an archive into a database that has none."""
    set_up()
    from federation.services.archive import archive_check, archive_restore

    archived = do(archive_check if check else archive_restore, source=file)
    for currency, (position, digest) in archived.heads.items():
        typer.echo(f"{currency} {position} {digest}")
    word = "Whole" if check else "Restored"
    typer.echo(f"{word}: {archived.groups} groups, {archived.entries} entries.")


@app.command("withdraw")
def ledger_withdraw(
    amount: Annotated[str, typer.Argument(help="credits, such as 250 or 99.50")],
    tenant: Annotated[str, typer.Option(help="whose free funds")] = "",
    member: Annotated[str, typer.Option(help="whose earnings")] = "",
    key: Annotated[str | None, typer.Option(help="the same key again posts nothing")] = None,
    venue: Venue = "main",
) -> None:
    """Pay a tenant's free funds, or a member's earnings, out."""
    now = set_up()
    from federation import models
    from federation.services import funds

    if bool(tenant) == bool(member):
        fail("Name a tenant or a member, one of the two.", "bad_parameter")
    asked: dict[str, Any] = {
        "venue": named(models.Venue, venue, "venue"),
        "amount_micro": _micro(amount),
        "key": uuid.uuid4().hex if key is None else key,
        "actor": ACTOR,
        "now": now,
    }
    if tenant:
        posted = do(funds.withdraw, tenant=named(models.Tenant, tenant, "tenant"), **asked)
    else:
        posted = do(funds.member_withdraw, member=named(models.Member, member, "member"), **asked)
    typer.echo(f"{amount} paid out." if posted else "This key was posted before.")


def _micro(amount: str) -> int:
    from decimal import Decimal, InvalidOperation

    from federation.money import MAX_MICRO, MICRO

    try:
        micro = Decimal(amount) * MICRO
    except InvalidOperation:
        micro = Decimal("NaN")
    if not micro.is_finite() or abs(micro) > MAX_MICRO or micro != int(micro):
        fail(f"{amount} is not a sum of credits that the ledger can hold.", "bad_amount")
    return int(micro)
