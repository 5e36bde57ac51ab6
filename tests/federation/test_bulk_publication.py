"""A round carried out in bulk does what one award after another would; explanations follow it."""

from __future__ import annotations

import random
import uuid
from collections import Counter

import pytest
from django.db import transaction

from federation.decision import decide
from federation.machines.lease import LIVE
from federation.models import (
    Account,
    Assignment,
    Contract,
    Entry,
    EntryGroup,
    Event,
    Job,
    Lease,
    Member,
    Round,
    Site,
)
from federation.selectors.accounts import trial_balance
from federation.services import ledger, rounds
from federation.services.jobs import job_cancel
from federation.services.leases import job_close
from federation.services.placement import assignment_carry_out
from federation.services.publication import awards_carry_out
from tests.federation.test_bulk_book import CaptureStatements
from tests.support.crowd import Crowd, furnish
from tests.support.together import together
from tests.support.world import (
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
    live_lease,
    pay,
)

pytestmark = pytest.mark.django_db


def a_cleared_round(now, venue=None):
    """A round that is decided and recorded, and not yet carried out."""
    venue = venue or a_venue()
    rounds.round_ensure_open(venue=venue, now=later(now - venue.round_s))
    [round_id] = rounds.rounds_close(now=later(now))
    claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=later(now))
    decision = decide(claim.book)
    assert rounds.round_record(claim=claim, decision=decision, solve_s=0.1, now=later(now))
    return Round.objects.select_related("venue").get(pk=round_id)


def one_by_one(round, now):
    for assignment in Assignment.objects.filter(round=round).order_by("job_id"):
        assignment_carry_out(assignment=assignment, now=now)


def all_at_once(round, now):
    awards_carry_out(round=round, now=now)


def the_state():
    """Everything that carrying a round out changes, without the ids that are drawn anew."""
    names = {str(pk): name for pk, name in Job.objects.values_list("pk", "name")}
    leases = {
        str(pk): f"{job}/{attempt}"
        for pk, job, attempt in Lease.objects.values_list("pk", "job__name", "attempt")
    }
    lines = Entry.objects.values_list(
        *("group__kind", "group__currency", "group__contract__lease__job__name"),
        *("group__round__number", "account__kind", "account__tenant__name", "amount_micro"),
        "account__member__name",
    )
    return {
        "jobs": set(
            Job.objects.values_list(
                *("name", "state", "attempts", "held_micro", "spent_micro", "updated_at"),
                *("reason_code", "reason", "outcome_code", "outcome_why"),
            )
        ),
        "leases": set(
            Lease.objects.values_list(
                *("job__name", "attempt", "round__number", "site__name", "pool__name", "gpus"),
                *("state", "fence_s", "predicted_samples_per_s", "renewed_at", "created_at"),
                *("revoke_asked_at", "revoke_code", "revoke_why", "delivered_at"),
            )
        ),
        "contracts": set(
            Contract.objects.values_list(
                *("lease__job__name", "sequence", "round__number", "state", "basis", "gpus"),
                *("price_micro", "contracted", "payment_micro", "ends_at", "to_end"),
                *("superseded_at", "created_at"),
                *("reserve_micro", "bond_micro", "rules__version"),
            )
        ),
        "awards": set(Assignment.objects.values_list("job__name", "status", "note")),
        "entries": Counter(lines),
        "keys": Counter(
            (key == f"hold:{contract}", memo)
            for key, contract, memo in EntryGroup.objects.filter(kind="hold").values_list(
                "key", "contract_id", "memo"
            )
        ),
        "purses": set(
            Account.objects.values_list("kind", "tenant__name", "member__name", "balance_micro")
        ),
        "events": Counter(
            (subject, names.get(pk) or leases.get(pk), *rest)
            for subject, pk, *rest in Event.objects.values_list(
                *("subject", "subject_id", "event", "from_state", "to_state"),
                *("code", "why", "actor", "at"),
            )
        ),
    }


def undone(act):
    """What `act` leaves behind; the database is as before."""
    place = transaction.savepoint()
    act()
    found = the_state()
    transaction.savepoint_rollback(place)
    return found


def a_trading_market(seed):
    """Running jobs that stay or move, waiting jobs of rich and of poor tenants; a cleared round.

    Then one site falls silent, and one job expires and one is out of money.
    """
    draw = random.Random(seed)
    sites = [
        a_site(name, gpus=gpus, reserve="1", speeds={"cnn": speed})
        for name, gpus, speed in (("north", 6, 1000.0), ("south", 6, 800.0), ("west", 4, 900.0))
    ]
    tenants = [a_tenant("rich"), a_tenant("poor", credits=30)]

    def submit(count, highest):
        return [
            a_job(
                draw.choice(tenants),
                gpus=draw.choice([[1], [2], [1, 2]]),
                samples=10**9,
                value=str(draw.randint(100, highest)),
                preemptible=draw.random() < 0.7,
                sites_allow=draw.choice([[], [], ["north"], ["west"]]),
            )
            for _ in range(count)
        ]

    submit(10, 500)
    a_round(later(20))
    agents = {site.pk: SimAgent(site) for site in sites}
    for agent in agents.values():
        agent.sync(later(21))
        agent.sync(later(21))
    for lease in Lease.objects.filter(state="active"):
        agents[lease.site_id].report(lease, later(22), samples=1)
    submit(8, 900)
    round = a_cleared_round(31)
    Site.objects.filter(name="west").update(state="silent")
    waiting = Job.objects.filter(assignments__round=round, state="pending").order_by("name")
    awarded = list(waiting)
    assert len(awarded) >= 2
    job_close(awarded[0], "expire", "deadline", "It came too late.", later(31))
    Job.objects.filter(pk=awarded[1].pk).update(max_cost_micro=1)
    return round


@pytest.mark.parametrize("seed", range(5))
def test_all_at_once_does_what_one_by_one_does(seed):
    round = a_trading_market(seed)
    slow = undone(lambda: one_by_one(round, later(32)))
    quick = undone(lambda: all_at_once(round, later(32)))
    assert quick == slow


def test_the_markets_of_that_comparison_have_all_the_cases():
    seen = set()
    for seed in range(5):
        place = transaction.savepoint()
        round = a_trading_market(seed)
        awards_carry_out(round=round, now=later(32))
        rows = Assignment.objects.filter(round=round).values_list("status", "note")
        seen |= {" ".join([status, *note.split()[:2]]) for status, note in rows}
        transaction.savepoint_rollback(place)
    assert seen >= {
        "placed",
        "placed prolonged",
        "waiting for the",  # it moves
        "dropped site west",
        "dropped the job",  # it had expired
        "dropped The job's",  # max_cost does not cover it
    }


def test_a_tenant_whose_funds_are_gone_is_refused_and_the_others_are_served():
    a_site("north", gpus=8)
    gone, kept = a_tenant("gone"), a_tenant("kept")
    without, served = a_job(gone), a_job(kept)
    a_cleared_round(20)
    purse = Account.objects.get(kind="tenant_cash", tenant=gone)
    ledger.post(
        key="taken-back",
        kind=EntryGroup.Kind.WITHDRAWAL,
        currency=purse.currency,
        entries=[
            (purse, -purse.balance_micro),
            (Account.objects.get(kind="issuance"), purse.balance_micro),
        ],
        now=later(21),
    )
    assert len(rounds.rounds_publish(now=later(21))) == 1
    without.refresh_from_db()
    assert (without.state, without.outcome_code) == ("pending", "insufficient_funds")
    assert live_lease(served).state == "offered"
    assert trial_balance().holds


def test_carrying_out_takes_as_many_statements_for_many_awards_as_for_few():
    counts = []
    for jobs in (64, 96):  # both beyond what the ledger writes in one message
        place = transaction.savepoint()
        crowd = Crowd(
            jobs=jobs, pools=8, sites=4, classes=3, groups=6, tenants=2, members=2, gpus=64
        )
        furnished = furnish(crowd, now=later(0))
        for tenant in furnished.tenants:
            ledger.account("tenant_escrow", "cash", now=later(0), tenant=tenant)
        for member in Member.objects.all():
            for kind in ("member_earnings", "member_bond"):
                ledger.account(kind, "cash", now=later(0), member=member)
        round = a_cleared_round(400, furnished.venue)
        awards = Assignment.objects.count()
        assert awards >= jobs // 2
        with CaptureStatements() as taken:
            awards_carry_out(round=round, now=later(401))
        assert Lease.objects.count() == Contract.objects.count() == awards
        counts.append(taken.count)
        transaction.savepoint_rollback(place)
    assert counts[0] == counts[1]


def test_the_bell_of_every_site_with_something_new_is_rung():
    north, south = a_site("north"), a_site("south", speeds={})
    a_job(a_tenant("ann"))
    a_round(later(20))
    versions = dict(Site.objects.values_list("name", "orders_version"))
    assert versions["north"] > north.orders_version
    assert versions["south"] == south.orders_version


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ledger_may_be_flushed")
def test_publishers_tenants_and_sites_at_once_leave_one_lease_or_none_for_each_job():
    site = a_site("north", gpus=8)
    tenants = [a_tenant("ann"), a_tenant("bob")]
    jobs = [a_job(tenants[at % 2]) for at in range(8)]
    a_cleared_round(20)

    def act(number):
        if number < 3:
            return rounds.rounds_publish(now=later(21))
        if number == 3:
            return SimAgent(site).sync(later(21))
        return job_cancel(job=jobs[number], actor="test", now=later(21))

    answers = together(8, act)
    assert sum(len(published) for published in answers[:3]) == 1
    leases = Lease.objects.filter(state__in=sorted(LIVE))
    assert len(set(leases.values_list("job_id", flat=True))) == leases.count()
    assert Contract.objects.count() == Lease.objects.count()
    for job in jobs:
        job.refresh_from_db()
        lease = leases.filter(job=job).first()
        if job.state == "cancelled":
            assert lease is None
        else:
            assert lease is not None
            assert (job.state == "cancelling") == (lease.revoke_asked_at is not None)
    pay(later(22))
    assert trial_balance().holds
