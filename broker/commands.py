"""The broker's commands of `hanse`: run a federation, and what an operator of a fresh one needs.

They work on the database of HANSE_HOME (or of the settings that the environment names), as the
account that may read that folder: it is the operator's own machine.
"""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import (
    class_commands,
    conduct_commands,
    governance_commands,
    inquiry_commands,
    ledger_commands,
    operator_commands,
    sample_commands,
    venue_commands,
)
from broker.command_line import ACTOR, Out, Output, do, fail, named, screen, set_up, show

app = typer.Typer(no_args_is_help=True, help="Run and furnish a federation.")
members = typer.Typer(no_args_is_help=True, help="Organisations that take part.")
sites = typer.Typer(no_args_is_help=True, help="Datacenters and their join tokens.")
tenants = typer.Typer(no_args_is_help=True, help="Who submits jobs, and their API tokens.")
app.add_typer(members, name="members")
app.add_typer(sites, name="sites")
app.add_typer(tenants, name="tenants")
app.add_typer(operator_commands.app, name="operators")
app.add_typer(class_commands.app, name="classes")
app.add_typer(venue_commands.app, name="venues")
app.add_typer(governance_commands.rules, name="rules")
app.add_typer(governance_commands.disputes, name="disputes")
app.add_typer(governance_commands.epochs, name="epochs")
app.add_typer(governance_commands.alarms, name="alarms")
app.add_typer(conduct_commands.conduct, name="conduct")
app.add_typer(ledger_commands.app, name="ledger")
app.add_typer(sample_commands.app, name="samples")
app.command("inquire")(inquiry_commands.inquire)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one")] = 8400,
    home: Annotated[Path, typer.Option(help="where everything lives", envvar="HANSE_HOME")] = Path(
        ".hanse/up"
    ),
    round_seconds: Annotated[
        float | None, typer.Option(min=1, max=86400, help="round length of a new federation")
    ] = None,
) -> None:
    """Run a federation on this machine and stay up, with the web UI at a printed address."""
    from broker.demo.stay import stay_up

    raise typer.Exit(stay_up(home=home.resolve(), port=port, round_s=round_seconds, screen=screen))


@app.command()
def demo(
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object on the last line")
    ] = False,
    keep: Annotated[bool, typer.Option(help="keep the folder of the demo")] = False,
    jobs: Annotated[int, typer.Option(min=12, max=200, help="how many training jobs")] = 14,
) -> None:
    """Three datacenters trade real training jobs, from nothing, on this machine."""
    from broker.demo.story import run_demo

    raise typer.Exit(run_demo(as_json=as_json, keep=keep, count=jobs, screen=screen))


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
def market(context: typer.Context) -> None:
    """Clear and verify market books from files: the same as `python -m economics`."""
    from economics.__main__ import main

    raise typer.Exit(main(context.args))


@members.command("add")
def members_add(name: str, title: str = "") -> None:
    """Add an organisation."""
    now = set_up()
    from federation.services.members import member_create

    do(member_create, name=name, title=title, actor=ACTOR, now=now)
    typer.echo(f"Member {name} added.")


@members.command("list")
def members_list(output: Out = Output.TABLE) -> None:
    """All organisations."""
    set_up()
    from federation.models import Member

    rows = Member.objects.prefetch_related("sites", "tenants")
    show(
        [
            {
                "name": m.name,
                "title": m.title,
                "sites": ", ".join(s.name for s in m.sites.all()),
                "tenants": ", ".join(t.name for t in m.tenants.all()),
            }
            for m in rows
        ],
        output,
    )


@members.command("token")
def members_token(name: str, days: Annotated[int, typer.Option(min=1, max=366)] = 90) -> None:
    """Print an API token that acts for a member: contracts, statements, consent. Shown once."""
    now = set_up()
    from federation.models import Member
    from federation.services.access import member_token_issue

    member = named(Member, name, "member")
    typer.echo(do(member_token_issue, member=member, actor=ACTOR, days=days, now=now))


@members.command("statement")
def members_statement(
    name: str,
    since: Annotated[datetime | None, typer.Option(help="UTC, from this moment on")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC, before this moment")] = None,
    output: Out = Output.TABLE,
) -> None:
    """What a member's sites earned and its tenants paid in a period."""
    set_up()
    from federation.models import Member, Venue
    from federation.money import as_text
    from federation.selectors.accounts import statement
    from federation.services.members import MAIN_VENUE

    currency = Venue.objects.get(name=MAIN_VENUE).currency
    found = statement(
        named(Member, name, "member"), currency=currency, since=_utc(since), until=_utc(until)
    )
    rows: list[dict[str, Any]] = [
        {"at": x.at.isoformat(), "kind": x.kind, "what": x.what, "credits": as_text(x.amount_micro)}
        for x in found.lines
    ]
    totals = {
        "earned": found.earned_micro,
        "paid": -found.paid_micro,
        "stability transfers": found.transfers_micro,
        "net": found.net_micro,
    }
    rows += [
        {"at": "", "kind": "total", "what": what, "credits": as_text(micro)}
        for what, micro in totals.items()
    ]
    show(rows, output)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


@sites.command("add")
def sites_add(
    name: str, member: Annotated[str, typer.Option(help="the organisation that owns it")]
) -> None:
    """Add a datacenter and print its one-time join token."""
    now = set_up()
    from federation.models import Member, Venue
    from federation.services.members import MAIN_VENUE, site_create

    owner = named(Member, member, "member")
    venue = Venue.objects.get(name=MAIN_VENUE)
    site = do(site_create, name=name, member=owner, venue=venue, actor=ACTOR, now=now)
    _print_token(site, now)


@sites.command("token")
def sites_token(name: str) -> None:
    """Print a new one-time join token; an unused earlier one stops working."""
    now = set_up()
    from federation.models import Site

    _print_token(named(Site, name, "site"), now)


def _print_token(site: Any, now: datetime) -> None:
    from django.conf import settings

    from federation.services.access import join_token_issue

    ttl = settings.JOIN_TOKEN_TTL_S
    token = join_token_issue(site=site, actor=ACTOR, ttl_s=ttl, now=now)
    typer.echo(token)
    typer.echo(
        f"Site {site.name}: use it once within {ttl / 60:g} minutes, on the site's machine: "
        "hanse agent join URL TOKEN --config FILE",
        err=True,
    )


@sites.command("revoke")
def sites_revoke(name: str) -> None:
    """Take a site's agent credential back, at once."""
    now = set_up()
    from federation.models import Site
    from federation.services.access import credentials_revoke

    count = credentials_revoke(site=named(Site, name, "site"), actor=ACTOR, now=now)
    typer.echo(f"{count} credentials of {name} revoked.")


@sites.command("drain")
def sites_drain(
    name: str,
    reason: Annotated[str, typer.Option(help="goes to the site's story")],
    reopen: Annotated[bool, typer.Option("--open", help="open it again")] = False,
) -> None:
    """Place nothing new at a site; what runs there goes on."""
    now = set_up()
    from federation.models import Site
    from federation.services.syncs import site_drain

    site = named(Site, name, "site")
    do(site_drain, site=site, actor=ACTOR, why=reason, now=now, drain=not reopen)
    typer.echo(f"Site {name} is {site.state}.")


@sites.command("list")
def sites_list(output: Out = Output.TABLE) -> None:
    """All datacenters and when they were last heard of."""
    set_up()
    from federation.models import Site

    show(
        [
            {
                "name": s.name,
                "member": s.member.name,
                "state": s.state,
                "last_sync": s.last_sync_at and s.last_sync_at.isoformat(timespec="seconds"),
                "agent": s.agent_version,
            }
            for s in Site.objects.select_related("member")
        ],
        output,
    )


@tenants.command("add")
def tenants_add(
    name: str, member: Annotated[str, typer.Option(help="its home organisation")]
) -> None:
    """Add a tenant."""
    now = set_up()
    from federation.models import Member
    from federation.services.members import tenant_create

    do(tenant_create, name=name, member=named(Member, member, "member"), actor=ACTOR, now=now)
    typer.echo(f"Tenant {name} added. Give it funds: hanse deposit {name} AMOUNT")


@tenants.command("token")
def tenants_token(name: str, days: Annotated[int, typer.Option(min=1, max=366)] = 90) -> None:
    """Print an API token that acts for a tenant. Shown once."""
    now = set_up()
    from federation.models import Tenant
    from federation.services.access import tenant_token_issue

    tenant = named(Tenant, name, "tenant")
    typer.echo(do(tenant_token_issue, tenant=tenant, actor=ACTOR, days=days, now=now))
    typer.echo(f"Valid {days} days: hanse login URL --token TOKEN", err=True)


@tenants.command("revoke")
def tenants_revoke(name: str) -> None:
    """Take all API tokens of a tenant back, at once."""
    now = set_up()
    from federation.models import Tenant
    from federation.services.access import tenant_tokens_revoke

    count = tenant_tokens_revoke(tenant=named(Tenant, name, "tenant"), actor=ACTOR, now=now)
    typer.echo(f"Tokens of {name} taken back: {count}.")


@tenants.command("list")
def tenants_list(output: Out = Output.TABLE) -> None:
    """All tenants and their funds."""
    set_up()
    from federation.models import Tenant, Venue
    from federation.money import as_text
    from federation.selectors.accounts import escrow_micro, funds_micro
    from federation.services.members import MAIN_VENUE

    venue = Venue.objects.get(name=MAIN_VENUE)
    show(
        [
            {
                "name": t.name,
                "member": t.member.name,
                "available": as_text(funds_micro(t, venue)),
                "escrow": as_text(escrow_micro(t, venue)),
            }
            for t in Tenant.objects.select_related("member")
        ],
        output,
    )


@app.command()
def deposit(
    tenant: str,
    amount: Annotated[str, typer.Argument(help="credits, such as 250 or 99.50")],
    key: Annotated[str | None, typer.Option(help="the same key again posts nothing")] = None,
) -> None:
    """Give a tenant funds: a deposit in a cash venue, an issue in a credits venue."""
    now = set_up()
    from federation.models import Tenant, Venue
    from federation.money import MAX_MICRO, MICRO, to_micro
    from federation.services.ledger import deposit as post_deposit
    from federation.services.members import MAIN_VENUE

    try:
        credits = Decimal(amount)
    except InvalidOperation:
        credits = Decimal("NaN")
    if not credits.is_finite():
        typer.echo(f"AMOUNT: {amount} is not a sum of credits (bad_amount)", err=True)
        sys.exit(2)
    if not -MAX_MICRO <= credits <= MAX_MICRO or to_micro(credits) != credits * MICRO:
        fail(f"{amount} is more, or finer, than the ledger can hold.", "bad_amount")
    posted = do(
        post_deposit,
        tenant=named(Tenant, tenant, "tenant"),
        venue=Venue.objects.get(name=MAIN_VENUE),
        amount_micro=to_micro(credits),
        key=uuid.uuid4().hex if key is None else key,
        actor=ACTOR,
        now=now,
    )
    typer.echo(f"{tenant} has {amount} more." if posted else "This key was posted before.")
