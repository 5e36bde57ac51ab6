"""Every balance computed again, from the frozen rounds and the settlements' own figures.

Taken as given is only what came from outside (deposits, issues to them, withdrawals, earnest money,
and reversals). Prices and payments are computed from the clearings that the rounds have kept,
settlements from what was measured under each contract, transfers from clearings and epochs, credits
for GPU time from the reports, and their decay from the entries before it. Of a contract whose
settlement is disputed, the settlement stands as it was until the decision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, Sum

from economics.accounts import payment_micro
from federation.machines.contract import ContractState
from federation.models import Account, Contract, Entry, EntryGroup, Epoch, Round
from federation.selectors.contributions import decay_again, issue_again
from federation.selectors.figures import figures_of, word_of
from federation.selectors.quoted import quote_rebuilt, quote_stored
from federation.snapshot import unpack

Kind, Purse = EntryGroup.Kind, Account.Kind
GIVEN = (Kind.DEPOSIT, Kind.ISSUE, Kind.WITHDRAWAL, Kind.EARNEST, Kind.RELEASE)
CREDITS = Q(kind=Kind.ISSUE, contract__isnull=False) | Q(kind=Kind.DECAY)
SHOWN = 20  #: differences that are spelt out
Place = tuple[str, str, UUID | None]  #: kind of purse, currency, owner


@dataclass(slots=True)
class Replayed:
    """What was computed again and where it differs from the ledger."""

    contracts: int = 0
    settlements: int = 0
    rounds: int = 0
    quotes: int = 0  #: settled contracts held against the quotes that their jobs cite
    balances: dict[Place, int] = field(default_factory=lambda: defaultdict(int))
    problems: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.problems

    def note(self, finding: str) -> None:
        self.problems += 1
        if len(self.findings) < SHOWN:
            self.findings.append(finding)

    def move(self, kind: str, currency: str, owner: UUID | None, amount_micro: int) -> None:
        self.balances[kind, currency, owner] += amount_micro


def replay() -> Replayed:
    """Compute all balances again and compare them, purse by purse and settlement by settlement."""
    found = Replayed()
    _given(found)
    for contract in _contracts():
        _hold(found, contract)
        _settle(found, contract)
    _quotes(found)
    _clearings(found)
    _transfers(found)
    _credits(found)
    _compare(found)
    return found


def _given(found: Replayed) -> None:
    """What came from outside, and reversals of it."""
    kinds = [*GIVEN, Kind.REVERSAL]  # those of a contract are beside what they belong to
    rows = Entry.objects.filter(group__kind__in=kinds).exclude(
        group__kind__in=[Kind.ISSUE, Kind.REVERSAL], group__contract__isnull=False
    )
    for entry in rows.select_related("account").order_by("pk"):
        found.move(*place_of(entry.account), entry.amount_micro)


def place_of(account: Account) -> Place:
    """A purse by what it is for."""
    return account.kind, account.currency, account.tenant_id or account.member_id


def _contracts() -> Iterator[Contract]:
    rows = Contract.objects.select_related(
        *("lease__job__venue", "lease__job__tenant", "lease__site__member", "rules")
    )
    yield from rows.order_by("created_at", "pk").iterator(chunk_size=500)


def _hold(found: Replayed, contract: Contract) -> None:
    """The contract's own price and bond, as it was enlarged, less the earnest money it took up."""
    found.contracts += 1
    job, member = contract.lease.job, contract.lease.site.member_id
    currency = job.venue.currency
    groups = EntryGroup.objects.filter(contract=contract, kind=Kind.HOLD)
    moved = _moved(groups)
    held = moved.get(Purse.TENANT_ESCROW, 0)
    taken_up = contract.payment_micro - held
    if taken_up and taken_up != _earnest(job.pk):
        found.note(f"contract {contract.pk} costs {contract.payment_micro}, held are {held}")
    found.move(Purse.TENANT_CASH, currency, job.tenant_id, taken_up - contract.payment_micro)
    found.move(Purse.TENANT_ESCROW, currency, job.tenant_id, contract.payment_micro - taken_up)
    found.move(Purse.MEMBER_EARNINGS, currency, member, -contract.bond_micro)
    found.move(Purse.MEMBER_BOND, currency, member, contract.bond_micro)


def _earnest(job: UUID) -> int:
    """Earnest money that a job put into escrow and did not get back."""
    keys = [f"earnest:{job}", f"release:{job}"]
    return _moved(EntryGroup.objects.filter(key__in=keys)).get(Purse.TENANT_ESCROW, 0)


def _moved(groups: Any) -> dict[str, int]:
    """Kind of purse -> what some groups moved."""
    rows = Entry.objects.filter(group__in=groups).order_by().values_list("account__kind")
    return dict(rows.annotate(total=Sum("amount_micro")))


def _settle(found: Replayed, contract: Contract) -> None:
    """What the contract's measurements say, beside what its settlements moved in all."""
    groups = EntryGroup.objects.filter(contract=contract, kind__in=[Kind.SETTLE, Kind.REVERSAL])
    moved = {kind: amount for kind, amount in _moved(groups).items() if amount}
    expected = _settlement(contract)
    if expected is None:
        if moved:
            found.note(f"contract {contract.pk} is {contract.state} and was paid")
        return
    found.settlements += 1
    if moved != expected:
        found.note(f"contract {contract.pk}: computed {expected}, posted {moved}")
    job, currency = contract.lease.job, contract.lease.job.venue.currency
    for kind, amount in expected.items():
        tenant = kind in (Purse.TENANT_CASH, Purse.TENANT_ESCROW)
        owner = job.tenant_id if tenant else contract.lease.site.member_id
        found.move(kind, currency, owner, amount)


def _settlement(contract: Contract) -> dict[str, int] | None:
    """Kind of purse -> what the settlement moves; None while there is none."""
    if contract.state in (ContractState.HELD, ContractState.RUNNING, ContractState.MEASURED):
        return None
    if contract.state == ContractState.DISPUTED and not contract.postings:
        return None
    if contract.state == ContractState.DISPUTED:
        pay, penalty = contract.paid_micro or 0, contract.penalty_micro or 0
    else:
        outcome = figures_of(contract, word=word_of(contract)).outcome
        pay, penalty = outcome.pay_micro, outcome.penalty_micro
    amounts = {
        Purse.TENANT_ESCROW: -contract.payment_micro,
        Purse.TENANT_CASH: contract.payment_micro - pay + penalty,
        Purse.MEMBER_EARNINGS: pay + contract.bond_micro - penalty,
        Purse.MEMBER_BOND: -contract.bond_micro,
    }
    return {kind.value: amount for kind, amount in amounts.items() if amount}


def _quotes(found: Replayed) -> None:
    """Lines of jobs that cite quotes: each equals its quote, or the reason that it carries follows
    from the record. What a settlement says of a quote is in the chain, so it is asked too."""
    said = EntryGroup.objects.filter(
        contract=OuterRef("pk"), kind=Kind.SETTLE, facts__has_key="quote"
    )
    cites = Q(lease__job__quoted__isnull=False) | ~Q(quote_code="") | Exists(said)
    rows = Contract.objects.filter(cites, postings__gt=0).exclude(state=ContractState.DISPUTED)
    rows = rows.select_related("lease__job", "lease__site", "lease__pool__site", "round", "rules")
    for contract in rows.defer("round__clearing").order_by("created_at", "pk").iterator(500):
        found.quotes += 1
        rebuilt = quote_rebuilt(contract, figures_of(contract, word=word_of(contract)))
        stored = {
            "quote_code": contract.quote_code,
            "quote_why": contract.quote_why,
            "quote_facts": quote_stored(contract),
        }
        for name, value in rebuilt.items():
            if value != stored[name]:
                found.note(f"contract {contract.pk}: {name} is {stored[name]!r}, not {value!r}")


def _clearings(found: Replayed) -> None:
    """Payments and prices from the frozen clearings, beside the contracts made of them."""
    rows = Round.objects.filter(clearing__isnull=False, contracts__isnull=False).distinct()
    for round in rows.order_by("pk").iterator(chunk_size=10):
        found.rounds += 1
        clearing = unpack(bytes(round.clearing or b""))
        lines = {line["job"]: line for line in clearing["allocation"]}
        contracts = Contract.objects.filter(round=round, basis=Contract.Basis.SAMPLES)
        for contract in contracts.select_related("lease").order_by("pk"):
            line = lines.get(str(contract.lease.job_id))
            if line is None:
                found.note(f"contract {contract.pk}: its job has no line in round {round}")
                continue
            _price(found, contract, line, clearing["prices"][line["pool"]])


def _price(found: Replayed, contract: Contract, line: dict[str, Any], price: float) -> None:
    """A line costs price x GPU-hours, or what was left of its budget; a contract its part of it.

    A contract that was enlarged, or sold to the job's end, was rounded once for each part.
    """
    due, said = payment_micro(price, line["gpu_hours"]), int(line["payment_micro"])
    if said > due:
        found.note(f"contract {contract.pk}: the round says {said}, price x hours is {due}")
    samples = max(1, round(line["msamples"] * 1e6))
    exact = said * contract.contracted
    slack = 0 if contract.contracted == samples else (1 + contract.extensions) * samples
    if abs(contract.payment_micro * samples - exact) > slack:
        found.note(
            f"contract {contract.pk}: {contract.payment_micro} for {contract.contracted} samples, "
            f"the round sold {samples} for {said}"
        )


def _transfers(found: Replayed) -> None:
    """Transfers between members, from the clearings and the epochs that decided on them."""
    posted = EntryGroup.objects.filter(kind__in=[Kind.STABILITY, Kind.DIVIDEND])
    members = dict(
        Account.objects.filter(member__isnull=False).values_list("member__name", "member")
    )
    for group in posted.select_related("round").order_by("created_at", "pk"):
        amounts = _decided(group)
        moved = {
            entry.account.member.name: entry.amount_micro
            for entry in group.entries.select_related("account__member")
            if entry.account.member
        }
        if moved != amounts:
            found.note(f"group {group.key}: decided {amounts}, posted {moved}")
        for name, amount in amounts.items():
            found.move(Purse.MEMBER_EARNINGS, group.currency, members.get(name), amount)


def _decided(group: EntryGroup) -> dict[str, int]:
    """Member -> its transfer, as the clearing or the epoch of a group says."""
    document: dict[str, Any] = {}
    if group.round is not None and group.round.clearing:
        document = unpack(bytes(group.round.clearing))
    elif group.kind == Kind.DIVIDEND:
        epoch = Epoch.objects.filter(pk=group.key.removeprefix("dividend:")).first()
        document = epoch.document if epoch else {}
    transfers = document.get("transfers_micro", {})
    return {name: int(amount) for name, amount in transfers.items() if int(amount)}


def _credits(found: Replayed) -> None:
    """Credits issued for GPU time, by the reports; and those that faded, by the entries before."""
    rows = EntryGroup.objects.filter(CREDITS).select_related(
        *("contract__rules", "contract__lease__job", "contract__lease__site")
    )
    for group in rows.order_by("created_at", "pk").iterator(chunk_size=500):
        [entry] = group.entries.exclude(account__kind=Purse.ISSUANCE).select_related("account")
        purse = place_of(entry.account)
        if group.kind == Kind.DECAY:
            computed = -decay_again(group, entry.account_id)
        else:
            computed = issue_again(group)
            member = group.contract.lease.site.member_id if group.contract else None
            purse = (Purse.MEMBER_EARNINGS.value, group.currency, member)
        if computed != entry.amount_micro:
            found.note(f"group {group.key}: computed {computed}, posted {entry.amount_micro}")
        found.move(*purse, computed)
        found.move(Purse.ISSUANCE, group.currency, None, -computed)


def _compare(found: Replayed) -> None:
    for account in Account.objects.select_related("tenant", "member").order_by("pk"):
        computed = found.balances.get(place_of(account), 0)
        if computed != account.balance_micro:
            found.note(f"{account}: computed {computed}, it holds {account.balance_micro}")
