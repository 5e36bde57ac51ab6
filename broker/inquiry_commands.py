"""`hanse inquire`: who gets what, what a member gains, what a lie would bring, on real rounds."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from broker.command_line import ACTOR, assigned, do, fail, named, set_up
from broker.venue_commands import LOOK_S, Venue


def inquire(
    kind: Annotated[
        str, typer.Argument(help="shares, joining, leaving, response, misreport or conduct")
    ],
    number: Annotated[int, typer.Argument(min=1, help="of the round; several end with it")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="alpha, site, rounds, draws, sweeps"),
    ] = None,
    venue: Venue = "main",
) -> None:
    """Ask the workers a question about a published round, wait, and print the answer as JSON."""
    now = set_up()
    from broker.tasks import hand_out_studies
    from federation import models
    from federation.selectors.inquiries import inquiry_shown, progress
    from federation.services.inquiries import inquiry_request

    rounds = models.Round.objects.filter(venue=named(models.Venue, venue, "venue"), number=number)
    round = rounds.defer("clearing").select_related("venue").first()
    if round is None:
        fail(f"There is no round {number} in {venue}.", "not_found")
    study = do(
        inquiry_request,
        round=round,
        kind=kind,
        parameters=dict(assigned(text) for text in parameters or ()),
        actor=ACTOR,
        now=now,
    )
    if study.state == study.State.PENDING:
        hand_out_studies([study.pk])
    told = (0, 0)
    while study.state in study.OPEN:
        time.sleep(LOOK_S)
        study.refresh_from_db()
        seen = progress(study)
        if seen != told and study.state in study.OPEN:
            typer.echo(f"{seen[0]} of {seen[1]} parts", err=True)
            told = seen
    if study.state == study.State.FAILED:
        fail(study.why, study.code)
    typer.echo(json.dumps(inquiry_shown(study)["answer"], indent=2))
