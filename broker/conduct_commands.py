"""`hanse conduct`: what the watch over conduct sees, who is one owner, another probe of a claim."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from broker.command_line import ACTOR, do, fail, named, set_up
from broker.venue_commands import Venue

conduct = typer.Typer(no_args_is_help=True, help="Rings, kept-back GPUs, market power, owners.")


@conduct.command("show")
def conduct_show(
    venue: Venue = "main",
    days: Annotated[float, typer.Option(min=0.01, max=3660, help="how far to look back")] = 30.0,
) -> None:
    """All that the watch sees of a venue's last days, as JSON. Raises no alarm."""
    now = set_up()
    from federation import models
    from federation.services.conduct import conduct_report

    report = do(
        conduct_report,
        venue=named(models.Venue, venue, "venue"),
        since=now - timedelta(days=days),
        until=now,
        now=now,
    )
    typer.echo(json.dumps(asdict(report), default=str, indent=2))


@conduct.command("owner")
def conduct_owner(
    member: Annotated[str, typer.Argument(help="the member")],
    owner: Annotated[str, typer.Argument(help="who stands behind it; its own name: itself")],
) -> None:
    """Say who stands behind a member: members of one owner are one player."""
    now = set_up()
    from federation import models
    from federation.services.conduct import member_owner_set

    row = named(models.Member, member, "member")
    changed = do(
        member_owner_set, member=row, owner="" if owner == member else owner, actor=ACTOR, now=now
    )
    typer.echo(f"{changed.behind} stands behind {changed.name}.")


@conduct.command("probe")
def conduct_probe(
    pool: Annotated[str, typer.Argument(metavar="SITE.POOL", help="where the claim is made")],
    job_class: Annotated[str, typer.Argument(metavar="CLASS", help="of which class")],
) -> None:
    """Have a claim that waits measured once more, on the site's account."""
    now = set_up()
    from federation import models
    from federation.services.guard import claim_check_request

    site, _, name = pool.rpartition(".")
    found = models.Pool.objects.select_related("site").filter(site__name=site, name=name).first()
    if found is None:
        fail(f"There is no pool {pool}.", "not_found")
    claims = do(
        claim_check_request,
        pool=found,
        job_class=named(models.JobClass, job_class, "class"),
        actor=ACTOR,
        now=now,
    )
    typer.echo(f"{len(claims)} to be measured at the next gate at which a job of it waits.")
