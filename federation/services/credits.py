"""Credits without cash: issued for GPU time given to others, and fading when they are not used.

Only venues whose currency is credits do either. Issuance is the source and takes back what fades,
so the sum over all purses stays zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, Sum, Value
from django.db.models.functions import Coalesce, NullIf

from federation.machines.contract import ContractState
from federation.models import Account, Contract, Entry, EntryGroup, Rules, Venue
from federation.selectors.contributions import contribution_of, faded_micro, week_of
from federation.selectors.rules import rules_newest
from federation.services.entries import Posting, account, post_all

FADING = (Account.Kind.TENANT_CASH, Account.Kind.MEMBER_EARNINGS)


def contributions_issue(*, venue: Venue, now: datetime, limit: int = 1000) -> int:
    """Issue credits for the GPU time of final contracts between different owners; how many groups.

    GPU time beyond the contracted is not counted, as it is not paid. Rounded down. Contracts that
    earn nothing stay as they are and do not count towards the limit.
    """
    if venue.currency != Venue.Currency.CREDITS:
        return 0
    newest = rules_newest(venue)
    with transaction.atomic():
        issuance = account(Account.Kind.ISSUANCE, venue.currency, now=now)
        return post_all(_issues(venue, issuance, newest, now, limit), now=now)


def _issues(
    venue: Venue, issuance: Account, newest: Rules | None, now: datetime, limit: int
) -> list[Posting]:
    """The first groups that move something, at most `limit`."""
    postings: list[Posting] = []
    for contract in _contributions(venue, newest):
        if len(postings) == limit:
            break
        postings += _issue(contract, issuance, newest, now)
    return postings


def _contributions(venue: Venue, newest: Rules | None) -> Iterator[Contract]:
    """Final contracts that earned credits and have none yet, oldest first.

    The two sides have other owners, the contract's rules (the newest, where it has none) issue
    credits at all, and its lease used GPU time.
    """
    issued = EntryGroup.objects.filter(kind=EntryGroup.Kind.ISSUE, contract=OuterRef("pk"))
    seller, buyer = "lease__site__member", "lease__job__tenant__member"
    pays = Q(rules__issue_per_gpu_hour_micro__gt=0)
    if newest is not None and newest.issue_per_gpu_hour_micro:
        pays |= Q(rules__isnull=True)
    rows = Contract.objects.filter(
        ~Exists(issued),
        pays,
        Q(gpu_seconds__gt=0) | Q(lease__gpu_seconds__gt=0),
        state=ContractState.FINAL,
        lease__job__venue=venue,
        paid_micro__gt=0,
    ).annotate(
        seller=Coalesce(NullIf(f"{seller}__owner", Value("")), f"{seller}__name"),
        buyer=Coalesce(NullIf(f"{buyer}__owner", Value("")), f"{buyer}__name"),
    )
    others = rows.exclude(seller=F("buyer")).select_related("rules", seller)
    yield from others.order_by("settled_at", "pk").iterator(chunk_size=200)


def _issue(
    contract: Contract, issuance: Account, newest: Rules | None, now: datetime
) -> list[Posting]:
    """The group of one contract; none when it earns less than a micro-credit."""
    rules = contract.rules or newest
    earned = contribution_of(contract, rules, until=now)
    if rules is None or not earned.amount_micro:
        return []
    member = contract.lease.site.member
    purse = account(Account.Kind.MEMBER_EARNINGS, issuance.currency, now=now, member=member)
    amount = earned.amount_micro
    return [
        Posting(
            key=f"issue:contract:{contract.pk}",
            kind=EntryGroup.Kind.ISSUE,
            currency=issuance.currency,
            entries=[(issuance, -amount), (purse, amount)],
            memo="for GPU time given to others",
            contract_id=contract.pk,
            round_id=contract.round_id,
            facts={
                "gpu_ms": earned.gpu_ms,
                "per_gpu_hour_micro": earned.per_gpu_hour_micro,
                "rules": rules.version,
            },
        )
    ]


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
            carried = max(0, min(balance, balance - since.get(purse.pk, 0)))
            amount = faded_micro(carried, rules.decay_ppm)
            postings.append(
                Posting(
                    key=f"decay:{purse.pk}:{week}",
                    kind=EntryGroup.Kind.DECAY,
                    currency=venue.currency,
                    entries=[(purse, -amount), (issuance, amount)],
                    memo=f"carried over into {week}",
                    facts={
                        "carried_micro": carried,
                        "decay_ppm": rules.decay_ppm,
                        "rules": rules.version,
                    },
                )
            )
        return post_all(postings, now=now)


def _moved_since(begun: datetime, purses: list[UUID]) -> dict[UUID, int]:
    rows = Entry.objects.filter(account__in=purses, group__created_at__gte=begun)
    sums = rows.order_by().values_list("account").annotate(total=Sum("amount_micro"))
    return dict(sums)
