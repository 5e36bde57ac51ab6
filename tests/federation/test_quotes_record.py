"""A line and its quote on record: one word, found when it was forged, shown where it belongs."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from federation.models import Contract, Job, Lease, Study
from federation.quoted import CODES
from federation.selectors.contracts import job_differences, recompute
from federation.selectors.replay import replay
from federation.selectors.statements import period_statement, statement_csv, statement_document
from federation.selectors.studies import quote_shown
from federation.services.affinity import affinity_refit
from federation.services.contracts import contracts_hold_over, contracts_settle
from federation.services.disputes import dispute_decide
from federation.services.leases import Ending
from federation.services.studies import QUOTES_KEPT, studies_forget
from tests.federation.contract_scene import the_ledger_holds
from tests.federation.crashes import dies_everywhere
from tests.federation.quote_scene import (
    WISH,
    WiredAgent,
    a_market,
    a_short_delivery,
    all_follows,
    an_award,
    cite,
    delivered,
    facts,
    objection,
    quoted,
    settled,
)
from tests.support.world import a_job, a_round, a_site, a_tenant, later, pay

pytestmark = pytest.mark.django_db


@pytest.fixture
def market(db):
    return a_market()


def test_a_worker_that_dies_anywhere_leaves_one_code(market):
    _, contract = a_short_delivery(market)

    def consistent():
        now = Contract.objects.get(pk=contract.pk)
        assert (now.postings > 0) == bool(now.quote_code)
        assert len(facts(contract)) == now.postings
        the_ledger_holds()

    died = dies_everywhere(lambda: contracts_settle(now=later(46)), consistent)
    assert died > 5
    contract.refresh_from_db()
    assert (contract.postings, contract.quote_code) == (1, "penalty")
    dispute = objection(contract)

    def decide():
        dispute_decide(
            dispute=dispute, accepted=5_000, cause="site", why="so", actor="o", now=later(60)
        )

    assert dies_everywhere(decide, consistent) > 5
    contract.refresh_from_db()
    assert (contract.postings, contract.quote_code) == (2, "decision")
    all_follows()


def test_a_line_that_was_tampered_with_is_found(market):
    job, contract, agent = an_award(market)
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    all_follows()
    row, cited = Contract.objects.filter(pk=contract.pk), Job.objects.filter(pk=job.pk)
    cheaper = {**job.quoted, "payment_micro": job.quoted["payment_micro"] - 1}
    genuine = {"quote_code": contract.quote_code, "quote_why": contract.quote_why}
    for forge, mend in (
        (lambda: row.update(quote_code="price_moved"), lambda: row.update(**genuine)),
        (lambda: row.update(quote_why="Trust me."), lambda: row.update(**genuine)),
        (lambda: row.update(quote_code="", quote_why=""), lambda: row.update(**genuine)),
        (lambda: cited.update(quoted=cheaper), lambda: cited.update(quoted=job.quoted)),
        (lambda: cited.update(quote=uuid4()), lambda: cited.update(quote=job.quote)),
        (
            lambda: (cited.update(quoted=None, quote=None), row.update(quote_code="")),
            lambda: (cited.update(quoted=job.quoted, quote=job.quote), row.update(**genuine)),
        ),
    ):
        forge()
        assert not replay().holds
        assert not recompute(contract).holds
        mend()
        assert replay().holds


def test_what_the_quote_said_outlives_it(market):
    job, contract, agent = an_award(market)
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    Study.objects.update(created_at=later(0) - QUOTES_KEPT - timedelta(days=1))
    assert studies_forget(now=later(0)) == 1
    job.refresh_from_db()
    assert job.quoted["pool"] == "north.gpu"
    assert job_differences(job) == ()
    all_follows()


def test_a_statement_shows_quote_code_and_sentence(market):
    job, contract, agent = an_award(market)
    delivered(job, agent, 20_000)
    contract = settled(contract, 45)
    statement = period_statement(
        job.tenant.member, currency="cash", since=later(-(10**6)), until=later(10**6)
    )
    document = json.loads(json.dumps(statement_document(statement)))
    said = [line for line in document["lines"] if line["quote"]]
    assert {(x["quote"], x["quote_code"], x["quote_why"]) for x in said} == {
        (str(job.quote), "as_quoted", contract.quote_why)
    }
    assert {line["kind"] for line in said} == {"settle"}
    table = list(csv.DictReader(io.StringIO("".join(statement_csv(statement)))))
    assert [row["quote_code"] for row in table if row["quote_code"]] == ["as_quoted"] * len(said)
    assert WISH["name"] in said[0]["what"]
    assert {line["purse"].split()[0] for line in said} == {"tenant_escrow"}
    seller = contract.lease.site.member
    theirs = period_statement(seller, currency="cash", since=later(-(10**6)), until=later(10**6))
    assert [line for line in theirs.lines if line.kind == "settle"]
    assert not any(line.quote.id for line in theirs.lines if "member" in line.purse)


def test_a_refund_and_a_penalty_were_never_quoted(market):
    job, _ = a_short_delivery(market)
    pay(later(46))
    statement = period_statement(
        job.tenant.member, currency="cash", since=later(-(10**6)), until=later(10**6)
    )
    settled_lines = [line for line in statement.lines if line.kind == "settle"]
    assert {line.purse.split()[0]: bool(line.quote.id) for line in settled_lines} == {
        "tenant_escrow": True,
        "tenant_cash": False,
    }


def an_ending(lease, draw):
    if lease.revoke_asked_at is not None:
        return Ending("revoked")
    if draw.random() < 0.2:
        return Ending(draw.choice(["exited", "driver_failed", "lost"]), 1)
    return None


def works(agent, draw, now):
    """A round's time at one site: what runs trains something, and some of it ends."""
    for _ in range(2):
        agent.sync(later(now + 1))
    for lease in Lease.objects.filter(site=agent.site, state="active").order_by("created_at", "pk"):
        if agent.running.get(lease.pk, "ended") == "ended":
            continue
        total = agent.samples.get(lease.pk, 0) + draw.randint(0, 12_000) * lease.gpus
        end = an_ending(lease, draw)
        agent.report(lease, later(now + 9), samples=total, speed=900.0 * lease.gpus, ending=end)
    agent.sync(later(now + 9))


def more_jobs(ann, bob, draw, now):
    """A quote that one job or two cite, and bids of others."""
    wish = {
        "gpus": draw.choice([[1], [2], [1, 2]]),
        "samples": draw.choice([15_000, 10**6]),
        "value": Decimal(draw.randint(300, 900)),
        "preemptible": draw.random() < 0.7,
    }
    study = quoted(ann, now, **wish)
    if quote_shown(study)["answer"]["runs"]:
        for _ in range(draw.randint(1, 2)):
            cite(ann, study, now + 1, **wish)
    if draw.random() < 0.5:
        a_job(bob, samples=10**6, value=str(draw.randint(100, 900)), now=later(now + 1))


@pytest.mark.parametrize("seed", range(2))
def test_every_word_of_a_busy_market_follows_from_the_record(market, seed):
    """Rounds with jobs that stay, move, are outbid, end, are held over or run to their end."""
    draw = random.Random(seed)
    ann, north = market
    agents = [north, WiredAgent(a_site("south", gpus=2, reserve="1", speeds={"cnn": 800.0}))]
    bob = a_tenant("bob")
    for number in range(5):
        now = 24 + 11 * number
        more_jobs(ann, bob, draw, now)
        if number != 3:  # that round never comes: contracts are held over
            a_round(later(now + 3))
        for agent in agents:
            works(agent, draw, now + 3)
        contracts_hold_over(now=later(now + 13))
        affinity_refit(now=later(now + 13))
        pay(later(now + 13))
        all_follows()
    cites = Contract.objects.filter(postings__gt=0, lease__job__quoted__isnull=False)
    found = set(cites.values_list("quote_code", flat=True))
    assert found
    assert found <= set(CODES)
    assert not Contract.objects.filter(lease__job__quoted__isnull=True).exclude(quote_code="")
