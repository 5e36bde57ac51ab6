"""A member's statement of a period: every purse of it and its tenants, opened, moved and closed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet, Sum

from federation.errors import BadInput, FieldProblem
from federation.models import Account, Entry, EntryGroup, Member, Venue
from federation.money import as_text
from federation.selectors.rules import rules_newest

MONTH = re.compile(r"((?:19[7-9]|[2-8][0-9]{2})[0-9])-(0[1-9]|1[0-2])\Z")  #: from 1970 on
COLUMNS = (
    *("at", "position", "kind", "key", "purse", "what", "amount", "balance", "currency"),
    *("quote", "quote_code", "quote_why"),
)


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """How a settlement stood to the quote that its job cites; all empty where none is cited."""

    id: str = ""
    code: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class PeriodLine:
    """One movement of one purse, in the order of the ledger's chain."""

    at: datetime
    position: int  #: in the chain; 0 = not linked yet
    kind: str
    key: str
    purse: str
    what: str
    amount_micro: int  #: + received, - paid
    balance_micro: int  #: of the purse, after it
    quote: QuoteLine = QuoteLine()


@dataclass(frozen=True, slots=True)
class PursePeriod:
    """One purse over a period, micro-credits."""

    purse: str
    opening_micro: int
    moved_micro: int

    @property
    def closing_micro(self) -> int:
        return self.opening_micro + self.moved_micro


@dataclass(frozen=True, slots=True)
class PeriodStatement:
    """All purses of one member and its tenants in `[since, until)`, in one currency."""

    member: str
    currency: str
    zone: str
    since: datetime
    until: datetime
    purses: tuple[PursePeriod, ...]
    lines: tuple[PeriodLine, ...]

    @property
    def opening_micro(self) -> int:
        return sum(purse.opening_micro for purse in self.purses)

    @property
    def closing_micro(self) -> int:
        return sum(purse.closing_micro for purse in self.purses)


def zone_of(venue: Venue) -> str:
    """The time zone whose midnight ends a month in a venue."""
    rules = rules_newest(venue)
    return rules.time_zone if rules else "UTC"


def month_of(text: str) -> tuple[int, int]:
    """Year and month of a text such as 2026-11. Raises BadInput for any other."""
    found = MONTH.match(text)
    if found is None:
        raise BadInput(FieldProblem("month", "a month such as 2026-11 is expected"))
    return int(found[1]), int(found[2])


def month_bounds(year: int, month: int, zone: str) -> tuple[datetime, datetime]:
    """The first instant of a month and of the next one, as the clocks of a zone show them."""
    place = ZoneInfo(zone)
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return datetime(year, month, 1, tzinfo=place), datetime(*following, 1, tzinfo=place)


def month_statement(member: Member, *, venue: Venue, year: int, month: int) -> PeriodStatement:
    """A member's statement of one month in a venue's time zone and currency."""
    zone = zone_of(venue)
    since, until = month_bounds(year, month, zone)
    return period_statement(member, currency=venue.currency, since=since, until=until, zone=zone)


def period_statement(
    member: Member, *, currency: str, since: datetime, until: datetime, zone: str = "UTC"
) -> PeriodStatement:
    """A member's statement for `[since, until)`. Opening plus what moved is the closing balance."""
    accounts = list(
        Account.objects.filter(Q(member=member) | Q(tenant__member=member), currency=currency)
        .select_related("member", "tenant")
        .order_by("kind", "tenant__name")
    )
    names = {purse.pk: _purse_name(purse) for purse in accounts}
    entries = Entry.objects.filter(account__in=accounts)
    balances = _sums(entries.filter(group__created_at__lt=since))
    moved = _sums(entries.filter(group__created_at__gte=since, group__created_at__lt=until))
    purses = tuple(
        PursePeriod(names[a.pk], balances.get(a.pk, 0), moved.get(a.pk, 0)) for a in accounts
    )
    rows = entries.filter(group__created_at__gte=since, group__created_at__lt=until)
    lines = tuple(_lines(rows, names, dict(balances), ZoneInfo(zone)))
    return PeriodStatement(member.name, currency, zone, since, until, purses, lines)


def _purse_name(purse: Account) -> str:
    owner = purse.tenant or purse.member
    return f"{purse.kind} {owner.name if owner else ''}".strip()


def _sums(entries: QuerySet[Entry]) -> dict[Any, int]:
    sums = entries.order_by().values_list("account").annotate(total=Sum("amount_micro"))
    return dict(sums)


def _lines(
    entries: QuerySet[Entry], names: dict[Any, str], balances: dict[Any, int], zone: ZoneInfo
) -> Iterator[PeriodLine]:
    rows = entries.select_related(
        "account",
        "group__link",
        "group__contract__lease__job",
        "group__contract__lease__site",
        "group__round",
    ).defer("group__round__clearing")
    found = list(rows.order_by("group__created_at", "group__link__position", "pk"))
    charges = _charges(found)
    for entry in found:
        balances[entry.account_id] = balances.get(entry.account_id, 0) + entry.amount_micro
        link = getattr(entry.group, "link", None)
        yield PeriodLine(
            at=entry.group.created_at.astimezone(zone),
            position=link.position if link else 0,
            kind=entry.group.kind,
            key=entry.group.key,
            purse=names[entry.account_id],
            what=_what(entry),
            amount_micro=entry.amount_micro,
            balance_micro=balances[entry.account_id],
            quote=_quote(entry.group) if entry.pk in charges else QuoteLine(),
        )


def _charges(entries: Sequence[Entry]) -> set[int]:
    """Of each settlement the line that charges the buyer: of its escrow, in a correction that
    leaves the escrow alone of its cash. The seller's lines, and refunds, were never quoted."""
    found: dict[UUID, Entry] = {}
    for entry in entries:
        kind = entry.account.kind
        if kind == Account.Kind.TENANT_ESCROW:
            found[entry.group_id] = entry
        elif kind == Account.Kind.TENANT_CASH:
            found.setdefault(entry.group_id, entry)
    return {entry.pk for entry in found.values()}


def _quote(group: EntryGroup) -> QuoteLine:
    said = group.facts.get("quote") if group.kind == EntryGroup.Kind.SETTLE else None
    return QuoteLine(said["id"], said["code"], said["why"]) if said else QuoteLine()


def _what(entry: Entry) -> str:
    contract = entry.group.contract
    if contract is not None:
        lease = contract.lease
        return f"{lease.job.name} at {lease.site.name}, contract {contract.sequence}"
    if entry.group.round is not None:
        return f"round {entry.group.round.number}"
    return entry.group.memo


def statement_csv(statement: PeriodStatement) -> Iterator[str]:
    """The statement as lines of a table: openings, movements, closings. Amounts as decimal text."""
    since, until = statement.since.isoformat(), statement.until.isoformat()
    yield row_text(COLUMNS)
    for purse in statement.purses:
        yield _edge(since, "opening", purse.purse, purse.opening_micro, statement.currency)
    for line in statement.lines:
        yield row_text(
            (
                *(line.at.isoformat(), line.position, line.kind, line.key, line.purse),
                *(unlike_a_formula(line.what), as_text(line.amount_micro)),
                *(as_text(line.balance_micro), statement.currency),
                *(line.quote.id, line.quote.code, line.quote.why),
            )
        )
    for purse in statement.purses:
        yield _edge(until, "closing", purse.purse, purse.closing_micro, statement.currency)


def _edge(at: str, kind: str, purse: str, balance_micro: int, currency: str) -> str:
    row = (at, "", kind, "", purse, "", "", as_text(balance_micro), currency)
    return row_text((*row, "", "", ""))


def statement_document(statement: PeriodStatement) -> dict[str, Any]:
    """The statement as a JSON document. Amounts are whole micro-credits."""
    return {
        "format": "hanse.statement/1",
        "member": statement.member,
        "currency": statement.currency,
        "time_zone": statement.zone,
        "since": statement.since.isoformat(),
        "until": statement.until.isoformat(),
        "opening_micro": statement.opening_micro,
        "closing_micro": statement.closing_micro,
        "purses": [
            {
                "purse": purse.purse,
                "opening_micro": purse.opening_micro,
                "moved_micro": purse.moved_micro,
                "closing_micro": purse.closing_micro,
            }
            for purse in statement.purses
        ],
        "lines": [
            {
                "at": line.at.isoformat(),
                "position": line.position,
                "kind": line.kind,
                "key": line.key,
                "purse": line.purse,
                "what": line.what,
                "amount_micro": line.amount_micro,
                "balance_micro": line.balance_micro,
                **_quote_document(line.quote),
            }
            for line in statement.lines
        ],
    }


def _quote_document(quote: QuoteLine) -> dict[str, Any]:
    return {"quote": quote.id or None, "quote_code": quote.code, "quote_why": quote.why}


def row_text(values: tuple[object, ...]) -> str:
    """One line of a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


def unlike_a_formula(text: str) -> str:
    """A spreadsheet must not take a name that a tenant chose for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
