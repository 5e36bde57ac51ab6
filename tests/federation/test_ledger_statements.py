"""Statements by the calendar of a zone, the ledger as a file, credits that fade."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.models import Contract, EntryGroup, Link, Member, Rules, Venue
from federation.selectors.contributions import week_of
from federation.selectors.exports import ledger_csv, ledger_json
from federation.selectors.ledger import verify
from federation.selectors.statements import (
    month_bounds,
    month_statement,
    period_statement,
    statement_csv,
    statement_document,
)
from federation.services import credits, ledger
from federation.services.rules import rules_of
from tests.federation.ledger_scene import (
    MICRO,
    a_contract,
    a_seller,
    balances,
    committed,
    some_history,
)
from tests.support.world import NOW, a_member, a_tenant, a_venue

db = pytest.mark.django_db


def rules(**fields):
    venue = a_venue()
    last = rules_of(venue, NOW)
    return Rules.objects.create(
        **{"venue": venue, "version": last.version + 1, "actor": "t", "why": "t"},
        **{"created_at": NOW, **fields},
    )


@pytest.mark.parametrize(
    ("year", "month", "zone", "since", "until", "hours"),
    [
        (2026, 3, "Europe/Berlin", "2026-02-28T23:00", "2026-03-31T22:00", 743),
        (2026, 10, "Europe/Berlin", "2026-09-30T22:00", "2026-10-31T23:00", 745),
        (2026, 12, "UTC", "2026-12-01T00:00", "2027-01-01T00:00", 744),
        (2026, 11, "Asia/Kolkata", "2026-10-31T18:30", "2026-11-30T18:30", 720),
    ],
)
def test_a_month_ends_at_midnight_of_its_zone(year, month, zone, since, until, hours):
    bounds = [at.astimezone(UTC) for at in month_bounds(year, month, zone)]
    assert [at.isoformat()[:16] for at in bounds] == [since, until]
    assert bounds[1] - bounds[0] == timedelta(hours=hours)


@given(
    st.integers(1, 12),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Tehran", "Australia/Lord_Howe"]),
)
def test_months_follow_each_other_without_a_gap(month, zone):
    end = month_bounds(2025, month, zone)[1]
    start = month_bounds(2025 + (month == 12), month % 12 + 1, zone)[0]
    assert end.astimezone(UTC) == start.astimezone(UTC)


@db
def test_a_deposit_at_the_turn_of_a_month_is_in_one_statement_only():
    rules(time_zone="Europe/Berlin")
    tenant, venue = a_tenant("ann", credits=0), a_venue()
    for hour, amount in ((21, 5), (22, 70)):
        ledger.deposit(
            **{"tenant": tenant, "venue": venue, "amount_micro": amount, "key": str(hour)},
            **{"actor": "t", "now": datetime(2026, 3, 31, hour, tzinfo=UTC)},
        )
    committed()
    march, april, may = (
        month_statement(tenant.member, venue=venue, year=2026, month=month) for month in (3, 4, 5)
    )
    assert [line.amount_micro for line in march.lines] == [5]
    assert [line.at.isoformat() for line in april.lines] == ["2026-04-01T00:00:00+02:00"]
    assert [(s.opening_micro, s.closing_micro) for s in (march, april, may)] == [
        (0, 5),
        (5, 75),
        (75, 75),
    ]
    assert march.purses[0].closing_micro == april.purses[0].opening_micro


def whole(member):
    since, until = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    return period_statement(member, currency="cash", since=since, until=until)


@db
def test_a_statement_closes_at_the_balances_and_sums_line_by_line():
    tenant = some_history()
    for member in (tenant.member, Member.objects.get(name="alder")):
        found = whole(member)
        assert found.lines
        for purse in found.purses:
            lines = [line for line in found.lines if line.purse == purse.purse]
            assert purse.opening_micro + sum(x.amount_micro for x in lines) == purse.closing_micro
            assert balances().get(purse.purse, 0) == purse.closing_micro
            assert not lines or lines[-1].balance_micro == purse.closing_micro
        assert [line.position for line in found.lines] == sorted(x.position for x in found.lines)


@db
def test_a_statement_is_a_table_and_a_document_with_the_same_lines():
    tenant = some_history()
    found = whole(tenant.member)
    table = list(csv.DictReader(io.StringIO("".join(statement_csv(found)))))
    document = json.loads(json.dumps(statement_document(found)))
    moved = [row for row in table if row["kind"] not in ("opening", "closing")]
    assert [row["key"] for row in moved] == [line["key"] for line in document["lines"]]
    for row, line in zip(moved, document["lines"], strict=True):
        assert round(float(row["amount"]) * MICRO) == line["amount_micro"]
        assert round(float(row["balance"]) * MICRO) == line["balance_micro"]
    closing = sum(float(row["balance"]) for row in table if row["kind"] == "closing")
    assert round(closing * MICRO) == document["closing_micro"] == found.closing_micro
    assert len(table) == len(moved) + 2 * len(document["purses"])


@db
def test_a_name_like_a_formula_is_no_formula_in_a_table():
    tenant = a_tenant("ann", credits=1)
    cash, escrow = (
        ledger.account(kind, "cash", now=NOW, tenant=tenant)
        for kind in ("tenant_cash", "tenant_escrow")
    )
    entries = [(cash, -1), (escrow, 1)]
    ledger.post(key="x", kind="earnest", currency="cash", entries=entries, now=NOW, memo="=1+1")
    committed()
    assert "'=1+1" in "".join(statement_csv(whole(tenant.member)))
    assert "'=1+1" in "".join(ledger_csv())


@db
def test_the_whole_ledger_is_a_table_and_a_document():
    some_history()
    table = list(csv.DictReader(io.StringIO("".join(ledger_csv()))))
    document = json.loads("".join(ledger_json()))
    assert len(document["groups"]) == Link.objects.count()
    assert document["heads"]["cash"]["digest"] == document["groups"][-1]["digest"]
    assert len(table) == sum(len(group["entries"]) for group in document["groups"])
    assert sum(round(float(row["amount"]) * MICRO) for row in table) == 0
    for group in document["groups"]:
        assert sum(entry["amount_micro"] for entry in group["entries"]) == 0
        stored = EntryGroup.objects.get(pk=group["id"])
        assert (stored.key, stored.facts) == (group["key"], group["facts"])
        assert datetime.fromisoformat(group["at"]) == stored.created_at


def a_credits_venue(**fields):
    venue = a_venue()
    Venue.objects.filter(pk=venue.pk).update(currency="credits")
    rules(**fields)
    return a_venue()


def a_final_contract(tenant, site, **fields):
    contract = a_contract(tenant, site)
    figures = {"state": "final", "gpu_seconds": 1800.0, "paid_micro": 50, "payment_micro": MICRO}
    Contract.objects.filter(pk=contract.pk).update(**{**figures, **fields})
    return contract


@db
def test_credits_are_issued_once_for_gpu_time_given_to_others():
    venue = a_credits_venue(issue_per_gpu_hour_micro=3 * MICRO)
    tenant, site = a_tenant("ann", credits=0), a_seller()
    ledger.deposit(tenant=tenant, venue=venue, amount_micro=MICRO, key="k", actor="t", now=NOW)
    a_final_contract(tenant, site)
    a_final_contract(tenant, site, gpu_seconds=7200.0)  # one hour was contracted
    a_final_contract(tenant, site, state="settled")
    own = a_tenant("own", member=site.member, credits=1)
    a_final_contract(own, site)
    issued = [credits.contributions_issue(venue=venue, now=NOW) for _ in range(2)]
    assert issued == [2, 0]
    assert balances("credits")["member_earnings alder"] == 3 * MICRO // 2 + 3 * MICRO
    committed()
    assert verify().findings == []


@db
def test_members_of_one_owner_issue_each_other_nothing():
    venue = a_credits_venue(issue_per_gpu_hour_micro=3 * MICRO)
    site = a_seller()
    Member.objects.filter(name="alder").update(owner="wood")
    Member.objects.create(name="elm", owner="wood", created_at=NOW)
    tenant = a_tenant("ann", member=a_member("elm"), credits=1)
    a_final_contract(tenant, site)
    assert credits.contributions_issue(venue=venue, now=NOW) == 0
    Member.objects.filter(name="elm").update(owner="alder")
    Member.objects.filter(name="alder").update(owner="")
    assert credits.contributions_issue(venue=venue, now=NOW) == 0
    Member.objects.filter(name="elm").update(owner="")
    assert credits.contributions_issue(venue=venue, now=NOW) == 1


@db
def test_unused_credits_fade_once_a_week_and_fresh_ones_do_not():
    venue = a_credits_venue(decay_ppm=20_000)
    tenant = a_tenant("ann", credits=0)
    monday = datetime(2026, 11, 16, tzinfo=UTC)

    def give(amount, at, key):
        ledger.deposit(tenant=tenant, venue=venue, amount_micro=amount, key=key, actor="t", now=at)

    give(1_000_049, monday - timedelta(seconds=1), "old")
    give(500, monday, "new")
    for hours, purses in ((0, 1), (5, 0), (7 * 24 - 1, 0), (7 * 24, 1)):
        at = monday + timedelta(hours=hours)
        assert credits.credits_decay(venue=venue, now=at) == purses
    first = 1_000_049 * 20_000 // MICRO
    left = 1_000_549 - first
    assert balances("credits")["tenant_cash ann"] == left - left * 20_000 // MICRO
    group = EntryGroup.objects.filter(kind="decay").earliest("created_at")
    assert group.facts == {"decay_ppm": 20_000, "carried_micro": 1_000_049, "rules": 2}
    assert sum(balances("credits").values()) == 0
    committed()
    assert verify().findings == []


@db
def test_what_was_spent_since_monday_does_not_fade():
    venue = a_credits_venue(decay_ppm=500_000)
    tenant = a_tenant("ann", credits=0)
    monday = datetime(2026, 11, 16, tzinfo=UTC)
    named = {"tenant": tenant, "venue": venue, "actor": "t"}
    ledger.deposit(amount_micro=100, key="k", now=monday - timedelta(days=1), **named)
    ledger.withdraw(amount_micro=60, key="k", now=monday, **named)
    ledger.deposit(amount_micro=7, key="l", now=monday, **named)
    assert credits.credits_decay(venue=venue, now=monday + timedelta(days=2)) == 1
    assert balances("credits")["tenant_cash ann"] == 47 - 47 // 2


def test_a_week_begins_on_monday_in_its_zone():
    sunday = datetime(2027, 1, 3, 23, 30, tzinfo=UTC)
    begun, week = week_of(sunday, "UTC")
    assert (week, begun.date().isoformat()) == ("2026-W53", "2026-12-28")
    begun, week = week_of(sunday, "Europe/Berlin")
    assert (week, begun.astimezone(UTC).isoformat()) == ("2027-W01", "2027-01-03T23:00:00+00:00")


@db
def test_cash_neither_fades_nor_is_issued_for_gpu_time():
    rules(issue_per_gpu_hour_micro=MICRO, decay_ppm=500_000)
    a_final_contract(a_tenant("ann", credits=1), a_seller())
    late = NOW + timedelta(days=30)
    assert credits.credits_decay(venue=a_venue(), now=late) == 0
    assert credits.contributions_issue(venue=a_venue(), now=late) == 0
