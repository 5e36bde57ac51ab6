"""What settled contracts say of a site: its record, its bonds, its alarms; and price caps."""

from __future__ import annotations

import json

import pytest

from federation.errors import Refused
from federation.models import (
    Alarm,
    Contract,
    Dispute,
    Job,
    Lease,
    Member,
    OfferAffinity,
    Rules,
    SiteRecord,
)
from federation.selectors.accounts import trial_balance
from federation.selectors.records import haircuts, recent_starts
from federation.services.affinity import affinity_refit
from federation.services.alarms import alarm_close
from federation.services.disputes import dispute_decide
from federation.services.guard import claims_review, open_claims
from federation.services.leases import Ending
from federation.services.records import RECENT, records_refit
from federation.snapshot import book_build
from tests.federation.test_guard import measured, run_one
from tests.support.world import (
    SimAgent,
    a_job,
    a_member,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    an_offer,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def north(db):
    return a_site("north", gpus=2, reserve="10", speeds={"cnn": 1000.0})


def contracts(site, tenant, speeds, start=20):
    """One settled contract of a lease of its own for each speed."""
    for at, speed in enumerate(speeds):
        begin = start + 15 * at
        job = a_job(tenant, value="90000", now=later(begin - 1))
        run_one(site, job, begin, speed=speed)
    records_refit(now=later(start + 15 * len(speeds)))
    return SiteRecord.objects.get(site=site)


def test_a_site_that_keeps_its_word_pays_smaller_bonds_and_one_that_does_not_larger_ones(north):
    south = a_site("south", gpus=2, reserve="10", speeds={"lm": 1000.0})
    ann = a_tenant("ann")
    honest = contracts(north, ann, [1000.0] * 6)
    assert (honest.contracts, honest.non_starts) == (6, 0)
    assert honest.log_ratio == pytest.approx(0.0)
    rate = Rules.objects.get().bond_ppm
    assert rate / 2 <= honest.bond_ppm < rate
    for at in range(6):
        job = a_job(ann, job_class="lm", value="90000", now=later(199))
        run_one(south, job, 200 + 15 * at, speed=500.0)
    records_refit(now=later(300))
    boaster = SiteRecord.objects.get(site=south)
    assert boaster.log_ratio < -0.6
    assert rate < boaster.bond_ppm <= 3 * rate


def test_a_record_is_counted_anew_so_a_repeat_changes_nothing(north):
    first = contracts(north, a_tenant("ann"), [1000.0, 900.0])
    SiteRecord.objects.update(score=0.1, contracts=99, log_ratio=1.0)
    assert records_refit(now=later(50 + 31))
    again = SiteRecord.objects.get()
    assert (again.contracts, again.log_ratio, again.score, again.bond_ppm) == (
        first.contracts,
        first.log_ratio,
        first.score,
        first.bond_ppm,
    )


def test_trade_with_oneself_earns_no_record_and_keeps_one_a_newcomer(north):
    Member.objects.filter(name="alder").update(owner="one hand")
    own = a_tenant("own", member=a_member("willow"))
    Member.objects.filter(name="willow").update(owner="one hand")
    record = contracts(north, own, [1000.0] * 3)
    assert (record.contracts, record.bond_ppm, record.score) == (0, None, 0.5)
    assert Contract.objects.filter(state="settled").count() == 3


def test_ten_slow_contracts_in_a_row_raise_an_alarm_that_ends_with_a_kept_one(north):
    ann = a_tenant("ann")
    contracts(north, ann, [880.0] * 10)
    ratio = Alarm.objects.get(kind="ratio")
    assert ratio.closed_at is None
    assert len(ratio.figures["log_ratios"]) == 10
    contracts(north, ann, [1000.0], start=300)
    ratio.refresh_from_db()
    assert (ratio.closed_by, Alarm.objects.filter(kind="ratio").count()) == ("broker", 1)


def test_a_lasting_drift_raises_an_alarm_and_honest_noise_none(north):
    ann = a_tenant("ann")
    contracts(north, ann, [1000.0, 1030.0, 980.0, 1010.0, 970.0])
    assert not Alarm.objects.filter(kind="drift").exists()
    contracts(north, ann, [750.0, 760.0, 740.0], start=200)
    drift = Alarm.objects.get(kind="drift")
    assert drift.figures["faster"] is False
    assert drift.figures["sums"] > 5


def test_more_samples_than_the_gpus_can_make_raise_an_alarm_once(north):
    ann = a_tenant("ann")
    job = a_job(ann, value="90000", samples=10**6)
    a_round(later(20))
    agent = SimAgent(north)
    agent.sync(later(21))
    agent.sync(later(21))
    lease = live_lease(job)
    agent.report(lease, later(25), samples=90_000, speed=900.0, ending=Ending("exited", 0))
    affinity_refit(now=later(26))
    pay(later(26))
    records_refit(now=later(27))
    forged = Alarm.objects.get(kind="forged")
    assert forged.figures["samples"] == 90_000
    [dispute] = Dispute.objects.filter(contract__lease=lease)  # only that money is frozen
    assert (dispute.by, dispute.code, dispute.state) == ("broker", "forged", "open")
    assert dispute.claimed < 10_000  # what the hardware could have made
    assert trial_balance().holds
    alarm_close(alarm=forged, actor="user:op", why="looked at it", now=later(28))
    dispute_decide(
        dispute=dispute, accepted=9_000, cause="none", why="read", actor="user:op", now=later(29)
    )
    run_one(north, a_job(ann, now=later(58)), 60)
    assert records_refit(now=later(120))
    assert (Alarm.objects.filter(kind="forged").count(), Dispute.objects.count()) == (1, 1)


def lose(site, tenant, at):
    """A lease that its site takes and never starts."""
    job = a_job(tenant, value="90000", now=later(at - 1))
    a_round(later(at))
    agent = SimAgent(site)
    agent.sync(later(at + 1))
    lease = live_lease(job)
    agent.report(lease, later(at + 2), samples=0, ending=Ending("driver_failed"))
    Job.objects.filter(pk=job.pk).update(state="failed", ended_at=later(at + 3))
    pay(later(at + 3))


def test_a_pool_whose_leases_do_not_start_is_planned_on_with_fewer_gpus(north):
    an_offer(north, gpus=8, speeds={"cnn": 1000.0}, now=later(1))
    ann = a_tenant("ann")
    contracts(north, ann, [1000.0] * 3)
    for at in range(3):
        lose(north, ann, 100 + 15 * at)
    records_refit(now=later(200))
    record = SiteRecord.objects.get()
    assert record.non_starts == 3
    assert Alarm.objects.get(kind="non_start").figures["share"] == 0.5
    a_job(ann, now=later(201))
    book = json.loads(book_build(venue=a_venue(), now=later(201)).text)
    assert [row["gpus"] for row in book["pools"]] == [4]
    # a day later they are old news
    records_refit(now=later(200 + RECENT.total_seconds() + 60))
    assert haircuts([north.pools.get().pk]) == {}


def test_a_haircut_never_takes_what_is_busy(north):
    an_offer(north, gpus=4, speeds={"cnn": 1000.0}, now=later(1))
    ann = a_tenant("ann")
    job = a_job(ann, gpus=[3], samples=10**9, value="90000", max_cost="9000")
    a_round(later(20))
    agent = SimAgent(north)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(live_lease(job), later(22), samples=5)
    pool = north.pools.get()
    Alarm.objects.create(
        kind="non_start", site=north, pool=pool, about=str(pool), why="a test",
        figures={"share": 1.0}, created_at=later(23),
    )  # fmt: skip
    book = json.loads(book_build(venue=a_venue(), now=later(24)).text)
    assert [row["gpus"] for row in book["pools"]] == [3]


def test_leases_that_the_market_took_back_are_no_failure_of_the_site(north):
    ann = a_tenant("ann")
    lose(north, ann, 20)
    [starts] = recent_starts(north, later(0)).values()
    assert (starts.leases, starts.non_starts) == (1, 1)
    Lease.objects.update(revoke_asked_at=later(21))
    [starts] = recent_starts(north, later(0)).values()
    assert (starts.leases, starts.non_starts) == (1, 0)


# alarms


def test_an_alarm_is_closed_with_a_reason_and_once(north):
    measured(north, speed=500.0, leases=6)
    [alarm] = claims_review(venue=a_venue(), now=later(1))
    with pytest.raises(Refused, match="why"):
        alarm_close(alarm=alarm, actor="user:op", why=" ", now=later(2))
    assert alarm_close(alarm=alarm, actor="user:op", why="known", now=later(2))
    assert not alarm_close(alarm=alarm, actor="user:op", why="known", now=later(3))
    claims_review(venue=a_venue(), now=later(4))  # its cause lasts
    assert open_claims(a_venue()).exists()


# price caps


def capped(cap):
    Rules.objects.create(
        venue=a_venue(), version=1, actor="test", why="a test", price_caps={"A100": cap},
        created_at=later(0),
    )  # fmt: skip


def test_a_price_cap_holds_in_the_round_and_the_reserve_stands_where_it_is_higher(north):
    a_site("dear", gpus=1, reserve="30", speeds={"cnn": 1000.0})
    a_site("other", gpus=1, gpu="L40S", reserve="10", speeds={"cnn": 1.0})
    capped(20_000_000)
    ann = a_tenant("ann")
    for _ in range(9):
        a_job(ann, value="90000", samples=10**6)
    book = json.loads(book_build(venue=a_venue(), now=later(1)).text)
    assert book["rules"]["price_cap"] == {"dear.gpu": 30, "north.gpu": 20}
    a_round(later(20))
    prices = dict(Lease.objects.values_list("pool__site__name", "contracts__price_micro"))
    assert prices["north"] <= 20_000_000
    assert prices["dear"] == 30_000_000


def test_without_rules_a_book_has_no_caps(north):
    a_job(a_tenant("ann"))
    book = json.loads(book_build(venue=a_venue(), now=later(1)).text)
    assert "price_cap" not in book["rules"]
    assert OfferAffinity.objects.count() == 1
