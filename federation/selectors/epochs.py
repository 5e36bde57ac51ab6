"""Reads of epochs: which rounds one covers, what they came to, what it moves, who has agreed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from economics.book import document_sha256
from federation.machines.contract import ContractState
from federation.machines.round import RoundState
from federation.models import Consent, Contract, Epoch, Job, Member, PoolPrice, Round, Rules, Venue
from federation.money import as_text

MOST_ROUNDS = 3000
CLOSED = "closed"  #: key of the document of a period that is over without a dividend
SETTLED = (ContractState.SETTLED, ContractState.FINAL)
FORGOTTEN = "its book is past its retention"


@dataclass(frozen=True, slots=True)
class Period:
    """The rounds of an epoch, oldest first, and those of its time that are left out."""

    rounds: tuple[Round, ...]
    rules: Rules | None  #: the version that stood when they were published; None = no rounds
    left_out: tuple[tuple[Round, str], ...]  #: and why

    @property
    def ends_at(self) -> datetime:
        """When its last round was published, left out or not."""
        every = [*self.rounds, *(round for round, _ in self.left_out)]
        return max(round.published_at for round in every if round.published_at)


def epochs_of(venue: Venue) -> QuerySet[Epoch]:
    """A venue's epochs, newest first."""
    return Epoch.objects.filter(venue=venue).select_related("rules", "venue").order_by("-number")


def epochs_counted(venue: Venue) -> QuerySet[Epoch]:
    """Epochs whose rounds no other epoch may have: all but those refused and not closed."""
    refused = Q(state=Epoch.State.REFUSED) & ~Q(document__has_key=CLOSED)
    return Epoch.objects.filter(~refused, venue=venue)


def rounds_after(venue: Venue, since: datetime | None, until: datetime) -> QuerySet[Round]:
    """Published rounds of a venue in order; `since` itself is not among them."""
    rows = Round.objects.filter(
        venue=venue,
        state__in=[RoundState.PUBLISHED, RoundState.SETTLED],
        published_at__lte=until,
        clearing__isnull=False,
    )
    if since is not None:
        rows = rows.filter(published_at__gt=since)
    return rows.defer("clearing").order_by("number")


def period_of(venue: Venue, since: datetime | None, until: datetime) -> Period:
    """The rounds of the next epoch: those that one version of the rules governs.

    A round follows the version that stood when it was published, and only where all its members
    had agreed to that version by then: its sellers, and the buyers with a contract. Others are
    left out, as are rounds whose book is forgotten. It ends before a round of another version.
    """
    rows = rounds_after(venue, since, until)
    found = list(rows[:MOST_ROUNDS])
    bodies = rows.filter(snapshot__body__isnull=False).values_list("pk", flat=True)
    readable, members = set(bodies), members_of(found)
    versions = list(Rules.objects.filter(venue=venue).order_by("version"))
    consents = _consents(venue)
    taken: list[Round] = []
    left_out: list[tuple[Round, str]] = []
    governing = None
    for round in found:
        rules = _in_force(versions, round)
        missing = _late(members[round.pk], consents[rules.pk], round)
        if round.pk not in readable:
            left_out.append((round, FORGOTTEN))
        elif missing:
            names = ", ".join(missing)
            left_out.append((round, f"not agreed to rules {rules.version} before it: {names}"))
        elif governing is None or governing == rules:
            governing = rules
            taken.append(round)
        else:
            break
    return Period(tuple(taken), governing, tuple(left_out))


def _in_force(versions: Sequence[Rules], round: Round) -> Rules:
    """The rules that stood when a round was published; the first, of defaults, always did."""
    stood = [
        each
        for each in versions[1:]
        if round.published_at and each.created_at <= round.published_at
    ]
    return stood[-1] if stood else versions[0]


def _consents(venue: Venue) -> Mapping[UUID, Mapping[str, datetime]]:
    """Version of the rules -> member -> when it agreed."""
    found: dict[UUID, dict[str, datetime]] = defaultdict(dict)
    rows = Consent.objects.filter(rules__venue=venue)
    for rules, name, at in rows.values_list("rules_id", "member__name", "created_at"):
        found[rules][name] = at
    return found


def _late(names: Collection[str], agreed: Mapping[str, datetime], round: Round) -> list[str]:
    """Members that had not agreed when a round was published."""
    at = round.published_at
    return sorted(n for n in names if n not in agreed or (at is not None and agreed[n] > at))


def members_of(rounds: Sequence[Round]) -> Mapping[UUID, set[str]]:
    """Round -> the members that sold in it, or bought under a contract."""
    found: dict[UUID, set[str]] = defaultdict(set)
    sold = PoolPrice.objects.filter(round__in=rounds)
    bought = _contracts(rounds)
    for rows in (
        sold.values_list("round_id", "pool__site__member__name").distinct(),
        bought.values_list("round_id", "lease__job__tenant__member__name").distinct(),
    ):
        for pk, name in rows:
            found[pk].add(name)
    return found


def _contracts(rounds: Sequence[Round]) -> QuerySet[Contract]:
    """Contracts of these rounds' awards; probes are none."""
    return Contract.objects.filter(
        round__in=rounds,
        basis=Contract.Basis.SAMPLES,
        lease__job__kind=Job.Kind.TRAINING,
    )


def unsettled(rounds: Sequence[Round]) -> int:
    """How many contracts of these rounds wait for their settlement or a decision."""
    return _contracts(rounds).exclude(state__in=[*SETTLED, ContractState.VOIDED]).count()


def settlements(rounds: Sequence[Round]) -> list[dict[str, list[int]]]:
    """For each round, job -> accepted samples that were contracted, paid, penalty (micro-credits).

    A contract that was prolonged is the round's that sold it.
    """
    found: dict[UUID, dict[str, list[int]]] = defaultdict(dict)
    rows = _contracts(rounds).filter(state__in=SETTLED).order_by("created_at", "pk")
    for pk, job, accepted, delivered, contracted, *money in rows.values_list(
        *("round_id", "lease__job_id", "accepted", "delivered", "contracted"),
        *("paid_micro", "penalty_micro"),
    ):
        counted = min(delivered if accepted is None else accepted, contracted)
        row = [counted, *(amount or 0 for amount in money)]
        before = found[pk].get(str(job), [0] * len(row))
        found[pk][str(job)] = [one + other for one, other in zip(before, row, strict=True)]
    return [dict(sorted(found[round.pk].items())) for round in rounds]


def figures_stand(epoch: Epoch) -> bool:
    """Whether the contracts of an epoch are settled as they were when it was proposed."""
    if "settled_sha256" not in epoch.document:  # proposed before settlements were frozen
        return False
    numbers = epoch.document["numbers"]
    rows = Round.objects.filter(venue=epoch.venue, number__in=numbers).defer("clearing")
    stand = document_sha256({"settled": settlements(list(rows.order_by("number")))})
    return bool(stand == epoch.document["settled_sha256"])


def owners_shared() -> dict[str, str]:
    """Member -> who is behind it, for members that have an owner."""
    return {member.name: member.behind for member in Member.objects.exclude(owner="")}


def missing_consents(epoch: Epoch) -> list[str]:
    """Members that an epoch moves money of and that have not agreed to its rules, by name."""
    touched = {name for name, micro in epoch.document["transfers_micro"].items() if int(micro)}
    agreed = Consent.objects.filter(rules=epoch.rules).values_list("member__name", flat=True)
    return sorted(touched - set(agreed))


def epoch_shown(epoch: Epoch) -> dict[str, Any]:
    """An epoch with a line for each member that it touches; an owner's figures at each of its."""
    agreed = set(Consent.objects.filter(rules=epoch.rules).values_list("member__name", flat=True))
    document = epoch.document
    moved, rows = document["transfers_micro"], {row["site"]: row for row in document["sites"]}
    owners = document.get("owners", {name: name for name in rows})
    return {
        "number": epoch.number,
        "state": "CLOSED" if CLOSED in document else epoch.state.upper(),
        "starts_at": epoch.starts_at,
        "ends_at": epoch.ends_at,
        "rounds": epoch.rounds,
        "rules": epoch.rules.version,
        "alpha": epoch.rules.alpha_ppm / 1e6,
        "sha256": epoch.sha256,
        "why": epoch.why,
        "left_out": document.get("left_out", []),
        "members": [
            {
                "member": name,
                "owner": owner,
                "market": as_text(round(rows[owner]["market"] * 1e6)),
                "nucleolus": as_text(round(rows[owner]["nucleolus"] * 1e6)),
                "dividend": as_text(int(moved.get(name, 0))),
                "agreed": name in agreed,
            }
            for name, owner in owners.items()
        ],
        "document": document,
    }
