"""Write side of the ledger: balanced groups of entries, each posted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F

from federation.errors import Refused
from federation.models import (
    Account,
    Contract,
    Entry,
    EntryGroup,
    Member,
    Round,
    Tenant,
    Venue,
)
from federation.money import MAX_MICRO, as_text
from federation.services.story import tell

_NEVER_NEGATIVE = (Account.Kind.TENANT_CASH, Account.Kind.TENANT_ESCROW)


def account(
    kind: str,
    currency: str,
    *,
    now: datetime,
    tenant: Tenant | None = None,
    member: Member | None = None,
) -> Account:
    """The one account of its kind and owner, opened when first needed."""
    found, _ = Account.objects.get_or_create(
        kind=kind, currency=currency, tenant=tenant, member=member, defaults={"created_at": now}
    )
    return found


def post(
    *,
    key: str,
    kind: str,
    currency: str,
    entries: Iterable[tuple[Account, int]],
    now: datetime,
    memo: str = "",
    contract: Contract | None = None,
    round: Round | None = None,
) -> bool:
    """Post one group that sums to zero. False when `key` is posted already: a repeat is free.

    Raises Refused("insufficient_funds") when a tenant's purse would go below zero; nothing is
    written then.
    """
    sums: dict[Account, int] = defaultdict(int)
    for purse, amount in entries:
        sums[purse] += amount
    moves = sorted(
        ((purse, amount) for purse, amount in sums.items() if amount), key=lambda m: m[0].pk
    )
    if sum(amount for _, amount in moves):
        raise ValueError(f"entries of {key} do not sum to zero")
    if not moves or EntryGroup.objects.filter(key=key).exists():
        return False
    try:
        with transaction.atomic():
            group = EntryGroup.objects.create(
                key=key,
                kind=kind,
                currency=currency,
                memo=memo,
                contract=contract,
                round=round,
                created_at=now,
            )
            for purse, amount in moves:
                _move(purse, amount)
            Entry.objects.bulk_create(
                Entry(group=group, account=purse, amount_micro=amount) for purse, amount in moves
            )
    except IntegrityError:
        if EntryGroup.objects.filter(key=key).exists():
            return False  # another worker posted it between the look and the write
        raise
    return True


def _move(purse: Account, amount: int) -> None:
    rows = Account.objects.filter(pk=purse.pk)
    if amount < 0 and purse.kind in _NEVER_NEGATIVE:
        rows = rows.filter(balance_micro__gte=-amount)
    if not rows.update(balance_micro=F("balance_micro") + amount):
        raise Refused(
            f"{purse} holds less than the {as_text(-amount)} that are needed.",
            code="insufficient_funds",
        )


def deposit(
    *, tenant: Tenant, venue: Venue, amount_micro: int, key: str, actor: str, now: datetime
) -> bool:
    """Give a tenant funds: a deposit in a cash venue, an issue in a credits venue. Audited."""
    if not 0 < amount_micro <= MAX_MICRO:
        raise Refused(
            "A deposit is a positive sum of at most a milliard credits.", code="bad_amount"
        )
    if not 1 <= len(key) <= 120:
        raise Refused("The key of a deposit has 1 to 120 characters.", code="bad_key")
    earlier = Entry.objects.filter(
        group__key=f"deposit:{tenant.pk}:{key}", amount_micro__gt=0
    ).first()
    if earlier is not None and earlier.amount_micro != amount_micro:
        raise Refused(
            f"This key was used for {as_text(earlier.amount_micro)}, not {as_text(amount_micro)}.",
            code="deposit_conflict",
        )
    cash = venue.currency == Venue.Currency.CASH
    with transaction.atomic():
        posted = post(
            key=f"deposit:{tenant.pk}:{key}",
            kind=EntryGroup.Kind.DEPOSIT if cash else EntryGroup.Kind.ISSUE,
            currency=venue.currency,
            entries=[
                (account(Account.Kind.ISSUANCE, venue.currency, now=now), -amount_micro),
                (
                    account(Account.Kind.TENANT_CASH, venue.currency, now=now, tenant=tenant),
                    amount_micro,
                ),
            ],
            now=now,
            memo=f"by {actor}",
        )
        if posted:
            tell(
                "tenant",
                tenant.pk,
                "deposit" if cash else "issue",
                now=now,
                actor=actor,
                why=f"{as_text(amount_micro)} {venue.currency}",
            )
    return posted


def escrow_hold(*, contract: Contract, amount_micro: int, key: str, now: datetime) -> None:
    """Move a contract's price from the tenant's free funds into escrow."""
    job = contract.lease.job
    currency = job.venue.currency
    post(
        key=key,
        kind=EntryGroup.Kind.HOLD,
        currency=currency,
        entries=[
            (
                account(Account.Kind.TENANT_CASH, currency, now=now, tenant=job.tenant),
                -amount_micro,
            ),
            (
                account(Account.Kind.TENANT_ESCROW, currency, now=now, tenant=job.tenant),
                amount_micro,
            ),
        ],
        now=now,
        contract=contract,
        round=contract.round,
    )


def escrow_settle(*, contract: Contract, pay_micro: int, refund_micro: int, now: datetime) -> bool:
    """Empty a contract's escrow: the site's member is paid, the tenant gets the rest back."""
    job = contract.lease.job
    currency = job.venue.currency
    return post(
        key=f"settle:{contract.pk}",
        kind=EntryGroup.Kind.SETTLE,
        currency=currency,
        entries=[
            (
                account(Account.Kind.TENANT_ESCROW, currency, now=now, tenant=job.tenant),
                -(pay_micro + refund_micro),
            ),
            (
                account(Account.Kind.TENANT_CASH, currency, now=now, tenant=job.tenant),
                refund_micro,
            ),
            (
                account(
                    Account.Kind.MEMBER_EARNINGS,
                    currency,
                    now=now,
                    member=contract.lease.site.member,
                ),
                pay_micro,
            ),
        ],
        now=now,
        contract=contract,
        round=contract.round,
    )


def stability_transfer(*, round: Round, transfers: dict[Member, int], now: datetime) -> bool:
    """The core repair of a gang round: zero-sum between members, on their earnings."""
    currency = round.venue.currency
    return post(
        key=f"stability:{round.pk}",
        kind=EntryGroup.Kind.STABILITY,
        currency=currency,
        entries=[
            (account(Account.Kind.MEMBER_EARNINGS, currency, now=now, member=member), amount)
            for member, amount in transfers.items()
        ],
        now=now,
        round=round,
    )
