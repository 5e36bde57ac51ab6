"""The watch over conduct: rings, kept-back GPUs, suppliers nobody can do without, one owner."""

from __future__ import annotations

import pytest

from federation.errors import BadInput
from federation.models import Alarm, Event, Rules
from federation.selectors.conduct import (
    cancelled_escrow,
    caps_below_reserve,
    kept_back,
    payments,
)
from federation.services.affinity import affinity_refit
from federation.services.conduct import conduct_report, conduct_review, member_owner_set
from federation.services.jobs import job_cancel
from federation.services.leases import Ending
from federation.services.records import records_refit
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


class Town:
    """Members with one site and one tenant each; a round is a list of who buys from whom."""

    def __init__(self, *names):
        self.sites, self.tenants, self.now = {}, {}, 0.0
        for name in names:
            member = a_member(name)
            self.sites[name] = a_site(
                f"site-{name}", member=member, gpus=1, reserve="3600", speeds={"cnn": 1000.0}
            )
            self.tenants[name] = a_tenant(f"tenant-{name}", member=member)

    def trade(self, *pairs, value="4000"):
        """Every buyer trains a whole round of samples at its seller, who is paid the reserve."""
        self.now += 20
        jobs = [
            (
                seller,
                a_job(
                    self.tenants[buyer],
                    now=later(self.now - 1),
                    value=value,
                    samples=10_000,
                    sites_allow=[f"site-{seller}"],
                ),
            )
            for buyer, seller in pairs
        ]
        a_round(later(self.now))
        for seller, job in jobs:
            agent = SimAgent(self.sites[seller])
            agent.sync(later(self.now + 1))
            agent.sync(later(self.now + 1))
            agent.report(
                live_lease(job), later(self.now + 9), samples=10_000, speed=1000.0,
                ending=Ending("exited", 0),
            )  # fmt: skip
        affinity_refit(now=later(self.now + 10))
        pay(later(self.now + 10))

    @property
    def end(self):
        return later(self.now + 15)


def flows(town):
    return {
        (flow.payer, flow.payee): flow.amount_micro
        for flow in payments(a_venue(), later(0), town.end)
    }


def test_payments_are_those_of_the_ledger_between_members_and_their_period():
    town = Town("elm", "oak", "yew")
    town.trade(("elm", "oak"))
    middle = later(town.now + 15)
    town.trade(("elm", "oak"), ("oak", "yew"))
    assert set(flows(town)) == {("elm", "oak"), ("oak", "yew")}
    assert flows(town)["elm", "oak"] > flows(town)["oak", "yew"] > 0
    [first] = payments(a_venue(), later(0), middle)
    assert (first.payer, first.payee) == ("elm", "oak")
    assert flows(town)["elm", "oak"] == 2 * first.amount_micro


def test_money_that_goes_round_and_hardly_elsewhere_raises_an_alarm_once():
    town = Town("elm", "oak", "yew", "ash", "fir")
    town.trade(("elm", "oak"), ("oak", "yew"), ("yew", "elm"))
    conduct_review(venue=a_venue(), now=town.end)
    assert not Alarm.objects.filter(kind="ring").exists()  # nobody else trades: no comparison
    town.trade(("ash", "fir"))
    [ring] = [a for a in conduct_review(venue=a_venue(), now=town.end) if a.kind == "ring"]
    assert ring.about == "main: elm → oak → yew → elm"
    assert ring.figures["tightness"] == pytest.approx(1.0)
    assert not [a for a in conduct_review(venue=a_venue(), now=town.end) if a.kind == "ring"]
    assert Alarm.objects.filter(kind="ring").count() == 1


def test_ordinary_trade_both_ways_is_no_ring():
    town = Town("elm", "oak", "yew", "ash")
    town.trade(("elm", "oak"), ("oak", "elm"), ("yew", "ash"))
    town.trade(("elm", "yew"), ("oak", "ash"), ("yew", "oak"), ("ash", "elm"))
    conduct_review(venue=a_venue(), now=town.end)
    assert not Alarm.objects.filter(kind="ring").exists()


def test_members_of_one_owner_are_one_and_trade_between_them_is_shown_apart():
    town = Town("elm", "oak", "yew")
    town.trade(("elm", "oak"))
    elm, oak = a_member("elm"), a_member("oak")
    for member in (elm, oak):
        member_owner_set(member=member, owner="grove", actor="user:op", now=later(1))
    report = conduct_report(venue=a_venue(), since=later(0), until=town.end, now=town.end)
    assert report.rings.gross_micro == 0
    assert [(row.payer, row.payee) for row in report.rings.within_owner] == [("elm", "oak")]
    assert {row.owner for _, rows in report.residual for row in rows} == {"grove", "yew"}
    [told] = Event.objects.filter(subject="member", subject_id=str(elm.pk), event="owner")
    assert (told.actor, told.why) == ("user:op", "owner: elm → grove")
    records_refit(now=town.end)
    assert town.sites["oak"].record.contracts == 0


def test_an_owner_is_a_name_and_empty_means_itself():
    elm = a_member("elm")
    with pytest.raises(BadInput):
        member_owner_set(member=elm, owner="no such/name", actor="user:op", now=later(1))
    member_owner_set(member=elm, owner="grove", actor="user:op", now=later(2))
    member_owner_set(member=elm, owner="", actor="user:op", now=later(3))
    elm.refresh_from_db()
    assert elm.behind == "elm"


def test_a_site_that_offers_less_where_gpus_are_scarce_is_told():
    town = Town("elm", "oak")
    elm = town.sites["elm"]
    an_offer(elm, gpus=8, reserve="3600", speeds={"cnn": 1000.0}, now=later(1))
    town.trade(("oak", "elm"))  # in a quiet round it offers eight
    an_offer(elm, gpus=2, reserve="3600", speeds={"cnn": 1000.0}, now=later(town.now + 11))
    for _ in range(5):  # three bids for two GPUs: the price is the third's
        rivals = [
            a_job(town.tenants["oak"], value="20000", samples=10_000, now=later(town.now + 12))
            for _ in range(8)
        ]
        town.trade(("oak", "elm"), value="30000")
        for job in rivals:
            job_cancel(job=job, actor="test", now=later(town.now + 11))
    [row] = [row for row in kept_back(a_venue(), later(0), town.end) if row.site == "site-elm"]
    assert row.rounds == 5
    assert (row.offered, row.most) == (pytest.approx(10 / 360), pytest.approx(40 / 360))
    a_job(town.tenants["elm"], now=town.end)
    conduct_review(venue=a_venue(), now=town.end)
    alarm = Alarm.objects.get(kind="withholding")
    assert alarm.site == elm
    assert alarm.figures["share"] == pytest.approx(0.75)
    assert alarm.figures["own_waiting"] == 1


def test_a_raised_reserve_that_makes_gpus_dearer_is_told_and_one_that_does_not_is_not():
    town = Town("elm", "oak")
    for _ in range(11):
        town.trade(("oak", "elm"), value="2800")
    dear = {"gpus": 1, "reserve": "9000", "speeds": {"cnn": 1000.0}}
    an_offer(town.sites["oak"], **dear, now=later(town.now + 11))  # where nobody buys
    town.trade(("oak", "elm"), value="2800")
    conduct_review(venue=a_venue(), now=town.end)
    assert not Alarm.objects.filter(kind="withholding").exists()
    an_offer(town.sites["elm"], **dear, now=later(town.now + 11))
    town.trade(("oak", "elm"), value="2800")
    conduct_review(venue=a_venue(), now=town.end)
    alarm = Alarm.objects.get(kind="withholding")
    assert alarm.about == "main: elm reserve"
    assert alarm.figures["pools"] == ["site-elm.gpu"]
    assert alarm.figures["impact"] > 0.05


def test_offering_less_in_quiet_rounds_withholds_nothing():
    town = Town("elm", "oak")
    an_offer(town.sites["elm"], gpus=8, reserve="3600", speeds={"cnn": 1000.0}, now=later(1))
    town.trade(("oak", "elm"))
    an_offer(town.sites["elm"], gpus=1, reserve="3600", speeds={"cnn": 1000.0}, now=later(30))
    for _ in range(6):
        town.trade(("oak", "elm"))
    conduct_review(venue=a_venue(), now=town.end)
    assert not Alarm.objects.filter(kind="withholding").exists()


def test_a_supplier_that_was_needed_round_after_round_is_told_with_what_it_is_worth():
    town = Town("elm", "oak")
    an_offer(town.sites["elm"], gpus=6, reserve="3600", speeds={"cnn": 1000.0}, now=later(1))
    plenty, scarce = (
        {"gpus": gpus, "reserve": "3600", "speeds": {"cnn": 1000.0}} for gpus in (9, 1)
    )
    an_offer(town.sites["oak"], **plenty, now=later(1))
    town.trade(("oak", "elm"), ("elm", "oak"))
    an_offer(town.sites["oak"], **scarce, now=later(town.now + 11))
    for _ in range(2):
        town.trade(("oak", "elm"), ("elm", "oak"))
    conduct_review(venue=a_venue(), now=town.end)
    assert not Alarm.objects.filter(kind="pivotal").exists()  # in two rounds of three
    town.trade(("oak", "elm"), ("elm", "oak"))
    conduct_review(venue=a_venue(), now=town.end)
    alarm = Alarm.objects.get(kind="pivotal", closed_at=None)
    assert alarm.about == "main: elm A100"
    assert alarm.figures["residual_supply"] == pytest.approx(0.5)  # oak's one of the two sold
    assert 0.0 < alarm.figures["pivotal"] <= 1.0
    report = conduct_report(venue=a_venue(), since=later(0), until=town.end, now=town.end)
    [a100] = report.concentration
    assert (a100.owners, a100.index) == (2, pytest.approx(10_000 * (36 + 1) / 49))


def test_a_review_of_a_venue_without_rounds_finds_nothing():
    assert conduct_review(venue=a_venue(), now=later(1)) == []
    report = conduct_report(venue=a_venue(), since=later(0), until=later(1), now=later(1))
    assert (report.concentration, report.residual, report.pivotal) == ((), (), ())
    assert report.rings.gross_micro == 0


def test_the_share_of_cancelled_escrow_tells_who_bids_to_cancel():
    site = a_site("north", gpus=2, reserve="3600", speeds={"cnn": 1000.0})
    steady, fickle = a_tenant("steady"), a_tenant("fickle")
    stays, goes = (
        a_job(tenant, value="90000", samples=10_000, now=later(1)) for tenant in (steady, fickle)
    )
    a_round(later(20))
    agent = SimAgent(site)
    agent.sync(later(21))
    agent.sync(later(21))
    agent.report(
        live_lease(stays), later(29), samples=10_000, speed=1000.0, ending=Ending("exited", 0)
    )
    agent.report(live_lease(goes), later(22), samples=1_000)
    job_cancel(job=goes, actor="user:fickle", now=later(23))
    agent.report(live_lease(goes), later(24), samples=1_000, ending=Ending("revoked"))
    pay(later(30))
    first, second = cancelled_escrow(a_venue(), later(0), later(60))
    assert (first.tenant, first.contracts) == ("fickle", 1)
    assert 0.5 < first.share < 1.0
    assert (second.tenant, second.share) == ("steady", 0.0)


def test_pools_whose_reserve_lies_above_the_cap_are_named():
    a_site("dear", gpus=1, reserve="30")
    a_site("cheap", gpus=1, reserve="10")
    assert caps_below_reserve(a_venue(), later(1)) == []
    Rules.objects.create(
        venue=a_venue(), version=1, actor="test", why="a test", created_at=later(0),
        price_caps={"A100": 20_000_000},
    )  # fmt: skip
    assert caps_below_reserve(a_venue(), later(1)) == [("dear.gpu", 20_000_000, 30_000_000)]
