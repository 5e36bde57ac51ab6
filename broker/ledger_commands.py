"""`hanse ledger`: does it hold, statements, files, money in and out, credit, reversals."""

from __future__ import annotations

import json
import sys
import uuid
from datetime import datetime
from typing import Annotated, Any

import typer

from broker.command_line import ACTOR, Output, do, fail, named, set_up, show
from broker.venue_commands import Venue

app = typer.Typer(no_args_is_help=True, help="The ledger: checks, statements, money in and out.")


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
        f"settlements, {replayed.rounds} rounds, {replayed.quotes} lines beside their quotes."
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
    from federation.selectors.statements import (
        month_of,
        month_statement,
        statement_csv,
        statement_document,
    )

    year, number = do(month_of, text=month)
    found = month_statement(
        named(models.Member, member, "member"),
        venue=named(models.Venue, venue, "venue"),
        year=year,
        month=number,
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


Amount = Annotated[str, typer.Argument(help="credits, such as 250 or 99.50")]
TenantName = Annotated[str, typer.Option("--tenant", help="whose free funds")]
MemberName = Annotated[str, typer.Option("--member", help="whose earnings")]
Key = Annotated[str | None, typer.Option(help="the same key again posts nothing")]


@app.command("deposit")
def ledger_deposit(
    amount: Amount,
    tenant: TenantName = "",
    member: MemberName = "",
    key: Key = None,
    venue: Venue = "main",
) -> None:
    """Pay a tenant's free funds, or a member's earnings, up: a member's cover its bonds."""
    now = set_up()
    from federation.services import funds

    moved = _moved(funds.deposit, funds.member_deposit, amount, tenant, member, key, venue, now)
    typer.echo(f"{amount} paid up." if moved else "This key was posted before.")


@app.command("withdraw")
def ledger_withdraw(
    amount: Amount,
    tenant: TenantName = "",
    member: MemberName = "",
    key: Key = None,
    venue: Venue = "main",
) -> None:
    """Pay a tenant's free funds, or a member's earnings, out."""
    now = set_up()
    from federation.services import funds

    moved = _moved(funds.withdraw, funds.member_withdraw, amount, tenant, member, key, venue, now)
    typer.echo(f"{amount} paid out." if moved else "This key was posted before.")


def _moved(
    for_tenant: Any,
    for_member: Any,
    amount: str,
    tenant: str,
    member: str,
    key: str | None,
    venue: str,
    now: datetime,
) -> bool:
    """Whether one of two services posted, for a tenant or for a member."""
    from federation import models

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
        return bool(do(for_tenant, tenant=named(models.Tenant, tenant, "tenant"), **asked))
    return bool(do(for_member, member=named(models.Member, member, "member"), **asked))


@app.command("credit")
def ledger_credit(
    member: str,
    amount: Annotated[
        str, typer.Argument(help="credits, such as 250; default; left out, nothing is set")
    ] = "",
    venue: Venue = "main",
) -> None:
    """Set, or show, how far a member's earnings may go below zero for its bonds."""
    now = set_up()
    from federation import models
    from federation.money import as_text
    from federation.services.ledger import credit_limit
    from federation.services.members import member_credit_set

    row = named(models.Member, member, "member")
    if amount:
        micro = None if amount == "default" else _micro(amount)
        row = do(member_credit_set, member=row, credit_micro=micro, actor=ACTOR, now=now)
    limit = as_text(credit_limit(row, named(models.Venue, venue, "venue")))
    source = "by the venue's rules" if row.credit_micro is None else "its own"
    typer.echo(f"{member} may go {limit} below zero for its bonds ({source}).")


@app.command("reverse")
def ledger_reverse(
    key: Annotated[str, typer.Argument(help="of the group, as a statement shows it")],
    why: Annotated[str, typer.Option(help="it stands in the ledger and in the audit log")],
) -> None:
    """Take a deposit, an issue, a withdrawal, a transfer, a dividend or a decay back."""
    now = set_up()
    from federation.models import EntryGroup
    from federation.services.ledger import reverse

    group = EntryGroup.objects.filter(key=key).first()
    if group is None:
        fail(f"There is no group with the key {key}.", "not_found")
    posted = do(reverse, group=group, key=f"reversal:{group.pk}", memo=why, actor=ACTOR, now=now)
    typer.echo(f"{key} is taken back." if posted else f"{key} was taken back before.")


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
