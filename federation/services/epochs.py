"""Write side of epochs: the gain of a period, shared as all members agreed in advance.

An epoch is proposed: its rounds are fixed, the workers compute what the market paid and what the
nucleolus of the served-demand game would pay, and the dividend between the two is shown. It is
posted only when every member has agreed to the rules that it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from economics.book import document_sha256
from federation.errors import Refused
from federation.machines.contract import ContractState
from federation.machines.round import RoundState
from federation.models import Consent, Contract, Epoch, Member, Round, Study, Venue
from federation.services.ledger import dividend_post
from federation.services.rules import rules_of
from federation.services.story import tell
from federation.services.studies import Question, studies_request
from federation.snapshot import unpack

MOST_ROUNDS = 3000
KEPT = "epoch_made"  #: code of a study whose epoch is on record
UNSETTLED = (
    ContractState.HELD,
    ContractState.RUNNING,
    ContractState.MEASURED,
    ContractState.DISPUTED,
)


def epoch_propose(*, venue: Venue, until: datetime, actor: str, now: datetime) -> Study:
    """Have the dividend of all rounds since the last epoch computed.

    Raises Refused("no_rounds") when none was published, ("contracts_open") while one of them has
    a contract that is not settled, ("book_forgotten") when a book is past its retention.
    """
    rounds = _rounds(venue, until)
    if not rounds:
        raise Refused("No round was published since the last epoch.", code="no_rounds")
    waiting = Contract.objects.filter(round__in=rounds, state__in=UNSETTLED).count()
    if waiting:
        raise Refused(
            f"{waiting} contracts of these rounds are not settled yet.", code="contracts_open"
        )
    rules = rules_of(venue, now)
    [study] = studies_request(
        round=rounds[-1],
        kind=Study.Kind.SHARES,
        questions=[
            Question(
                {
                    "epoch": [str(round.pk) for round in rounds],
                    "rules": str(rules.pk),
                    "alpha": rules.alpha_ppm / 1e6,
                    "cap": rules.dividend_cap_ppm / 1e6,
                }
            )
        ],
        actor=actor,
        now=now,
        again=True,
    )
    return study


def _rounds(venue: Venue, until: datetime) -> list[Round]:
    last = Epoch.objects.filter(venue=venue).exclude(state=Epoch.State.REFUSED)
    since = last.aggregate(last=Max("ends_at"))["last"]
    rows = Round.objects.filter(
        venue=venue,
        state__in=[RoundState.PUBLISHED, RoundState.SETTLED],
        published_at__lte=until,
        clearing__isnull=False,
    )
    if since is not None:
        rows = rows.filter(published_at__gt=since)
    found = list(rows.select_related("snapshot").defer("clearing").order_by("number")[:MOST_ROUNDS])
    if any(not round.snapshot.body for round in found):
        raise Refused("A book of the period is past its retention.", code="book_forgotten")
    return found


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
        number = Epoch.objects.filter(venue=venue).aggregate(n=Max("number"))["n"] or 0
        epoch = Epoch.objects.create(
            venue=venue,
            rules_id=study.parameters["rules"],
            number=number + 1,
            starts_at=rounds[0].closes_at,
            ends_at=max(round.published_at for round in rounds if round.published_at),
            rounds=len(rounds),
            document=document,
            sha256=document_sha256(document),
            created_at=now,
        )
        why = f"{len(rounds)} rounds"
        tell("epoch", epoch.pk, "propose", now=now, actor=study.requested_by, why=why)
    return epoch


def _taken(venue: Venue, rounds: Sequence[Round]) -> bool:
    first = min(round.published_at for round in rounds if round.published_at)
    epochs = Epoch.objects.filter(venue=venue).exclude(state=Epoch.State.REFUSED)
    return epochs.filter(ends_at__gte=first).exists()


def epoch_post(*, epoch: Epoch, actor: str, now: datetime) -> Epoch:
    """Post a proposed dividend to the ledger, once.

    Raises Refused("consent_missing") unless every member that it touches has agreed to its rules,
    ("not_proposed") when it is posted or refused already.
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
        _post(epoch, now)
        tell("epoch", epoch.pk, "post", now=now, actor=actor)
    epoch.refresh_from_db()
    return epoch


def missing_consents(epoch: Epoch) -> list[str]:
    """Members of an epoch that have not agreed to its rules, by name."""
    touched = {row["site"] for row in epoch.document["sites"]}
    agreed = Consent.objects.filter(rules=epoch.rules).values_list("member__name", flat=True)
    return sorted(touched - set(agreed))


def _post(epoch: Epoch, now: datetime) -> None:
    amounts = {name: int(micro) for name, micro in epoch.document["transfers_micro"].items()}
    members = {member.name: member for member in Member.objects.filter(name__in=amounts)}
    transfers = {members[name]: micro for name, micro in sorted(amounts.items())}
    dividend_post(epoch=epoch, transfers=transfers, now=now)


def epoch_refuse(*, epoch: Epoch, why: str, actor: str, now: datetime) -> Epoch:
    """Turn a proposed dividend down; its rounds may be proposed again."""
    with transaction.atomic():
        won = Epoch.objects.filter(pk=epoch.pk, state=Epoch.State.PROPOSED).update(
            state=Epoch.State.REFUSED, why=why[:300]
        )
        if not won:
            raise Refused("This epoch is not waiting to be posted.", code="not_proposed")
        tell("epoch", epoch.pk, "refuse", now=now, actor=actor, why=why)
    epoch.refresh_from_db()
    return epoch
