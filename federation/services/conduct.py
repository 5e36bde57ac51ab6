"""Who stands behind a member, and the watch over conduct: rings, kept-back GPUs, market power.

The review raises alarms for people to look at. It changes no price, no allocation and no bond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from economics.errors import EconomicsError
from federation.errors import BadInput, FieldProblem
from federation.models import Alarm, Member, Site, Venue
from federation.models.base import name_validator
from federation.money import as_text
from federation.selectors.conduct import (
    CancelledEscrow,
    Frozen,
    cancelled_escrow,
    caps_below_reserve,
    kept_back,
    newest_rounds,
    owners,
    payments,
    usual_reserves,
    waiting_of,
)
from federation.services.alarms import Concern, alarms_settle
from federation.services.story import tell

if TYPE_CHECKING:
    from economics.incentives.conduct import Concentration, Pivotal, ResidualSupply, Withheld
    from economics.incentives.rings import RingReport

PERIOD = timedelta(days=30)  #: that a review looks back
ROUNDS = 3  #: newest rounds in each of which a supplier must have been needed
LEAST_ROUNDS = 5  #: rounds of scarcity before kept-back GPUs mean anything
BAND = 0.25  #: a reserve so far above its usual one is a raised one
USUAL = 10  #: rounds before a reserve is usual
MOST_BIDS = 500  #: in a book whose pivotal index is computed: it solves once for each owner
KINDS = (Alarm.Kind.RING, Alarm.Kind.WITHHOLDING, Alarm.Kind.PIVOTAL)


@dataclass(frozen=True, slots=True)
class Conduct:
    """All that the watch sees of a venue in a period. Amounts as in `economics.incentives`."""

    since: datetime
    until: datetime
    traders: int  #: owners that paid or were paid
    rings: RingReport
    withheld: tuple[Withheld, ...]
    concentration: tuple[Concentration, ...]  #: of the newest round's book
    residual: tuple[tuple[int, tuple[ResidualSupply, ...]], ...]  #: (round number, its owners)
    pivotal: tuple[Pivotal, ...]  #: of the newest round; empty where its book is too large
    cancelled: tuple[CancelledEscrow, ...]
    caps_below_reserve: tuple[tuple[str, int, int], ...]  #: (pool, cap, reserve), micro-credits


def member_owner_set(*, member: Member, owner: str, actor: str, now: datetime) -> Member:
    """Say who stands behind a member; an empty name: it stands for itself. Audited.

    From then on trade between members of one owner earns neither record nor credits, and the watch
    over conduct counts them as one. Raises BadInput for a name that is none.
    """
    if owner:
        try:
            name_validator(owner)
        except ValidationError as error:
            raise BadInput(FieldProblem("owner", str(error.messages[0]))) from None
    before = member.behind
    member.owner = owner
    with transaction.atomic():
        member.save(update_fields=["owner"])
        why = f"owner: {before} → {member.behind}"
        tell("member", member.pk, "owner", now=now, actor=actor, why=why)
    return member


def conduct_report(*, venue: Venue, since: datetime, until: datetime, now: datetime) -> Conduct:
    """What happened in `[since, until)`, and how the newest rounds stand. Writes nothing."""
    from economics.incentives.conduct import (  # noqa: PLC0415 - imports the solvers
        Use,
        concentration,
        residual_supply,
        withholding,
    )
    from economics.incentives.rings import Payment, ring_report  # noqa: PLC0415

    behind, rounds = owners(), newest_rounds(venue, ROUNDS)
    flows = payments(venue, since, until)
    kept = [row for row in kept_back(venue, since, until) if row.rounds >= LEAST_ROUNDS]
    return Conduct(
        since=since,
        until=until,
        traders=len(
            {behind.get(name, name) for flow in flows for name in (flow.payer, flow.payee)}
        ),
        rings=ring_report(
            (Payment(flow.payer, flow.payee, flow.amount_micro) for flow in flows), owners=behind
        ),
        withheld=withholding(Use(row.site, row.gpu, row.most, row.offered, 0.0) for row in kept),
        concentration=concentration(rounds[0].book, owners=behind) if rounds else (),
        residual=tuple(
            (round.number, residual_supply(round.book, round.clearing, owners=behind))
            for round in rounds
        ),
        pivotal=_pivotal(rounds, behind),
        cancelled=tuple(cancelled_escrow(venue, since, until)),
        caps_below_reserve=tuple(caps_below_reserve(venue, now)),
    )


def _pivotal(rounds: list[Frozen], behind: dict[str, str]) -> tuple[Pivotal, ...]:
    """What the newest round would lose without each owner, if its book is not too large."""
    from economics.incentives.conduct import pivotal  # noqa: PLC0415 - imports the solvers

    if not rounds or not 0 < len(rounds[0].book["jobs"]) <= MOST_BIDS:
        return ()
    try:
        return pivotal(rounds[0].book, owners=behind)
    except EconomicsError:  # a part of the market that could not be solved has no index
        return ()


def conduct_review(*, venue: Venue, now: datetime) -> list[Alarm]:
    """Raise an alarm for whatever the last PERIOD shows, close those it no longer shows.

    Returns the new ones.
    """
    report = conduct_report(venue=venue, since=now - PERIOD, until=now, now=now)
    found = [
        *_rings(venue, report),
        *_withholding(venue, report),
        *_suppliers(venue, report),
        *_reserves(venue, report),
    ]
    mine = Q(kind__in=KINDS, about__startswith=f"{venue.name}: ")
    return alarms_settle(open_alarms=Alarm.objects.filter(mine), found=found, now=now)


def _rings(venue: Venue, report: Conduct) -> Iterable[Concern]:
    """Suspect rings, unless everybody who trades is in them: then there is nothing to compare."""
    for ring in report.rings.rings:
        if not ring.suspect or len(ring.owners) >= report.traders:
            continue
        names = " → ".join((*ring.owners, ring.owners[0]))
        why = (
            f"{as_text(ring.amount_micro)} credits went round {names}, which is "
            f"{ring.tightness:.0%} of the most that any of them paid or was paid."
        )
        figures = {"amount_micro": ring.amount_micro, "tightness": ring.tightness}
        yield Concern(Alarm.Kind.RING, f"{venue.name}: {names}", why, figures)


def _withholding(venue: Venue, report: Conduct) -> Iterable[Concern]:
    """Sites that offer less where their GPUs are scarce."""
    for row in report.withheld:
        if not row.flagged:
            continue
        site = Site.objects.select_related("member").get(name=row.site)
        waiting = waiting_of(site.member.behind, venue)
        why = (
            f"In rounds in which {row.gpu} were scarce it kept back {row.share:.0%} of the most it "
            f"offers in other rounds; {waiting} jobs of its own owner wait. What it runs for "
            "itself is not known here."
        )
        figures = {"share": row.share, "gpu_hours": row.withheld, "own_waiting": waiting}
        about = f"{venue.name}: {row.site} {row.gpu}"
        yield Concern(Alarm.Kind.WITHHOLDING, about, why, figures, site=site)


def _suppliers(venue: Venue, report: Conduct) -> Iterable[Concern]:
    """Owners without whom the others could not have supplied what was sold, round after round."""
    if len(report.residual) < ROUNDS:
        return
    flagged = [
        {(row.owner, row.gpu): row for row in rows if row.flagged} for _, rows in report.residual
    ]
    lost = {row.owner: row.index for row in report.pivotal}
    for owner, gpu in sorted(set.intersection(*(set(rows) for rows in flagged))):
        index = flagged[0][owner, gpu].index or 0.0
        share = lost.get(owner)
        rest = "" if share is None else f" Without it {share:.0%} of the surplus would be lost."
        why = (
            f"In each of the last {ROUNDS} rounds the others offered less {gpu} than was sold with "
            f"a tenth to spare: {index:.2f} of it in the newest.{rest}"
        )
        figures = {"residual_supply": index, "pivotal": share}
        yield Concern(Alarm.Kind.PIVOTAL, f"{venue.name}: {owner} {gpu}", why, figures)


def _reserves(venue: Venue, report: Conduct) -> Iterable[Concern]:
    """Members whose raised reserves made the newest round noticeably dearer: conduct and impact."""
    from economics.incentives.conduct import conduct_and_impact  # noqa: PLC0415 - the solvers

    usual = usual_reserves(venue, report.since, USUAL)
    newest = next(iter(newest_rounds(venue, 1)), None)
    if newest is None or not 0 < len(newest.book["jobs"]) <= MOST_BIDS:
        return
    raised = {
        row["site"]
        for row in newest.book["pools"]
        if row["id"] in usual and row["reserve"] > (1 + BAND) * usual[row["id"]]
    }
    for member in sorted(raised):
        try:
            found = conduct_and_impact(newest.book, member, usual, band=BAND)
        except EconomicsError:  # a round that cannot be cleared otherwise says nothing of its price
            continue
        if not found.mitigate:
            continue
        dearer = "from nothing" if found.impact is None else f"by {found.impact:.0%}"
        why = (
            f"The reserves of {', '.join(found.raised)} lie more than {BAND:.0%} above their usual "
            f"ones, and that made a GPU kind dearer in round {newest.number}, {dearer}."
        )
        figures = {"pools": list(found.raised), "impact": found.impact, "round": newest.number}
        about = f"{venue.name}: {member} reserve"
        yield Concern(Alarm.Kind.WITHHOLDING, about, why, figures)
