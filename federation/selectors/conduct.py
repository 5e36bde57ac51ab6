"""Reads for the watch over conduct: who pays whom, who could move prices, what was kept back.

Players are owners: members of one owner (`Member.behind`) count as one throughout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from django.db.models import Case, F, Q, Sum, Value, When
from django.db.models.functions import Coalesce

from federation.machines.job import JobState
from federation.models import (
    Contract,
    EntryGroup,
    Job,
    Member,
    OfferPool,
    PoolPrice,
    Round,
    RoundOffer,
    Venue,
)
from federation.money import as_credits
from federation.selectors.affinity import current_offers
from federation.selectors.rules import rules_newest
from federation.snapshot import unpack

DEAR = 0.05  #: a GPU kind is scarce in a round whose mean price lies so far above its reserves
LOOKED_AT = 500  #: newest rounds of a period that are looked at
MANY_POOLS = 100  #: rows of prices that are read, for each of these rounds, at most


@dataclass(frozen=True, slots=True)
class CancelledEscrow:
    """What a tenant had put in escrow in a period, and the part of it that it took back."""

    tenant: str
    contracts: int
    escrow_micro: int
    cancelled_micro: int  #: refunded under contracts of jobs that it cancelled

    @property
    def share(self) -> float:
        return self.cancelled_micro / self.escrow_micro if self.escrow_micro else 0.0


@dataclass(frozen=True, slots=True)
class Flow:
    """What the tenants of one member paid to the sites of another, micro-credits."""

    payer: str
    payee: str
    amount_micro: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a site offered of a GPU kind in the rounds in which that was scarce, GPU-hours."""

    site: str
    gpu: str
    most: float  #: had it offered as much as it ever did in the period
    offered: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """A published round: its book, its clearing."""

    number: int
    book: dict[str, Any]
    clearing: dict[str, Any]


def owners() -> dict[str, str]:
    """Member -> who stands behind it, both by name."""
    return {member.name: member.behind for member in Member.objects.all()}


def payments(venue: Venue, since: datetime, until: datetime) -> list[Flow]:
    """What each member's tenants paid each member's sites in `[since, until)`, by the ledger.

    A settlement that was reversed does not count, the one that took its place does.
    """
    job, site = "contract__lease__job__", "contract__lease__site__"
    groups = EntryGroup.objects.filter(
        kind=EntryGroup.Kind.SETTLE,
        reversed_by__isnull=True,
        created_at__gte=since,
        created_at__lt=until,
        **{f"{job}venue": venue},
    )
    sums = groups.order_by().values_list(f"{job}tenant__member__name", f"{site}member__name")
    rows = sums.annotate(paid=Coalesce(Sum("contract__paid_micro"), 0))
    return [Flow(payer, payee, paid) for payer, payee, paid in sorted(rows) if paid]


def cancelled_escrow(venue: Venue, since: datetime, until: datetime) -> list[CancelledEscrow]:
    """How much of its escrow each tenant took back by cancelling, the largest share first.

    Bids that are made to be cancelled move prices and cost their maker nothing; binding bids and
    earnest money are against that, and this shows who would need them.
    """
    rows = Contract.objects.filter(
        lease__job__venue=venue, settled_at__gte=since, settled_at__lt=until
    ).exclude(lease__job__kind=Job.Kind.PROBE)
    taken = Case(
        When(Q(lease__job__state=JobState.CANCELLED), then=Coalesce(F("refunded_micro"), Value(0))),
        default=Value(0),
    )
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tenant, escrow, back in rows.values_list(
        "lease__job__tenant__name", "payment_micro"
    ).annotate(back=taken):
        of = sums[tenant]
        of[0], of[1], of[2] = of[0] + 1, of[1] + escrow, of[2] + back
    found = [CancelledEscrow(tenant, *of) for tenant, of in sums.items()]
    return sorted(found, key=lambda row: (-row.share, row.tenant))


def kept_back(venue: Venue, since: datetime, until: datetime) -> list[Kept]:
    """GPU-hours that each site offered where they were scarce, against the most it ever offered.

    What a site runs for itself outside the federation is not seen here and counts as kept back.
    """
    rounds = Round.objects.filter(
        venue=venue, published_at__gte=since, published_at__lt=until
    ).order_by("-number")
    ids = list(rounds.values_list("pk", flat=True)[:LOOKED_AT])
    scarce = _scarce(ids)
    used: dict[Any, list[Any]] = defaultdict(list)
    offers = RoundOffer.objects.filter(round__in=ids).values_list("round_id", "offer_id")
    for round, offer in offers:
        used[offer].append(round)
    hours = venue.round_s / 3600.0
    most: dict[tuple[str, str], float] = defaultdict(float)
    offered: dict[tuple[str, str], list[float]] = defaultdict(list)
    lines = OfferPool.objects.filter(offer__in=list(used)).values_list(
        "offer_id", "offer__site__name", "pool__gpu"
    )
    for offer, site, gpu, gpus in lines.annotate(gpus_of_kind=Sum("gpus")).order_by("offer_id"):
        most[site, gpu] = max(most[site, gpu], gpus)
        offered[site, gpu] += [gpus for round in used[offer] if (round, gpu) in scarce]
    return [
        Kept(site, gpu, most[site, gpu] * len(rows) * hours, sum(rows) * hours, len(rows))
        for (site, gpu), rows in sorted(offered.items())
        if rows
    ]


def _scarce(rounds: list[Any]) -> set[tuple[Any, str]]:
    """(round, GPU kind) where what was sold cost noticeably more than its reserves."""
    paid: dict[tuple[Any, str], float] = defaultdict(float)
    least: dict[tuple[Any, str], float] = defaultdict(float)
    rows = PoolPrice.objects.filter(round__in=rounds, traded_gpu_hours__gt=0).values_list(
        "round_id", "pool__gpu", "price_micro", "reserve_micro", "traded_gpu_hours"
    )
    for round, gpu, price, reserve, sold in rows:
        paid[round, gpu] += price * sold
        least[round, gpu] += reserve * sold
    return {key for key in paid if paid[key] > (1 + DEAR) * least[key]}


def newest_rounds(venue: Venue, count: int) -> list[Frozen]:
    """The newest published rounds whose books are still kept, the newest first."""
    rounds = Round.objects.filter(
        venue=venue,
        published_at__isnull=False,
        clearing__isnull=False,
        snapshot__body__isnull=False,
    )
    return [
        Frozen(round.number, unpack(round.snapshot.body or b""), unpack(round.clearing or b""))
        for round in rounds.select_related("snapshot").order_by("-number")[:count]
    ]


def usual_reserves(venue: Venue, since: datetime, least: int) -> dict[str, float]:
    """Pool -> the median of its reserve over the published rounds since then, credits per GPU-hour.

    Pools with fewer than `least` rounds have none.
    """
    rows = PoolPrice.objects.filter(
        round__venue=venue, round__published_at__gte=since
    ).select_related("pool__site")
    seen: dict[str, list[int]] = defaultdict(list)
    for row in rows.order_by("-round__number")[: LOOKED_AT * MANY_POOLS]:
        seen[str(row.pool)].append(row.reserve_micro)
    return {
        pool: as_credits(int(median(reserves)))
        for pool, reserves in seen.items()
        if len(reserves) >= least
    }


def waiting_of(owner: str, venue: Venue) -> int:
    """Jobs of an owner's tenants that wait for GPUs."""
    names = [name for name, behind in owners().items() if behind == owner]
    waiting = Job.objects.filter(
        venue=venue,
        kind=Job.Kind.TRAINING,
        state=JobState.PENDING,
        tenant__member__name__in=names,
    )
    return waiting.count()


def caps_below_reserve(venue: Venue, now: datetime) -> list[tuple[str, int, int]]:
    """Pools whose reserve lies above the venue's price cap: (pool, cap, reserve), micro-credits.

    There the reserve is the cap: no site is made to sell at a loss.
    """
    rules = rules_newest(venue)
    caps: dict[str, int] = {} if rules is None else rules.price_caps
    lines: Iterable[OfferPool] = OfferPool.objects.filter(
        offer__in=current_offers(venue, now), pool__gpu__in=list(caps)
    ).select_related("pool__site")
    return sorted(
        (str(line.pool), caps[line.pool.gpu], line.reserve_micro)
        for line in lines
        if line.reserve_micro > caps[line.pool.gpu]
    )
