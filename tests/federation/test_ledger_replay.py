"""Credits for GPU time by the record alone, and all balances computed again from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from federation.models import Contract, Dispute, EntryGroup, Rules, Venue
from federation.selectors.replay import replay
from federation.services import credits, ledger
from federation.services.contracts import contracts_finalise
from federation.services.leases import Ending
from federation.services.reports import reports_accept
from federation.services.rules import rules_of
from tests.federation.contract_scene import SOLD, a_scene, count, decide, settled
from tests.federation.ledger_scene import MICRO, a_contract, a_seller, balances
from tests.support.world import NOW, a_tenant, a_venue, later, pay

pytestmark = pytest.mark.django_db


def new_rules(**fields):
    venue = a_venue()
    last = rules_of(venue, NOW)
    return Rules.objects.create(
        **{"venue": venue, "version": last.version + 1, "actor": "t", "why": "t"},
        **{"created_at": NOW, "decay_ppm": 0, **fields},
    )


def a_credits_venue(**fields):
    a_venue()
    Venue.objects.update(currency="credits")
    new_rules(**fields)
    return a_venue()


def a_final_contract(tenant, site, **fields):
    contract = a_contract(tenant, site)
    figures = {"state": "final", "gpu_seconds": 1800.0, "paid_micro": 50, "payment_micro": MICRO}
    Contract.objects.filter(pk=contract.pk).update(**{**figures, **fields})
    return contract


def two_contracts_of_one_lease(*, swapped):
    """Two contracts, the first one's last report before or after the second one's first."""
    scene = a_scene()
    first = scene.contracts[0]
    scene.say(100, 1000, gpu_seconds=10.0)
    before = scene.report(500_000, gpu_seconds=7 * 3600.0, contract=first)
    scene.next(3660)
    after = scene.report(100, total=500_100, gpu_seconds=8 * 3600.0)
    for report in (after, before) if swapped else (before, after):
        reports_accept(site=scene.agent.site, reports=[report], now=later(3700))
    total = {"total": 500_200, "gpu_seconds": 9 * 3600.0}
    scene.say(3800, 200, **total, ending=Ending("exited", 0))
    pay(later(3900))
    return scene.lease


@pytest.mark.parametrize("swapped", [False, True])
def test_credits_are_issued_by_the_reports_in_whatever_order_they_came(swapped):
    venue = a_credits_venue(issue_per_gpu_hour_micro=3 * MICRO)
    lease = two_contracts_of_one_lease(swapped=swapped)
    contracts_finalise(now=later(10**6))
    assert credits.contributions_issue(venue=venue, now=later(10**6)) == 2
    groups = EntryGroup.objects.filter(contract__lease=lease, kind="issue")
    facts = [group.facts for group in groups.order_by("contract__sequence")]
    assert [fact["gpu_ms"] for fact in facts] == [7 * 3_600_000, 2 * 3_600_000]
    assert [fact["rules"] for fact in facts] == [2, 2]
    assert replay().findings == []


def test_contracts_that_earn_nothing_hold_none_up():
    venue = a_credits_venue(issue_per_gpu_hour_micro=0)
    tenant, site = a_tenant("ann", credits=1), a_seller()
    free = Rules.objects.get(version=2)
    for at in range(3):
        a_final_contract(tenant, site, rules=free, settled_at=later(at))
    paying = new_rules(issue_per_gpu_hour_micro=3 * MICRO)
    short = {"gpu_seconds": 0.0001, "rules": paying}  # less than a GPU-millisecond
    for at in range(3, 6):
        a_final_contract(tenant, site, settled_at=later(at), **short)
    last = a_final_contract(tenant, site, rules=paying, settled_at=later(100))
    newest = a_final_contract(tenant, site, settled_at=later(101))
    issued = [credits.contributions_issue(venue=venue, now=NOW, limit=1) for _ in range(3)]
    assert issued == [1, 1, 0]
    groups = EntryGroup.objects.filter(kind="issue", contract__isnull=False)
    assert set(groups.values_list("contract", flat=True)) == {last.pk, newest.pk}


def test_a_replay_holds_with_credits_of_a_contract_taken_back():
    venue = a_credits_venue(issue_per_gpu_hour_micro=3 * MICRO)
    lease = two_contracts_of_one_lease(swapped=False)
    contracts_finalise(now=later(10**6))
    credits.contributions_issue(venue=venue, now=later(10**6))
    group = EntryGroup.objects.filter(contract__lease=lease, kind="issue").first()
    named = {"key": "r", "memo": "the site is the tenant's", "actor": "t", "now": later(10**6)}
    assert ledger.reverse(group=group, **named)
    assert replay().findings == []


def test_a_replay_takes_the_settlement_that_stands_while_it_is_disputed():
    scene = a_scene()
    contract = settled(scene)
    count(scene, SOLD // 2, at=4000)
    contract.refresh_from_db()
    assert (contract.state, contract.postings) == ("disputed", 1)
    assert replay().findings == []
    decide(Dispute.objects.get(contract=contract), SOLD // 2)
    assert replay().findings == []


def test_a_replay_sees_that_a_disputed_contract_was_paid_otherwise():
    scene = a_scene()
    contract = settled(scene)
    count(scene, SOLD // 2, at=4000)
    Contract.objects.filter(pk=contract.pk).update(paid_micro=1)
    assert not replay().holds


@pytest.mark.parametrize(("rate", "computed"), [(3 * MICRO, 1_500_000), (10**9, 0)])
def test_a_replay_sees_credits_that_no_gpu_time_earned(rate, computed):
    venue = a_credits_venue(issue_per_gpu_hour_micro=3 * MICRO)
    lease = two_contracts_of_one_lease(swapped=False)
    contracts_finalise(now=later(10**6))
    credits.contributions_issue(venue=venue, now=later(10**6))
    issuance = ledger.account("issuance", "credits", now=NOW)
    seller = lease.pool.site.member
    purse = ledger.account("member_earnings", "credits", now=NOW, member=seller)
    other = a_final_contract(a_tenant("bob", credits=1), lease.pool.site)
    unpaid = {"state": "held", "payment_micro": 0, "price_micro": 0}
    Contract.objects.filter(pk=other.pk).update(**unpaid)
    ledger.post(
        **{"key": f"issue:contract:{other.pk}", "kind": "issue", "currency": "credits"},
        **{"entries": [(issuance, -9), (purse, 9)], "now": later(10**6), "contract": other},
        facts={"gpu_ms": 1, "per_gpu_hour_micro": rate, "rules": 2},
    )
    finding = f"group issue:contract:{other.pk}: computed {computed}, posted 9"
    assert finding in replay().findings


def test_a_replay_computes_what_faded_from_the_entries_before():
    venue = a_credits_venue(decay_ppm=20_000, time_zone="Europe/Berlin")
    tenant = a_tenant("ann", credits=0)
    monday = datetime(2026, 11, 15, 23, tzinfo=UTC)
    give = {"tenant": tenant, "venue": venue, "actor": "t"}
    ledger.deposit(amount_micro=1_000_049, key="old", now=monday - timedelta(seconds=1), **give)
    ledger.deposit(amount_micro=500, key="new", now=monday, **give)
    ledger.withdraw(amount_micro=70_000, key="out", now=monday + timedelta(hours=1), **give)
    for weeks in (0, 1, 2):
        at = monday + timedelta(days=7 * weeks, hours=2)
        assert credits.credits_decay(venue=venue, now=at) == 1
    ledger.deposit(amount_micro=9, key="late", now=monday + timedelta(days=30), **give)
    assert replay().findings == []


def test_a_replay_sees_that_too_much_faded():
    venue = a_credits_venue(decay_ppm=20_000)
    tenant = a_tenant("ann", credits=0)
    give = {"tenant": tenant, "venue": venue, "actor": "t"}
    ledger.deposit(amount_micro=MICRO, key="old", now=NOW - timedelta(days=30), **give)
    purse = ledger.account("tenant_cash", "credits", now=NOW, tenant=tenant)
    issuance = ledger.account("issuance", "credits", now=NOW)
    credits.credits_decay(venue=venue, now=NOW)
    [honest] = EntryGroup.objects.filter(kind="decay")
    week = timedelta(days=7)
    ledger.post(
        key=honest.key.replace("W", "W9"),
        kind="decay",
        currency="credits",
        entries=[(purse, -50_000), (issuance, 50_000)],
        now=NOW + week,
        facts=honest.facts,
    )
    [finding, *purses] = replay().findings
    assert "computed 0, posted -50000" in finding
    assert len(purses) == 2
    assert balances("credits")["tenant_cash ann"] == MICRO - 20_000 - 50_000
