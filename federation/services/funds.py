"""Money in and out: deposits, issues and withdrawals, each with its line in the audit log."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from federation.errors import Refused
from federation.models import Account, Entry, EntryGroup, Member, Tenant, Venue
from federation.money import MAX_MICRO, as_text
from federation.selectors.accounts import at_stake_micro
from federation.services.entries import Floor, Posting, account, post_all
from federation.services.story import tell

Kind = Account.Kind


def deposit(
    *, tenant: Tenant, venue: Venue, amount_micro: int, key: str, actor: str, now: datetime
) -> bool:
    """Give a tenant funds: a deposit in a cash venue, an issue in a credits venue. Audited."""
    _check("deposit", amount_micro, key)
    purse = account(Kind.TENANT_CASH, venue.currency, now=now, tenant=tenant)
    return _into(purse, venue, amount_micro, key=key, actor=actor, now=now)


def member_deposit(
    *, member: Member, venue: Venue, amount_micro: int, key: str, actor: str, now: datetime
) -> bool:
    """Pay a member's earnings up, as cover for its bonds. Audited."""
    _check("deposit", amount_micro, key)
    purse = account(Kind.MEMBER_EARNINGS, venue.currency, now=now, member=member)
    return _into(purse, venue, amount_micro, key=key, actor=actor, now=now)


def withdraw(
    *, tenant: Tenant, venue: Venue, amount_micro: int, key: str, actor: str, now: datetime
) -> bool:
    """Pay a tenant free funds out. Audited; False when `key` was used for the same before.

    Raises Refused("insufficient_funds") for more than it has, ("not_final") for refunds that an
    objection may still take back.
    """
    _check("withdrawal", amount_micro, key)
    purse = account(Kind.TENANT_CASH, venue.currency, now=now, tenant=tenant)
    return _out(purse, amount_micro, key=key, actor=actor, now=now)


def member_withdraw(
    *, member: Member, venue: Venue, amount_micro: int, key: str, actor: str, now: datetime
) -> bool:
    """Pay a member earnings out. Audited; refused as `withdraw` is."""
    _check("withdrawal", amount_micro, key)
    purse = account(Kind.MEMBER_EARNINGS, venue.currency, now=now, member=member)
    return _out(purse, amount_micro, key=key, actor=actor, now=now)


def _into(
    purse: Account, venue: Venue, amount_micro: int, *, key: str, actor: str, now: datetime
) -> bool:
    cash = venue.currency == Venue.Currency.CASH
    kind = EntryGroup.Kind.DEPOSIT if cash else EntryGroup.Kind.ISSUE
    return _post(purse, amount_micro, "deposit", kind, key=key, actor=actor, now=now)


def _out(purse: Account, amount_micro: int, *, key: str, actor: str, now: datetime) -> bool:
    name, kind = "withdrawal", EntryGroup.Kind.WITHDRAWAL
    return _post(purse, -amount_micro, name, kind, key=key, actor=actor, now=now)


def _check(name: str, amount_micro: int, key: str) -> None:
    if not 0 < amount_micro <= MAX_MICRO:
        raise Refused(
            f"A {name} is a positive sum of at most a milliard credits.", code="bad_amount"
        )
    if not 1 <= len(key) <= 120:
        raise Refused(f"The key of a {name} has 1 to 120 characters.", code="bad_key")


def _post(
    purse: Account, moved: int, name: str, kind: str, *, key: str, actor: str, now: datetime
) -> bool:
    owner = purse.tenant or purse.member
    if owner is None:
        raise ValueError("nobody's purse is neither paid up nor paid out")
    full = f"{name}:{owner.pk}:{key}"
    earlier = Entry.objects.filter(group__key=full, account=purse).first()
    if earlier is not None and earlier.amount_micro != moved:
        amounts = as_text(abs(earlier.amount_micro)), as_text(abs(moved))
        code = "deposit_conflict" if moved > 0 else "withdrawal_conflict"
        raise Refused(f"This key was used for {amounts[0]}, not {amounts[1]}.", code=code)
    posting = Posting(
        key=full,
        kind=kind,
        currency=purse.currency,
        entries=[(account(Kind.ISSUANCE, purse.currency, now=now), -moved), (purse, moved)],
        memo=f"by {actor}",
        floors={purse.pk: _floor(purse, now)} if moved < 0 else {},
    )
    with transaction.atomic():
        posted = post_all([posting], now=now) == 1
        if posted:
            why = f"{as_text(abs(moved))} {purse.currency}"
            subject = "tenant" if purse.tenant else "member"
            tell(subject, owner.pk, str(kind), now=now, actor=actor, why=why)
    return posted


def _floor(purse: Account, now: datetime) -> Floor:
    """Nothing below zero, nor what an objection may still take back."""
    stake = at_stake_micro(purse, now)
    if not stake:
        return Floor(0, "insufficient_funds", f"{purse} holds less than is to be withdrawn.")
    return Floor(
        stake,
        "not_final",
        f"{purse} must keep {as_text(stake)}: objections to its contracts are still possible.",
    )
