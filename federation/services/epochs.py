"""Write side of epochs: the gain of a period, shared as all members agreed in advance.

An epoch is proposed: its rounds and what their contracts came to are fixed, the workers compute
what the market paid and what the nucleolus of the served-demand game would pay, and the dividend
between the two is shown. It is posted only while those contracts stand as they were. A round's
dividend follows the rules that stood when it was published, and a round that not all its members
had agreed to by then has none: so rules are always made before what they divide. What cannot be
shared is left out and named, and a period can be closed without a dividend.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from economics.book import document_sha256
from federation.errors import BadInput, FieldProblem, Refused
from federation.models import Epoch, Member, Round, Study, Venue
from federation.selectors.epochs import (
    CLOSED,
    Period,
    epochs_counted,
    figures_stand,
    missing_consents,
    owners_shared,
    period_of,
    rounds_after,
    settlements,
    unsettled,
)
from federation.services.ledger import dividend_post
from federation.services.rules import rules_of
from federation.services.story import tell
from federation.services.studies import Question, studies_request
from federation.snapshot import pack, unpack

KEPT = "epoch_made"  #: code of a study whose epoch is on record


def epoch_propose(*, venue: Venue, until: datetime, actor: str, now: datetime) -> Study:
    """Have the dividend computed of the rounds since the last epoch that one version governs.

    Raises Refused("no_rounds") when none was published, ("nothing_to_share") when all are left
    out, ("contracts_open") while one of them has a contract that is not settled.
    """
    rules_of(venue, now)  # a venue has a version from now on
    period = period_of(venue, _since(venue), until)
    _check(period)
    frozen = _frozen(period)
    [study] = studies_request(
        round=period.rounds[-1],
        kind=Study.Kind.SHARES,
        questions=[Question(_parameters(period, frozen), payload=pack(frozen))],
        actor=actor,
        now=now,
        again=True,
    )
    # Its epoch was refused since, or the period would begin after it: the answer counts again.
    Study.objects.filter(pk=study.pk, state=Study.State.DONE, code=KEPT).update(code="")
    return study


def _check(period: Period) -> None:
    """Raises Refused where there is nothing to share, or not yet."""
    if not period.rounds and not period.left_out:
        raise Refused("No round was published since the last epoch.", code="no_rounds")
    if not period.rounds:
        first, why = period.left_out[0]
        raise Refused(
            f"All {len(period.left_out)} rounds are left out, round {first.number} because: {why}.",
            code="nothing_to_share",
        )
    waiting = unsettled(period.rounds)
    if waiting:
        raise Refused(
            f"{waiting} contracts of these rounds are not settled yet.", code="contracts_open"
        )


def _frozen(period: Period) -> dict[str, object]:
    """What is fixed with the proposal, beside books and clearings, which are fixed already."""
    return {
        "numbers": [round.number for round in period.rounds],
        "settled": settlements(period.rounds),
        "owners": owners_shared(),
        "left_out": [{"round": round.number, "why": why} for round, why in period.left_out],
    }


def _parameters(period: Period, frozen: dict[str, object]) -> dict[str, object]:
    rules = period.rules
    if rules is None:
        raise Refused("No round was published since the last epoch.", code="no_rounds")
    return {
        "epoch": [str(round.pk) for round in period.rounds],
        "rules": str(rules.pk),
        "alpha": rules.alpha_ppm / 1e6,
        "cap": rules.dividend_cap_ppm / 1e6,
        "ends_at": period.ends_at.isoformat(),
        "frozen": document_sha256(frozen),
    }


def _since(venue: Venue) -> datetime | None:
    since: datetime | None = epochs_counted(venue).aggregate(last=Max("ends_at"))["last"]
    return since


def epochs_gather(*, now: datetime) -> list[Epoch]:
    """Make an epoch of every computed dividend that has none yet."""
    done = Study.objects.filter(
        kind=Study.Kind.SHARES, state=Study.State.DONE, parameters__has_key="epoch"
    ).exclude(code=KEPT)
    made = []
    for study in done.select_related("round__venue").order_by("created_at"):
        epoch = _make(study, unpack(study.result or b""), now)
        made += [epoch] if epoch is not None else []
        Study.objects.filter(pk=study.pk).update(code=KEPT)
    return made


def _make(study: Study, document: dict[str, object], now: datetime) -> Epoch | None:
    """The epoch of a study, unless its rounds belong to a later or posted one meanwhile."""
    venue, ids = study.round.venue, [UUID(text) for text in study.parameters["epoch"]]
    rounds = list(Round.objects.filter(pk__in=ids).defer("clearing").order_by("number"))
    with transaction.atomic():
        Venue.objects.select_for_update().get(pk=venue.pk)
        if len(rounds) < len(ids) or _taken(venue, rounds):
            return None
        epoch = Epoch.objects.create(
            venue=venue,
            rules_id=study.parameters["rules"],
            number=_next_number(venue),
            starts_at=rounds[0].closes_at,
            ends_at=datetime.fromisoformat(study.parameters["ends_at"]),
            rounds=len(rounds),
            document=document,
            sha256=document_sha256(document),
            created_at=now,
        )
        why = f"{len(rounds)} rounds"
        tell("epoch", epoch.pk, "propose", now=now, actor=study.requested_by, why=why)
    return epoch


def _next_number(venue: Venue) -> int:
    return int(Epoch.objects.filter(venue=venue).aggregate(n=Max("number"))["n"] or 0) + 1


def _taken(venue: Venue, rounds: Sequence[Round]) -> bool:
    first = min(round.published_at for round in rounds if round.published_at)
    return epochs_counted(venue).filter(ends_at__gte=first).exists()


def epoch_post(*, epoch: Epoch, actor: str, now: datetime) -> Epoch:
    """Post a proposed dividend to the ledger, once.

    Raises Refused("consent_missing") unless every member that it touches has agreed to its rules,
    ("figures_changed") when a contract of its rounds was settled anew since, or is disputed: it
    is to be refused and proposed again; ("not_proposed") when it is posted or refused already.
    """
    missing = missing_consents(epoch)
    if missing:
        raise Refused(
            f"Not every member has agreed to {epoch.rules}: {', '.join(missing)} has not.",
            code="consent_missing",
        )
    with transaction.atomic():
        won = Epoch.objects.filter(pk=epoch.pk, state=Epoch.State.PROPOSED).update(
            state=Epoch.State.POSTED
        )
        if not won:
            raise Refused("This epoch is not waiting to be posted.", code="not_proposed")
        if not figures_stand(epoch):
            raise Refused(
                "Its contracts are not settled any more as they were: propose it again.",
                code="figures_changed",
            )
        _post(epoch, now)
        tell("epoch", epoch.pk, "post", now=now, actor=actor)
    epoch.refresh_from_db()
    return epoch


def _post(epoch: Epoch, now: datetime) -> None:
    amounts = {name: int(micro) for name, micro in epoch.document["transfers_micro"].items()}
    members = {member.name: member for member in Member.objects.filter(name__in=amounts)}
    transfers = {members[name]: micro for name, micro in sorted(amounts.items())}
    dividend_post(epoch=epoch, transfers=transfers, now=now)


def epoch_refuse(*, epoch: Epoch, why: str, actor: str, now: datetime, skip: bool = False) -> Epoch:
    """Turn a proposed dividend down; its rounds may be proposed again.

    `skip`: they may not, the period is closed without a dividend.
    """
    changes: dict[str, object] = {"state": Epoch.State.REFUSED, "why": why[:300]}
    if skip:
        document = {**epoch.document, CLOSED: True}
        changes |= {"document": document, "sha256": document_sha256(document)}
    with transaction.atomic():
        won = Epoch.objects.filter(pk=epoch.pk, state=Epoch.State.PROPOSED).update(**changes)
        if not won:
            raise Refused("This epoch is not waiting to be posted.", code="not_proposed")
        code = "skipped" if skip else ""
        tell("epoch", epoch.pk, "refuse", now=now, actor=actor, code=code, why=why)
    epoch.refresh_from_db()
    return epoch


def epoch_close(*, venue: Venue, until: datetime, why: str, actor: str, now: datetime) -> Epoch:
    """Close a period without a dividend: the next epoch begins after `until`.

    Raises BadInput for a moment to come or without a reason, Refused("no_rounds") when no round
    was published up to then since the last epoch, of which one that is proposed is one.
    """
    if until > now:
        raise BadInput(FieldProblem("until", "a moment that has passed"))
    if not 1 <= len(why.strip()) <= 300:
        raise BadInput(FieldProblem("why", "a reason of at most 300 characters"))
    with transaction.atomic():
        Venue.objects.select_for_update().get(pk=venue.pk)
        rounds = rounds_after(venue, _since(venue), until)
        first = rounds.first()
        if first is None:
            raise Refused("No round was published since the last epoch.", code="no_rounds")
        document = {CLOSED: True, "sites": [], "transfers_micro": {}, "left_out": []}
        epoch = Epoch.objects.create(
            venue=venue,
            rules=rules_of(venue, now),
            number=_next_number(venue),
            state=Epoch.State.REFUSED,
            starts_at=first.closes_at,
            ends_at=until,
            rounds=rounds.count(),
            document=document,
            sha256=document_sha256(document),
            why=why,
            created_at=now,
        )
        tell("epoch", epoch.pk, "close", now=now, actor=actor, why=why)
    return epoch
