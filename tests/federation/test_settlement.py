"""Settlement of contracts through the services: who is paid what, and when it is final."""

from __future__ import annotations

import pytest

from federation.errors import Refused
from federation.machines.lease import LIVE
from federation.models import Contract, EntryGroup, Event, Job, Lease, Member, Rules, SiteRecord
from federation.selectors.contracts import recompute
from federation.services.contracts import (
    contract_open,
    contracts_finalise,
    contracts_hold_over,
    contracts_measure,
    contracts_settle,
    last_laps,
)
from federation.services.leases import Ending, lease_end
from federation.services.reports import reports_accept
from federation.services.rules import bond_rates, rules_of
from tests.federation.contract_scene import EXAMPLE, HOUR, a_scene, purse, the_ledger_holds
from tests.support.world import (
    NOW,
    a_job,
    a_member,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    pay,
)


@pytest.fixture
def db_scene(db):
    return a_scene()


def test_ninety_two_percent_of_the_example_to_the_micro_credit(db_scene):
    scene = db_scene
    assert scene.contract.bond_micro == 13_398_400
    scene.say(3600, 2_384_640, gpu_seconds=8 * HOUR)
    scene.next(3660)
    scene.say(3661, 10, total=2_384_650)
    first = scene.contracts[0]
    tenant, member = scene.job.tenant, scene.agent.site.member
    cash, earned = purse("tenant_cash", tenant), purse("member_earnings", member)
    pay(later(3662))
    first.refresh_from_db()
    assert (first.state, first.cause, first.due) == ("settled", "site", 2_592_000)
    assert first.paid_micro == 61_632_640
    assert first.refunded_micro == 5_359_360
    assert first.penalty_micro == 1_004_880
    assert purse("tenant_cash", tenant) - cash == 5_359_360 + 1_004_880
    assert purse("member_earnings", member) - earned == 61_632_640 + 13_398_400 - 1_004_880
    assert purse("member_bond", member) == scene.contract.bond_micro  # the next contract's
    facts = EntryGroup.objects.get(key=f"settle:{first.pk}").facts
    assert (facts["delivered"], facts["due"], facts["cause"]) == (2_384_640, 2_592_000, "site")
    assert not any(isinstance(value, float) for value in facts.values())
    assert recompute(first).holds
    the_ledger_holds()


@pytest.mark.parametrize("extra", [0, 1, 10**9])
def test_more_than_was_sold_pays_the_same(db_scene, extra):
    scene = db_scene
    scene.say(3600, 2_592_000 + extra)
    scene.next(3660)
    scene.say(3661, 1, total=2_592_001 + extra)
    pay(later(3662))
    first = Contract.objects.get(pk=scene.contracts[0].pk)
    assert (first.paid_micro, first.penalty_micro, first.cause) == (66_992_000, 0, "none")
    assert first.accepted == first.contracted


def test_within_the_dead_band_there_is_no_penalty(db_scene):
    scene = db_scene
    scene.say(3600, 2_462_400)  # 95 % of what was sold
    scene.next(3660)
    scene.say(3661, 1, total=2_462_401)
    pay(later(3662))
    first = Contract.objects.get(pk=scene.contracts[0].pk)
    assert (first.paid_micro, first.penalty_micro) == (63_642_400, 0)


def test_a_job_that_ends_by_itself_pays_at_least_the_site_s_cost(db_scene):
    scene = db_scene
    scene.say(1800, 1_000, gpu_seconds=8 * 1800.0, ending=Ending("exited", 1))
    pay(later(1801))
    contract = scene.contract
    assert (contract.cause, contract.penalty_micro) == ("tenant", 0)
    assert contract.paid_micro == 1_500_000 * 4  # four GPU-hours at the reserve
    assert contract.refunded_micro == 66_992_000 - 6_000_000
    assert recompute(contract).holds
    the_ledger_holds()


def test_a_job_that_is_cancelled_while_it_runs_pays_at_least_the_site_s_cost(db_scene):
    scene = db_scene
    scene.say(900, 0, gpu_seconds=0.0)
    scene.ask_back(1800, "cancelled")
    scene.say(1810, 0, gpu_seconds=8 * HOUR / 2, ending=Ending("revoked"))
    pay(later(1811))
    assert (scene.contract.cause, scene.contract.paid_micro) == ("tenant", 6_000_000)


def test_the_gpu_time_of_a_contract_does_not_hang_on_the_order_of_reports(db):
    paid = []
    for swapped in (False, True):
        scene = a_scene()
        first = scene.contracts[0]
        scene.say(100, 1_000, gpu_seconds=10.0)
        before = scene.report(500_000, gpu_seconds=28_000.0, contract=first)
        scene.next(3660)
        after = scene.report(100, total=500_100, gpu_seconds=28_800.0)
        for report in (after, before) if swapped else (before, after):
            reports_accept(site=scene.agent.site, reports=[report], now=later(3700))
        scene.say(3800, 100, total=500_100, gpu_seconds=28_900.0, ending=Ending("exited", 0))
        pay(later(3900))
        paid.append([c.paid_micro for c in Contract.objects.filter(lease=scene.lease)])
    assert paid[0] == paid[1]
    assert paid[0][0] == 1_500_000 * 900 // 3600  # 900 GPU-seconds, newest contract first


@pytest.mark.parametrize("reason", ["declined", "driver_failed", "lost"])
def test_a_lease_that_its_site_never_starts_costs_the_bond(db_scene, reason):
    scene = db_scene
    scene.say(5, 0, ending=Ending(reason, message="no"))
    pay(later(6))
    contract = scene.contract
    assert (contract.state, contract.cause) == ("settled", "site")
    assert (contract.paid_micro, contract.refunded_micro) == (0, 66_992_000)
    assert contract.penalty_micro == contract.bond_micro == 13_398_400
    the_ledger_holds()


def test_a_share_of_the_bond_for_a_non_start_if_the_rules_say_so(db):
    a_venue(round_s=HOUR)
    rules = rules_of(a_venue(), NOW)
    next_rules = {**{f: getattr(rules, f) for f in ("venue",)}, "version": 2}
    type(rules).objects.create(
        **next_rules, actor="t", why="t", created_at=NOW, non_start_ppm=333_333
    )
    scene = a_scene()
    scene.say(5, 0, ending=Ending("declined"))
    pay(later(6))
    assert scene.contract.penalty_micro == -(-13_398_400 * 333_333 // 1_000_000)


def test_a_site_that_falls_silent_before_it_starts_has_not_started(db):
    scene = a_scene()
    lease = Lease.objects.get(pk=scene.lease.pk)
    lease_end(lease=lease, ending=Ending("fenced"), now=later(200))
    pay(later(201))
    assert scene.contract.penalty_micro == scene.contract.bond_micro


def test_a_lease_that_no_agent_got_is_void_and_costs_nobody_anything(db):
    scene = a_scene(taken=False)
    scene.ask_back(5, "outbid")
    pay(later(6))
    contract = scene.contract
    assert contract.state == "voided"
    assert (contract.paid_micro, contract.refunded_micro) == (0, 66_992_000)
    assert (contract.penalty_micro, purse("member_bond", scene.agent.site.member)) == (0, 0)
    scene.job.refresh_from_db()
    assert (scene.job.held_micro, scene.job.spent_micro) == (0, 0)
    assert recompute(contract).holds
    the_ledger_holds()


def test_rounds_that_pass_before_a_lease_is_withdrawn_cost_its_site_nothing(db):
    scene = a_scene(taken=False)
    scene.next(3660)
    scene.ask_back(7000, "site_silent")
    pay(later(7001))
    contracts = Contract.objects.filter(lease=scene.lease)
    assert {(c.state, c.refunded_micro, c.penalty_micro) for c in contracts} == {
        ("voided", 66_992_000, 0)
    }
    assert {c.final_at for c in contracts} == {later(7001)}
    for contract in contracts:
        assert recompute(contract).differences == ()
    the_ledger_holds()


def test_one_that_is_withdrawn_after_its_agent_got_it_costs_no_penalty(db_scene):
    scene = db_scene
    scene.ask_back(5, "outbid")
    scene.say(6, 0, ending=Ending("never_started"))
    pay(later(7))
    contract = scene.contract
    assert (contract.refunded_micro, contract.penalty_micro) == (66_992_000, 0)
    assert contract.state in ("settled", "voided")


def test_a_site_that_breaks_off_owes_all_that_was_sold(db_scene):
    scene = db_scene
    scene.say(1860, 1_296_000, gpu_seconds=4 * HOUR, ending=Ending("driver_failed"))
    pay(later(1861))
    contract = scene.contract
    assert (contract.cause, contract.due) == ("site", 2_592_000)
    assert contract.paid_micro == 33_496_000
    assert contract.penalty_micro == contract.bond_micro  # 22.5 % of the price, at most the bond


def test_a_hold_over_enlarges_the_bond_in_proportion(db_scene):
    scene = db_scene
    scene.say(3600, 2_592_000)
    [held_over] = contracts_hold_over(now=later(6000))
    contract = scene.contract
    assert held_over.pk == contract.pk
    assert (contract.payment_micro, contract.bond_micro) == (2 * 66_992_000, 2 * 13_398_400)
    assert purse("member_bond", scene.agent.site.member) == contract.bond_micro
    assert recompute(contract).holds
    the_ledger_holds()


def test_a_last_lap_enlarges_the_bond_in_proportion(db_scene):
    scene = db_scene
    scene.say(1800, 1_296_000)
    Job.objects.filter(pk=scene.job.pk).update(samples=1_296_000 + 1_296_000 + 3)
    assert len(last_laps(venue=a_venue(), now=later(1801))) == 1
    contract = scene.contract
    more = contract.payment_micro - 66_992_000
    assert more == 78  # three samples at the rate, rounded up
    assert contract.bond_micro == 13_398_400 + 78 * 13_398_400 // 66_992_000
    assert contract.to_end


def test_a_member_whose_credit_does_not_cover_a_bond_is_refused(db):
    member = a_member("alder")
    Member.objects.filter(pk=member.pk).update(credit_micro=13_398_399)
    with pytest.raises(Refused) as refusal:
        a_scene()
    assert refusal.value.code == "bond_not_covered"
    assert not EntryGroup.objects.filter(kind="hold").exists()


def test_an_award_whose_bond_is_not_covered_is_dropped_with_a_sentence(db):
    Member.objects.filter(pk=a_member("alder").pk).update(credit_micro=0)
    a_site("north")
    job = a_job(a_tenant("ann"))
    a_round(later(20))
    job.refresh_from_db()
    assert (job.state, job.outcome_code) == ("pending", "bond_not_covered")
    assert "bond" in job.outcome_why
    assert not Lease.objects.filter(state__in=sorted(LIVE)).exists()


def test_a_site_s_record_moves_the_rate_of_its_bonds(db):
    site = a_site("north", gpus=8)
    SiteRecord.objects.create(site=site, score=0.0, bond_ppm=1, updated_at=NOW)
    scene = a_scene(site=site)
    assert scene.contract.bond_micro == 66_992_000 * 60 // 100  # three times the rules' fifth


@pytest.mark.parametrize(("ppm", "rate"), [(0, 0), (100_000, 300_000), (900_000, 1_000_000)])
def test_new_rules_move_the_rate_of_a_site_with_a_record_at_once(db, ppm, rate):
    scene = a_scene()
    site = scene.agent.site
    SiteRecord.objects.create(site=site, score=0.0, bond_ppm=600_000, updated_at=NOW)
    first = rules_of(a_venue(), NOW)
    second = Rules.objects.create(
        venue=first.venue, version=2, actor="t", why="t", created_at=NOW, bond_ppm=ppm
    )
    assert bond_rates(second, [site.pk]) == {site.pk: rate}
    scene.next(3660)
    assert scene.contract.bond_micro == 66_992_000 * rate // 1_000_000


def test_a_probe_has_neither_rules_nor_bond(db):
    scene = a_scene()
    probe = contract_open(
        lease=scene.lease,
        round=None,
        price_micro=10,
        contracted=1000,
        payment_micro=100,
        ends_at=None,
        now=later(2),
        basis=Contract.Basis.GPU_MS,
    )
    assert (probe.rules, probe.bond_micro) == (None, 0)
    scene.contracts.append(probe)
    scene.say(5, 0, gpu_seconds=0.4, ending=Ending("exited", 1))
    pay(later(6))
    probe.refresh_from_db()
    assert (probe.state, probe.paid_micro, probe.refunded_micro) == ("settled", 40, 60)
    assert (probe.cause, probe.due) == ("", None)


def test_a_round_s_contract_carries_the_reserve_and_the_rules_of_its_opening(db):
    a_site("north", reserve="7")
    a_job(a_tenant("ann"))
    a_round(later(20))
    contract = Contract.objects.get()
    assert contract.reserve_micro == 7_000_000
    assert contract.rules == rules_of(a_venue(), NOW)
    assert contract.bond_micro == contract.payment_micro // 5
    found = recompute(contract)
    assert found.holds
    assert not found.unchecked


def test_a_contract_is_final_when_its_window_is_over(db_scene):
    scene = db_scene
    scene.say(5, 0, ending=Ending("declined"))
    pay(later(6))
    window = 3 * 86400
    assert scene.contract.final_at == later(6 + window)
    assert contracts_finalise(now=later(5 + window)) == []
    assert [c.pk for c in contracts_finalise(now=later(6 + window))] == [scene.contract.pk]
    assert scene.contract.state == "final"
    assert Event.objects.filter(subject="contract", event="finalise").count() == 1


def test_nothing_is_measured_twice(db_scene):
    scene = db_scene
    scene.say(5, 0, ending=Ending("declined"))
    assert len(contracts_measure(now=later(6))) == 1
    assert contracts_measure(now=later(6)) == []
    assert len(contracts_settle(now=later(6))) == 1
    assert contracts_settle(now=later(6)) == []
    assert scene.contract.postings == 1
    assert EXAMPLE["payment_micro"] == scene.contract.payment_micro
