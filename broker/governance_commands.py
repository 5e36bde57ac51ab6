"""`hanse rules`, `hanse disputes`, `hanse epochs`, `hanse alarms`: what operators decide."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from broker.command_line import (
    ACTOR,
    Out,
    Output,
    assigned,
    do,
    fail,
    identified,
    named,
    set_up,
    show,
)
from broker.venue_commands import Venue

rules = typer.Typer(no_args_is_help=True, help="The rules that contracts are settled by.")
disputes = typer.Typer(no_args_is_help=True, help="Objections to contracts, and decisions.")
epochs = typer.Typer(no_args_is_help=True, help="The dividend of a period.")
alarms = typer.Typer(no_args_is_help=True, help="What should be looked at.")
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="NAME=VALUE", help="a rule to change; shares in millionths"),
]
Why = Annotated[str, typer.Option("--why", help="stands in the audit log")]


@rules.command("show")
def rules_show(venue: Venue = "main", output: Out = Output.TABLE) -> None:
    """The version that stands, and who has agreed to it."""
    now = set_up()
    from federation import models
    from federation.selectors.rules import consent_missing, rules_values
    from federation.services.rules import rules_of

    stands = rules_of(named(models.Venue, venue, "venue"), now)
    rows = [{"rule": name, "value": value} for name, value in rules_values(stands).items()]
    missing = ", ".join(consent_missing(stands)) or "nobody"
    show(
        [
            {"rule": "version", "value": stands.version},
            *rows,
            {"rule": "not agreed yet", "value": missing},
        ],
        output,
    )


@rules.command("preview")
def rules_preview_command(
    changes: Changes, venue: Venue = "main", output: Out = Output.TABLE
) -> None:
    """What the last settled contracts would have paid under other rules."""
    now = set_up()
    from federation import models
    from federation.money import as_text
    from federation.services.rules import rules_preview

    preview = do(
        rules_preview,
        venue=named(models.Venue, venue, "venue"),
        changes=dict(assigned(text) for text in changes),
        now=now,
        actor=ACTOR,
    )
    show(
        [
            {
                "member": row.member,
                "before": as_text(row.before_micro),
                "after": as_text(row.after_micro),
                "difference": as_text(row.difference_micro),
            }
            for row in preview.effects
        ],
        output,
    )
    for note in preview.notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{preview.affected} of {preview.contracts} contracts would have been settled otherwise. "
        f"Preview {preview.sha256}",
        err=True,
    )


@rules.command("set")
def rules_set_command(
    changes: Changes,
    why: Why,
    preview: Annotated[str, typer.Option(help="digest that the preview of this change printed")],
    venue: Venue = "main",
) -> None:
    """Make the next version of the rules; a preview of the same change comes first."""
    now = set_up()
    from federation import models
    from federation.services.rules import rules_set

    made = do(
        rules_set,
        venue=named(models.Venue, venue, "venue"),
        changes=dict(assigned(text) for text in changes),
        preview_sha256=preview,
        why=why,
        actor=ACTOR,
        now=now,
    )
    typer.echo(f"Version {made.version} stands; contracts made from now on follow it.")


@rules.command("agree")
def rules_agree(
    member: Annotated[str, typer.Argument(help="the member whose word it is")],
    by: Annotated[str, typer.Option(help="who gave the member's word, and where it is kept")],
    venue: Venue = "main",
) -> None:
    """Note a member's written word that it agrees; a member's own token can say it too."""
    now = set_up()
    from federation import models
    from federation.services.rules import consent_give, rules_of

    stands = rules_of(named(models.Venue, venue, "venue"), now)
    do(
        consent_give,
        rules=stands,
        member=named(models.Member, member, "member"),
        actor=f"{ACTOR} by {by}",
        now=now,
    )
    typer.echo(f"{member} agrees to version {stands.version}.")


@disputes.command("list")
def disputes_list(
    everything: Annotated[bool, typer.Option("--all", help="decided ones too")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Objections that wait for a decision."""
    set_up()
    from federation.models import Dispute

    rows = Dispute.objects.select_related("contract__lease__job", "contract__lease__site")
    if not everything:
        rows = rows.filter(state=Dispute.State.OPEN)
    show(
        [
            {
                "id": row.pk,
                "state": row.state,
                "by": row.by,
                "job": row.contract.lease.job.name,
                "site": row.contract.lease.site.name,
                "contracted": row.contract.contracted,
                "delivered": row.contract.delivered,
                "claimed": row.claimed,
                "why": row.why,
            }
            for row in rows
        ],
        output,
    )


@disputes.command("decide")
def disputes_decide(
    dispute: Annotated[str, typer.Argument(help="its id")],
    accepted: Annotated[int, typer.Option(min=0, help="samples that count")],
    cause: Annotated[str, typer.Option(help="of a shortfall: site, tenant, market or none")],
    why: Why,
) -> None:
    """Decide an objection, and post what follows from it."""
    now = set_up()
    from federation.models import Dispute
    from federation.money import as_text
    from federation.services.disputes import dispute_decide

    contract = do(
        dispute_decide,
        dispute=identified(Dispute, dispute, "dispute"),
        accepted=accepted,
        cause=cause,
        why=why,
        actor=ACTOR,
        now=now,
    )
    typer.echo(
        f"Paid {as_text(contract.paid_micro)}, refunded {as_text(contract.refunded_micro)}, "
        f"penalty {as_text(contract.penalty_micro)}."
    )


@epochs.command("propose")
def epochs_propose(venue: Venue = "main") -> None:
    """Have the dividend of all rounds since the last epoch computed by the workers."""
    now = set_up()
    from broker.tasks import hand_out_studies
    from federation import models
    from federation.services.epochs import epoch_propose

    study = do(
        epoch_propose,
        venue=named(models.Venue, venue, "venue"),
        until=now,
        actor=ACTOR,
        now=now,
    )
    hand_out_studies([study.pk])
    typer.echo("Asked for; the workers have it. See: hanse epochs list")


@epochs.command("list")
def epochs_list(venue: Venue = "main", output: Out = Output.TABLE) -> None:
    """All epochs: what the market paid each member, and the dividend."""
    set_up()
    from federation import models
    from federation.selectors.epochs import epoch_shown, epochs_of

    found = [epoch_shown(epoch) for epoch in epochs_of(named(models.Venue, venue, "venue"))]
    nobody = dict.fromkeys(("member", "owner", "market", "nucleolus", "dividend", "agreed"))
    show(
        [
            {"number": epoch["number"], "state": epoch["state"], "rounds": epoch["rounds"], **row}
            for epoch in found
            for row in epoch["members"] or [nobody]  # a period that was closed
        ],
        output,
    )
    for epoch in found:
        for why, rounds in Counter(row["why"] for row in epoch["left_out"]).items():
            typer.echo(f"Epoch {epoch['number']} leaves {rounds} rounds out: {why}.", err=True)


@epochs.command("post")
def epochs_post(number: int, venue: Venue = "main") -> None:
    """Post a dividend; every member must have agreed to its rules."""
    now = set_up()
    from federation.services.epochs import epoch_post

    do(epoch_post, epoch=_epoch(number, venue), actor=ACTOR, now=now)
    typer.echo(f"The dividend of epoch {number} is posted.")


@epochs.command("refuse")
def epochs_refuse(
    number: int,
    why: Why,
    skip: Annotated[bool, typer.Option("--skip", help="its rounds are not proposed again")] = False,
    venue: Venue = "main",
) -> None:
    """Turn a proposed dividend down."""
    now = set_up()
    from federation.services.epochs import epoch_refuse

    do(epoch_refuse, epoch=_epoch(number, venue), why=why, skip=skip, actor=ACTOR, now=now)
    typer.echo(f"Epoch {number} is {'closed without a dividend' if skip else 'refused'}.")


@epochs.command("close")
def epochs_close(
    why: Why,
    until: Annotated[
        datetime | None, typer.Option(help="last moment of the period, UTC; now when left out")
    ] = None,
    venue: Venue = "main",
) -> None:
    """Close a period without a dividend: the next epoch begins after it."""
    now = set_up()
    from federation import models
    from federation.services.epochs import epoch_close

    closed = do(
        epoch_close,
        venue=named(models.Venue, venue, "venue"),
        until=now if until is None else until.replace(tzinfo=UTC),
        why=why,
        actor=ACTOR,
        now=now,
    )
    typer.echo(f"Epoch {closed.number}: {closed.rounds} rounds are closed without a dividend.")


def _epoch(number: int, venue: str) -> Any:
    from federation import models
    from federation.selectors.epochs import epochs_of

    epoch = epochs_of(named(models.Venue, venue, "venue")).filter(number=number).first()
    if epoch is None:
        fail(f"There is no epoch {number} in {venue}.", "not_found")
    return epoch


@alarms.command("list")
def alarms_list(
    everything: Annotated[bool, typer.Option("--all", help="closed ones too")] = False,
    output: Out = Output.TABLE,
) -> None:
    """What rules found in the stored figures."""
    set_up()
    from federation.models import Alarm
    from federation.selectors.contracts_shown import alarm_shown

    rows = Alarm.objects.select_related("site")
    if not everything:
        rows = rows.filter(closed_at__isnull=True)
    keys = ("id", "kind", "about", "why", "created_at", "closed_by")
    shown = [alarm_shown(row) for row in rows]
    show([{key: row[key] for key in keys} for row in shown], output)


@alarms.command("close")
def alarms_close(alarm: Annotated[str, typer.Argument(help="its id")], why: Why) -> None:
    """Close an alarm with a reason."""
    now = set_up()
    from federation.models import Alarm
    from federation.services.alarms import alarm_close

    found = identified(Alarm, alarm, "alarm")
    closed = do(alarm_close, alarm=found, why=why, actor=ACTOR, now=now)
    typer.echo("Closed." if closed else "It was closed before.")
