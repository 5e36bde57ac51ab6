"""Credits without cash: issued for GPU time given to others, and fading when they are not used.

Only venues whose currency is credits do either. Issuance is the source and takes back what fades,
so the sum over all purses stays zero.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, NullIf

from federation.machines.contract import ContractState
from federation.models import Account, Contract, Entry, EntryGroup, Rules, Venue
from federation.selectors.rules import rules_newest
from federation.services.entries import Posting, account, post_all

MILLION = 1_000_000
MS_PER_HOUR = 3_600_000
FADING = (Account.Kind.TENANT_CASH, Account.Kind.MEMBER_EARNINGS)


def contributions_issue(*, venue: Venue, now: datetime, limit: int = 1000) -> int:
    """Issue credits for the GPU time of final contracts between different owners; how many groups.

    GPU time beyond the contracted is not counted, as it is not paid. Rounded down.
    """
    if venue.currency != Venue.Currency.CREDITS:
        return 0
    newest = rules_newest(venue)
    with transaction.atomic():
        issuance = account(Account.Kind.ISSUANCE, venue.currency, now=now)
        due = _contributions(venue).order_by("settled_at", "pk")[:limit]
        return post_all([_issue(contract, issuance, newest, now) for contract in due], now=now)


def _contributions(venue: Venue) -> QuerySet[Contract]:
    """Final contracts that earned credits and have none yet: the two sides have other owners."""
    issued = EntryGroup.objects.filter(kind=EntryGroup.Kind.ISSUE, contract=OuterRef("pk"))
    seller, buyer = "lease__site__member", "lease__job__tenant__member"
    rows = Contract.objects.filter(
        ~Exists(issued),
        state=ContractState.FINAL,
        lease__job__venue=venue,
        gpu_seconds__gt=0,
        paid_micro__gt=0,
    ).annotate(
        seller=Coalesce(NullIf(f"{seller}__owner", Value("")), f"{seller}__name"),
        buyer=Coalesce(NullIf(f"{buyer}__owner", Value("")), f"{buyer}__name"),
    )
    return rows.exclude(seller=F("buyer")).select_related("rules", seller)


def _issue(contract: Contract, issuance: Account, newest: Rules | None, now: datetime) -> Posting:
    member = contract.lease.site.member
    rules = contract.rules or newest
    gpu_ms = int(contract.gpu_seconds * 1000)
    if contract.price_micro:
        gpu_ms = min(gpu_ms, contract.payment_micro * MS_PER_HOUR // contract.price_micro)
    rate = rules.issue_per_gpu_hour_micro if rules else 0
    amount = gpu_ms * rate // MS_PER_HOUR
    purse = account(Account.Kind.MEMBER_EARNINGS, issuance.currency, now=now, member=member)
    return Posting(
        key=f"issue:contract:{contract.pk}",
        kind=EntryGroup.Kind.ISSUE,
        currency=issuance.currency,
        entries=[(issuance, -amount), (purse, amount)],
        memo="for GPU time given to others",
        contract_id=contract.pk,
        round_id=contract.round_id,
        facts={"gpu_ms": gpu_ms, "per_gpu_hour_micro": rate},
    )


def credits_decay(*, venue: Venue, now: datetime) -> int:
    """Take a share of the credits that were carried over into this week; how many purses.

    Once a week for each purse, by the calendar of the venue's time zone. Carried over is what a
    purse held when the week began and still holds; escrow and bonds are promised and do not fade.
    """
    rules = rules_newest(venue)
    if venue.currency != Venue.Currency.CREDITS or rules is None or not rules.decay_ppm:
        return 0
    begun, week = week_of(now, rules.time_zone)
    with transaction.atomic():
        purses = Account.objects.select_for_update(no_key=True, of=("self",)).filter(
            kind__in=FADING, currency=venue.currency, balance_micro__gt=0
        )
        held = {purse: purse.balance_micro for purse in purses.order_by("pk")}
        since = _moved_since(begun, [purse.pk for purse in held])
        issuance = account(Account.Kind.ISSUANCE, venue.currency, now=now)
        postings = []
        for purse, balance in held.items():
            carried = min(balance, balance - since.get(purse.pk, 0))
            amount = max(0, carried) * rules.decay_ppm // MILLION
            postings.append(
                Posting(
                    key=f"decay:{purse.pk}:{week}",
                    kind=EntryGroup.Kind.DECAY,
                    currency=venue.currency,
                    entries=[(purse, -amount), (issuance, amount)],
                    memo=f"carried over into {week}",
                    facts={"carried_micro": max(0, carried), "decay_ppm": rules.decay_ppm},
                )
            )
        return post_all(postings, now=now)


def week_of(now: datetime, time_zone: str) -> tuple[datetime, str]:
    """When the week of `now` began in a time zone, and its name as in ISO 8601."""
    local = now.astimezone(ZoneInfo(time_zone))
    year, week, day = local.isocalendar()
    monday = local.date() - timedelta(days=day - 1)
    begun = datetime(monday.year, monday.month, monday.day, tzinfo=ZoneInfo(time_zone))
    return begun, f"{year}-W{week:02}"


def _moved_since(begun: datetime, purses: list[UUID]) -> dict[UUID, int]:
    rows = Entry.objects.filter(account__in=purses, group__created_at__gte=begun)
    sums = rows.order_by().values_list("account").annotate(total=Sum("amount_micro"))
    return dict(sums)
