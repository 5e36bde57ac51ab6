"""What the settled lines of a job that cites a quote say of it, through real rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.models import Contract, EntryGroup, Job
from federation.money import as_text
from federation.selectors.contracts_shown import contract_shown
from federation.selectors.replay import replay
from federation.services.affinity import affinity_refit
from federation.services.counts import count_add
from federation.services.disputes import dispute_decide, dispute_withdraw
from federation.services.jobs import job_cancel
from federation.services.leases import Ending, revoke_ask
from federation.services.reports import reports_accept
from tests.federation.quote_scene import (
    WiredAgent,
    a_market,
    a_short_delivery,
    all_follows,
    an_award,
    cite,
    delivered,
    facts,
    objection,
    opened,
    quoted,
    runs,
    settled,
)
from tests.support.world import a_job, a_round, a_site, a_tenant, an_offer, later, live_lease, pay

pytestmark = pytest.mark.django_db


@pytest.fixture
def market(db):
    return a_market()


def test_two_jobs_may_cite_one_quote_and_each_is_compared_by_itself(market):
    ann, agent = market
    study = quoted(ann, 25, gpus=[4])
    one, two = cite(ann, study, 26, gpus=[4]), cite(ann, study, 27, gpus=[4])
    assert one.quoted == two.quoted
    a_round(later(31))
    winner = Job.objects.get(state="reserved")
    runs(agent, 32, 30_000, winner, ending=Ending("exited", 0))
    settled(Contract.objects.get(), 34)
    loser = two if winner.pk == one.pk else one
    opened(loser, 42)
    runs(agent, 43, 30_000, loser, ending=Ending("exited", 0))
    pay(later(45))
    assert Contract.objects.filter(quote_code="").count() == 0
    assert all_follows().quotes == 2


def test_an_uncontested_round_gives_the_quoted_line_to_the_micro_credit(market):
    job, contract, agent = an_award(market)
    assert (contract.price_micro, contract.payment_micro) == (
        job.quoted["price_micro"],
        job.quoted["payment_micro"],
    )
    delivered(job, agent, 19_999)  # of 20 000: inside the dead-band
    contract = settled(contract, 45)
    due = job.quoted["payment_micro"] * 19_999 // job.quoted["samples"]
    assert (contract.quote_code, contract.paid_micro, contract.accepted) == (
        *("as_quoted", due),
        19_999,
    )
    assert as_text(due) in contract.quote_why
    [said] = facts(contract)
    assert said == {
        "id": str(job.quote),
        "code": "as_quoted",
        "why": contract.quote_why,
        "quoted_micro": due,
        "charged_micro": due,
    }
    assert all_follows().quotes == 1
    assert contract_shown(contract)["quote_reason"]["code"] == "as_quoted"


def test_another_bid_moves_the_price_and_the_line_names_both(market):
    ann, agent = market
    study = quoted(ann, 25)
    job = cite(ann, study, 26)
    bob = a_tenant("bob", credits=10_000)
    for value in ("800", "400"):
        a_job(bob, gpus=[2], samples=10**6, value=value, now=later(27))
    contract = opened(job, 31)
    assert contract.price_micro > job.quoted["price_micro"]
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    assert contract.quote_code == "price_moved"
    due = job.quoted["payment_micro"] * contract.accepted // job.quoted["samples"]
    for micro in (contract.price_micro, job.quoted["price_micro"], due, contract.paid_micro):
        assert as_text(micro) in contract.quote_why
    all_follows()


def test_a_contract_opened_after_the_expiry_says_so_only_when_it_differs(market):
    job, _, agent = an_award(market)
    delivered(job, agent, 20_000)
    bob = a_tenant("bob", credits=10_000)
    a_round(later(53))  # same price, after the expiry: still the quote's line
    runs(agent, 54, 40_000, job)
    for value in ("800", "400"):
        a_job(bob, gpus=[2], samples=10**6, value=value, now=later(55))
    a_round(later(64))
    runs(agent, 65, 60_000, job)
    a_round(later(75))
    runs(agent, 76, 60_001, job)
    pay(later(78))
    codes = list(
        Contract.objects.filter(lease__job=job, postings=1)
        .order_by("sequence")
        .values_list("quote_code", flat=True)
    )
    assert codes[0] == codes[2] == "as_quoted"
    assert codes[3] == "quote_expired"
    all_follows()


def test_an_offer_that_changed_after_the_submission_is_the_reason(market):
    ann, agent = market
    study = quoted(ann, 25)
    job = cite(ann, study, 26)
    an_offer(agent.site, gpus=4, reserve="12", now=later(27))
    contract = opened(job, 31)
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    assert contract.quote_code == "offer_changed"
    assert "version 2" in contract.quote_why
    all_follows()


def test_a_cheaper_site_that_joined_is_another_pool(market):
    ann, _ = market
    job = cite(ann, quoted(ann, 25), 26)
    agent = WiredAgent(a_site("east", gpus=4, reserve="1", speeds={"cnn": 1000.0}, now=later(27)))
    contract = opened(job, 31)
    assert contract.lease.site.name == "east"
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    assert contract.quote_code == "other_pool"
    assert "east.gpu" in contract.quote_why
    assert "north.gpu" in contract.quote_why
    all_follows()


def test_a_gang_of_another_size_is_named(market):
    ann, agent = market
    sizes = [2, 4]
    job = cite(ann, quoted(ann, 25, gpus=sizes), 26, gpus=sizes)
    assert job.quoted["gpus"] == 4
    a_job(a_tenant("bob"), gpus=[2], samples=10**6, value="990", now=later(27))
    contract = opened(job, 31)
    assert contract.gpus == 2
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    assert contract.quote_code == "other_size"
    assert "gave it 2 GPUs, the quote 4" in contract.quote_why
    all_follows()


def test_a_speed_that_was_measured_since_is_the_reason_at_the_same_price(market):
    job, first, agent = an_award(market)
    runs(agent, 33, 12_000, job)  # 900 samples/s, as the report says, for two GPUs
    assert affinity_refit(now=later(40))
    second = opened(job, 42)
    assert second.price_micro == first.price_micro
    assert second.contracted < first.contracted
    runs(agent, 43, 12_000 + second.contracted, job)
    a_round(later(53))
    runs(agent, 54, 12_001 + second.contracted, job)
    second = settled(second, 56)
    assert second.quote_code == "speed_corrected"
    assert "the quote 2000" in second.quote_why
    all_follows()


def test_a_late_count_posts_the_line_and_its_word_anew(market):
    job, contract, agent = an_award(market)
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    count_add(contract=contract, seq=1, samples=19_800, last=True, actor="t", now=later(50))
    contract.refresh_from_db()
    assert (contract.postings, contract.accepted) == (2, 19_800)
    due = job.quoted["payment_micro"] * 19_800 // job.quoted["samples"]
    assert [(x["code"], x["quoted_micro"]) for x in facts(contract)] == [
        ("as_quoted", job.quoted["payment_micro"]),
        ("as_quoted", due),
    ]
    assert as_text(due) in contract.quote_why
    all_follows()


def test_all_the_work_at_once_rounds_and_says_so_or_equals(market):
    job, contract, agent = an_award(market, preemptible=False, samples=70_001)
    assert contract.to_end
    assert contract.contracted >= 70_001
    runs(agent, 33, 70_001, job, ending=Ending("exited", 0))
    contract = settled(contract, 45)
    due = job.quoted["payment_micro"] * contract.accepted // job.quoted["samples"]
    assert contract.quote_code == ("as_quoted" if due == contract.paid_micro else "rounding")
    assert abs(due - contract.paid_micro) <= 2
    all_follows()


def test_what_a_tenant_that_cancels_pays_is_running_cost(market):
    job, contract, agent = an_award(market)
    runs(agent, 32, 10, job)
    job_cancel(job=job, actor="test", now=later(34))
    agent.sync(later(35))
    lease = live_lease(job)
    made = agent.make_report(lease, samples=10, ending=Ending("revoked"))
    progress = {**made.body["progress"], "gpu_seconds": 18.0}
    made = replace(
        made,
        measured=replace(made.measured, gpu_seconds=18.0),
        body={**made.body, "progress": progress},
    )
    reports_accept(site=agent.site, reports=[made], now=later(36))
    contract = settled(contract, 45)
    assert contract.cause == "tenant"
    assert contract.quote_code == "running_cost"
    all_follows()


def test_a_penalty_is_a_reason(market):
    _, contract = a_short_delivery(market)
    contract = settled(contract, 46)
    assert contract.penalty_micro > 0
    assert contract.quote_code == "penalty"
    assert as_text(contract.penalty_micro) in contract.quote_why
    all_follows()


def test_a_decision_is_posted_with_its_own_word_about_the_quote(market):
    _, contract = a_short_delivery(market)
    contract = settled(contract, 46)
    dispute_decide(
        dispute=objection(contract),
        accepted=5_000,
        cause="site",
        why="so",
        actor="o",
        now=later(60),
    )
    contract.refresh_from_db()
    assert (contract.postings, contract.quote_code) == (2, "decision")
    assert [said["code"] for said in facts(contract)] == ["penalty", "decision"]
    all_follows()


def test_an_objection_taken_back_leaves_the_word_that_stood(market):
    _, contract = a_short_delivery(market)
    contract = settled(contract, 46)
    dispute = objection(contract)
    found = replay()
    assert found.holds  # disputed: what was settled before stands
    dispute_withdraw(dispute=dispute, why="mine", actor="user:t", now=later(60))
    contract.refresh_from_db()
    assert (contract.postings, contract.quote_code) == (1, "penalty")
    all_follows()


def test_a_decision_for_the_quoted_rate_is_as_quoted(market):
    _, contract = a_short_delivery(market)
    contract = settled(contract, 46)
    dispute_decide(
        dispute=objection(contract),
        accepted=20_000,
        cause="none",
        why="all of it",
        actor="o",
        now=later(60),
    )
    contract.refresh_from_db()
    assert contract.quote_code == "as_quoted"
    all_follows()


def test_a_job_that_is_cancelled_before_it_starts_pays_running_cost(market):
    job, contract, _ = an_award(market)
    job_cancel(job=job, actor="test", now=later(32))
    pay(later(33))
    contract.refresh_from_db()
    assert (contract.state, contract.quote_code) == ("settled", "running_cost")
    assert contract.accepted == 0
    all_follows()


def test_a_contract_that_the_market_took_back_costs_nothing_as_quoted(market):
    _, contract, _ = an_award(market)
    revoke_ask(lease=contract.lease, code="outbid", why="outbid", now=later(32))
    pay(later(33))
    contract.refresh_from_db()
    assert (contract.state, contract.quote_code, contract.paid_micro) == ("voided", "as_quoted", 0)
    all_follows()


def test_a_job_without_a_quote_says_nothing_of_one(market):
    ann, agent = market
    job = a_job(ann, gpus=[2], samples=10**6, value="900", now=later(26))
    contract = opened(job, 31)
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    assert (contract.quote_code, contract.quote_why, job.quoted) == ("", "", None)
    group = EntryGroup.objects.get(contract=contract, kind="settle")
    assert "quote" not in group.facts
    assert contract_shown(contract)["quote_reason"] is None
    assert all_follows().quotes == 0
