"""The ledger: does it sum to zero, who owes whom, one member's period."""

from __future__ import annotations

import csv
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from broker.console.access import operator_only
from broker.console.pages import day, day_after, page_of, show
from federation.models import Account, EntryGroup, Member, Venue
from federation.money import as_text
from federation.selectors import console_ledger as reads
from federation.selectors.accounts import Statement, statement, trial_balance

TRAIL = ("console-ledger", "Ledger")


@operator_only
def ledger(request: HttpRequest) -> HttpResponse:
    """Every purse and every group of entries; the sum is zero, or says so in red."""
    kind = request.GET.get("kind", "")
    context = {
        "trial": trial_balance(),
        "accounts": reads.accounts_all(),
        "page": page_of(request, reads.groups_found(kind)),
        "kind": kind,
        "kinds": EntryGroup.Kind.choices,
        "members": Member.objects.values_list("name", flat=True),
    }
    return show(request, "console/ledger.html", "Ledger", context)


@operator_only
def account_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    account = get_object_or_404(Account.objects.select_related("tenant", "member"), pk=pk)
    context = {"account": account, "page": page_of(request, reads.entries_of(account))}
    return show(request, "console/account.html", str(account), context, trail=(_trail(),))


@operator_only
def group_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    group = get_object_or_404(reads.groups_found(), pk=pk)
    return show(
        request, "console/group.html", group.get_kind_display(), {"group": group}, trail=(_trail(),)
    )


def _trail() -> tuple[str, str]:
    return reverse(TRAIL[0]), TRAIL[1]


@operator_only
def statement_page(request: HttpRequest, name: str) -> HttpResponse:
    """One member's period, and where each sum comes from."""
    context = _statement(request, name)
    title = f"Statement of {name}"
    return show(request, "console/statement.html", title, context, trail=(_trail(),))


@operator_only
def statement_csv(request: HttpRequest, name: str) -> HttpResponse:
    """The same lines as a file; amounts are decimal text, signed from the member's side."""
    found: Statement = _statement(request, name)["statement"]
    file_name = f"statement-{name}-{found.currency}.csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{file_name}"'},
    )
    table = csv.writer(response)
    table.writerow(["at", "kind", "what", "amount", "currency", "contract"])
    for line in found.lines:
        contract = str(line.contract.pk) if line.contract else ""
        amount = as_text(line.amount_micro)
        what = _unlike_a_formula(line.what)
        table.writerow([line.at.isoformat(), line.kind, what, amount, found.currency, contract])
    return response


def _unlike_a_formula(text: str) -> str:
    """A spreadsheet must not take a name that a tenant chose for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _statement(request: HttpRequest, name: str) -> dict[str, Any]:
    member = get_object_or_404(Member, name=name)
    currency = request.GET.get("currency", "")
    if currency not in Venue.Currency.values:
        currency = Venue.objects.values_list("currency", flat=True).first() or Venue.Currency.CASH
    found = statement(
        member, currency=currency, since=day(request, "since"), until=day_after(request, "until")
    )
    return {
        "member": member,
        "statement": found,
        "page": page_of(request, list(found.lines[::-1])),
        "currencies": Venue.Currency.choices,
        "asked": {
            "since": request.GET.get("since", ""),
            "until": request.GET.get("until", ""),
            "currency": currency,
        },
    }
