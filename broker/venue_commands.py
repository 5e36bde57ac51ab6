"""`hanse venues`: the rules of a market, and what its tenants brought to a round."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from broker.command_line import ACTOR, Out, Output, do, fail, named, set_up, show

app = typer.Typer(no_args_is_help=True, help="Markets: their policy, and reports on their rounds.")
LOOK_S = 0.5
Venue = Annotated[str, typer.Option(help="which market")]


@app.command("list")
def venues_list(output: Out = Output.TABLE) -> None:
    """All markets and the rules they follow."""
    set_up()
    from django.conf import settings

    from broker.queues import solve_queue
    from federation import models

    rows = [
        {
            "name": venue.name,
            "currency": venue.currency,
            "round_s": venue.round_s,
            "policy": venue.policy,
            "parameters": json.dumps(venue.policy_parameters),
            "queue": solve_queue(venue.name, count=settings.SOLVE_QUEUES, pins=settings.SOLVE_PINS),
            "paused": venue.paused,
        }
        for venue in models.Venue.objects.all()
    ]
    show(rows, output)


@app.command("policies")
def venues_policies(output: Out = Output.TABLE) -> None:
    """The policies a market may follow, when to choose each, and the parameters it takes."""
    from federation.policies import policies_shown

    show([dict(row) for row in policies_shown()], output)


@app.command("policy")
def venues_policy(
    policy: Annotated[str, typer.Argument(help="one of `hanse venues policies`")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=NUMBER", help="a parameter; a list is 1,2,3"),
    ] = None,
    venue: Venue = "main",
) -> None:
    """Choose the policy of a market; its next book follows it."""
    now = set_up()
    from federation import models
    from federation.services.venues import venue_policy_set

    chosen = do(
        venue_policy_set,
        venue=named(models.Venue, venue, "venue"),
        policy=policy,
        parameters=dict(_parameter(text) for text in settings or ()),
        actor=ACTOR,
        now=now,
    )
    typer.echo(f"Venue {chosen.name} follows {chosen.policy} from its next book on.")


def _parameter(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        fail(f"{text} is not NAME=NUMBER or NAME=NUMBER,NUMBER.", "bad_parameter")
    return name, numbers if "," in value else numbers[0]


@app.command("contributions")
def venues_contributions(
    number: Annotated[int, typer.Argument(min=1, help="of the round")],
    venue: Venue = "main",
    wait: Annotated[bool, typer.Option("--wait", help="stay until the workers are done")] = False,
    output: Out = Output.TABLE,
) -> None:
    """What every tenant brought to a round: a report, computed by the workers."""
    now = set_up()
    from federation import models
    from federation.services.studies import report_request

    round = models.Round.objects.filter(
        venue=named(models.Venue, venue, "venue"), number=number, published_at__isnull=False
    ).first()
    if round is None:
        fail(f"There is no published round {number} in {venue}.", "not_found")
    from django.conf import settings

    study = report_request(round=round, share=settings.STUDY_SHARE, actor=ACTOR, now=now)
    if study.state == study.State.PENDING:
        from broker.tasks import hand_out_studies

        hand_out_studies([study.pk])
    while wait and study.state in study.OPEN:
        time.sleep(LOOK_S)
        study.refresh_from_db()
    _show_report(study, output)


def _show_report(study: Any, output: Output) -> None:
    from federation.selectors.studies import report_shown

    shown = report_shown(study, visible=None)
    if study.state == study.State.FAILED:
        fail(study.why, study.code)
    if study.state != study.State.DONE:
        typer.echo("Asked for; the workers have it. Look again, or use --wait.", err=True)
    show([_flat(row) for row in shown["tenants"]], output)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    failed = row["failed"]
    return {**row, "failed": failed and failed["code"]}
