"""Write side of the ledger: what moves money, by the event that causes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from federation.errors import Refused
from federation.models import (
    Account,
    Contract,
    Entry,
    EntryGroup,
    Epoch,
    Job,
    Member,
    Round,
    Rules,
    Venue,
)
from federation.money import as_text
from federation.services.entries import Floor, Posting, account, post_all
from federation.services.funds import deposit, member_deposit, member_withdraw, withdraw
from federation.services.story import tell

__all__ = [
    "Posting",
    "account",
    "credit_limit",
    "deposit",
    "dividend_post",
    "earnest_hold",
    "earnest_release",
    "escrow_hold",
    "escrow_settle",
    "member_deposit",
    "member_withdraw",
    "post",
    "post_all",
    "reverse",
    "stability_transfer",
    "withdraw",
]
Kind = Account.Kind
#: kinds that no contract and no job reckons with: a mistake in one is taken back by its opposite
REVERSIBLE = frozenset(
    (
        *(EntryGroup.Kind.DEPOSIT, EntryGroup.Kind.ISSUE, EntryGroup.Kind.WITHDRAWAL),
        *(EntryGroup.Kind.STABILITY, EntryGroup.Kind.DIVIDEND, EntryGroup.Kind.DECAY),
    )
)


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
    facts: Mapping[str, Any] | None = None,
    reverses: EntryGroup | None = None,
    floors: Mapping[UUID, Floor] | None = None,
) -> bool:
    """Post one group that sums to zero. False when `key` is posted already: a repeat is free.

    Raises Refused("insufficient_funds") when a tenant's purse or a bond would go below zero;
    nothing is written then.
    """
    posting = Posting(
        key=key,
        kind=kind,
        currency=currency,
        entries=list(entries),
        memo=memo,
        contract_id=contract.pk if contract else None,
        round_id=round.pk if round else None,
        reverses_id=reverses.pk if reverses else None,
        facts=facts or {},
        floors=floors or {},
    )
    return post_all([posting], now=now) == 1


def credit_limit(member: Member, venue: Venue) -> int:
    """How far a member's earnings may go below zero for its bonds, micro-credits."""
    if member.credit_micro is not None:
        return member.credit_micro
    rules = Rules.objects.filter(venue=venue).order_by("-version").first()
    return (rules or Rules()).member_credit_micro


def bond_floor(member: Member, bond_micro: int, credit_micro: int) -> Floor:
    """How far earnings may fall for a bond."""
    return Floor(
        -credit_micro,
        "bond_not_covered",
        f"{member} cannot cover a bond of {as_text(bond_micro)}: its earnings may go no further "
        f"below zero than {as_text(credit_micro)}.",
    )


def escrow_hold(
    *,
    contract: Contract,
    amount_micro: int,
    key: str,
    now: datetime,
    bond_micro: int = 0,
    earnest_micro: int = 0,
) -> bool:
    """Hold a contract's price and the seller's bond, in one group.

    The price goes from the tenant's free funds into escrow, less the job's earnest money that is
    there already (the caller clears `Job.earnest_micro`); the bond from the seller's earnings.
    Raises Refused("insufficient_funds") or ("bond_not_covered").
    """
    job = contract.lease.job
    currency, more = job.venue.currency, amount_micro - earnest_micro
    entries = [
        (account(Kind.TENANT_CASH, currency, now=now, tenant=job.tenant), -more),
        (account(Kind.TENANT_ESCROW, currency, now=now, tenant=job.tenant), more),
    ]
    floors = {}
    if bond_micro:
        member = contract.lease.site.member
        earnings = account(Kind.MEMBER_EARNINGS, currency, now=now, member=member)
        bond = account(Kind.MEMBER_BOND, currency, now=now, member=member)
        entries += [(earnings, -bond_micro), (bond, bond_micro)]
        floors[earnings.pk] = bond_floor(member, bond_micro, credit_limit(member, job.venue))
    return post(
        key=key,
        kind=EntryGroup.Kind.HOLD,
        currency=currency,
        entries=entries,
        now=now,
        contract=contract,
        round=contract.round,
        floors=floors,
    )


def escrow_settle(
    *,
    contract: Contract,
    pay_micro: int,
    refund_micro: int,
    now: datetime,
    penalty_micro: int = 0,
    bond_back_micro: int = 0,
    posting: int = 1,
    facts: Mapping[str, Any] | None = None,
) -> bool:
    """Divide a contract's escrow and bond, in one group.

    Of the escrow the seller gets the pay and the tenant the refund; of the bond the tenant gets
    the penalty and the seller the rest. A later `posting` moves what differs from the ones before
    it and names the last of them as reversed, so that nobody must have the whole sum at hand for
    a small correction. False when that posting is made already, or nothing differs.
    """
    job, member = contract.lease.job, contract.lease.site.member
    currency = job.venue.currency

    def purse(kind: str) -> Account:
        tenant = job.tenant if kind.startswith("tenant_") else None
        owner = member if tenant is None else None
        return account(kind, currency, now=now, tenant=tenant, member=owner)

    amounts = {
        Kind.TENANT_ESCROW: -(pay_micro + refund_micro),
        Kind.TENANT_CASH: refund_micro + penalty_micro,
        Kind.MEMBER_EARNINGS: pay_micro + bond_back_micro,
        Kind.MEMBER_BOND: -(penalty_micro + bond_back_micro),
    }
    entries = [(purse(kind), amount) for kind, amount in amounts.items() if amount]
    last = None
    if posting > 1:
        last = _last_settlement(contract)
        entries += [(row, -amount) for row, amount in _settled(contract).items()]
    return post(
        key=f"settle:{contract.pk}" if posting == 1 else f"settle:{contract.pk}:{posting}",
        kind=EntryGroup.Kind.SETTLE,
        currency=currency,
        entries=entries,
        now=now,
        contract=contract,
        round=contract.round,
        facts=facts,
        reverses=last,
    )


def _last_settlement(contract: Contract) -> EntryGroup | None:
    """The settlement that stands: no later group reverses it."""
    rows = EntryGroup.objects.filter(
        contract=contract, kind=EntryGroup.Kind.SETTLE, reversed_by__isnull=True
    )
    return rows.order_by("-created_at", "-id").first()


def _settled(contract: Contract) -> dict[Account, int]:
    """What a contract's settlements and their reversals have moved so far."""
    moved: dict[Account, int] = defaultdict(int)
    rows = Entry.objects.filter(
        group__contract=contract,
        group__kind__in=[EntryGroup.Kind.SETTLE, EntryGroup.Kind.REVERSAL],
    )
    for entry in rows.select_related("account"):
        moved[entry.account] += entry.amount_micro
    return moved


def reverse(*, group: EntryGroup, key: str, memo: str, actor: str, now: datetime) -> bool:
    """Take a group back by its opposite, once. Audited; False when `key` is posted already.

    Raises Refused("not_reversible") for what a contract or a job still reckons with (hold, earnest
    money, its release, settlement) and for a reversal, ("already_reversed") when another group took
    it back, ("reversal_conflict") when the key is of another group, ("no_reason") without a memo,
    and ("insufficient_funds") when what it gave is spent.
    """
    _reversible(group, memo)
    with transaction.atomic():
        # one after the other: whoever was first has taken the money that the next would miss
        EntryGroup.objects.select_for_update(of=("self",)).get(pk=group.pk)
        if _reversed(group, key):
            return False
        entries = group.entries.select_related("account__tenant", "account__member")
        posted = post(
            key=key,
            kind=EntryGroup.Kind.REVERSAL,
            currency=group.currency,
            entries=[(entry.account, -entry.amount_micro) for entry in entries],
            now=now,
            memo=memo,  # not its contract: a contract's reversals are part of its settlement
            round=group.round,
            reverses=group,
        )
        if posted:
            why = f"{group.key}: {memo}"
            tell("ledger", group.pk, "reverse", now=now, actor=actor, why=why)
    return posted


def _reversed(group: EntryGroup, key: str) -> bool:
    """Whether a group was taken back under this key; refused when it was under another."""
    earlier = EntryGroup.objects.filter(key=key).first()
    if earlier is not None and earlier.reverses_id != group.pk:
        raise Refused(f"The key {key} is of another group.", code="reversal_conflict")
    if earlier is None and EntryGroup.objects.filter(reverses=group).exists():
        raise Refused(f"{group.key} is taken back already.", code="already_reversed")
    return earlier is not None


def _reversible(group: EntryGroup, memo: str) -> None:
    if group.kind == EntryGroup.Kind.REVERSAL:
        raise Refused("A reversal is not reversed: post anew.", code="not_reversible")
    if group.kind not in REVERSIBLE:
        raise Refused(
            f"{group.key} is {group.get_kind_display()}, and its contract or job reckons with it: "
            "use a dispute.",
            code="not_reversible",
        )
    if not memo.strip() or len(memo) > 300:
        raise Refused("Say why, in at most 300 characters.", code="no_reason")


def earnest_hold(*, job: Job, amount_micro: int, now: datetime) -> bool:
    """Hold a job's earnest money in escrow from its submission on, and note it on the job.

    Raises Refused("insufficient_funds").
    """
    with transaction.atomic():
        posted = _earnest(job, "earnest", EntryGroup.Kind.EARNEST, amount_micro, now)
        if posted:
            Job.objects.filter(pk=job.pk).update(earnest_micro=amount_micro)
            job.earnest_micro = amount_micro
    return posted


def earnest_release(*, job: Job, now: datetime) -> bool:
    """Give a job's earnest money back: it ended before any contract took it up."""
    with transaction.atomic():
        held = Job.objects.select_for_update().values_list("earnest_micro", flat=True)
        amount = held.get(pk=job.pk)
        posted = _earnest(job, "release", EntryGroup.Kind.RELEASE, -amount, now)
        if posted:
            Job.objects.filter(pk=job.pk).update(earnest_micro=0)
            job.earnest_micro = 0
    return posted


def _earnest(job: Job, name: str, kind: str, amount_micro: int, now: datetime) -> bool:
    currency = job.venue.currency
    return post(
        key=f"{name}:{job.pk}",
        kind=kind,
        currency=currency,
        entries=[
            (account(Kind.TENANT_CASH, currency, now=now, tenant=job.tenant), -amount_micro),
            (account(Kind.TENANT_ESCROW, currency, now=now, tenant=job.tenant), amount_micro),
        ],
        now=now,
        memo=job.name,
        facts={"job": job.pk},
    )


def stability_transfer(*, round: Round, transfers: dict[Member, int], now: datetime) -> bool:
    """The core repair of a gang round: zero-sum between members, on their earnings."""
    currency = round.venue.currency
    return post(
        key=f"stability:{round.pk}",
        kind=EntryGroup.Kind.STABILITY,
        currency=currency,
        entries=_earnings(transfers, currency, now),
        now=now,
        round=round,
        facts={"clearing": round.clearing_sha256},
    )


def dividend_post(*, epoch: Epoch, transfers: dict[Member, int], now: datetime) -> bool:
    """The dividend of an epoch: zero-sum between members, on their earnings."""
    currency = epoch.venue.currency
    return post(
        key=f"dividend:{epoch.pk}",
        kind=EntryGroup.Kind.DIVIDEND,
        currency=currency,
        entries=_earnings(transfers, currency, now),
        now=now,
        memo=str(epoch)[:300],
        facts={"epoch": epoch.pk, "document": epoch.sha256},
    )


def _earnings(
    transfers: dict[Member, int], currency: str, now: datetime
) -> list[tuple[Account, int]]:
    return [
        (account(Kind.MEMBER_EARNINGS, currency, now=now, member=member), amount)
        for member, amount in transfers.items()
    ]
