"""Prices are posted first, explanations follow: whatever happens in between, every job is told."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, OperationalError

from federation.bulk import rows_update
from federation.models import Assignment, Contract, Job, Lease, PoolPrice
from federation.selectors.accounts import trial_balance
from federation.services import outcomes, publication, rounds
from tests.federation.test_bulk_publication import a_cleared_round
from tests.support.world import a_job, a_round, a_site, a_tenant, later

pytestmark = pytest.mark.django_db


@pytest.fixture
def crowded(db):
    """One GPU and seven jobs: one award, six jobs to be told why not."""
    a_site("north", gpus=1)
    tenant = a_tenant("ann")
    jobs = [a_job(tenant, value=str(500 + at)) for at in range(7)]
    return jobs, a_cleared_round(20)


def told():
    return Job.objects.filter(outcome_round=1).count()


def test_prices_and_awards_are_posted_before_the_explanations(crowded):
    jobs, round = crowded
    assert round.state == "cleared"
    assert round.explanations_due
    assert PoolPrice.objects.filter(round=round).count() == 1
    [award] = Assignment.objects.filter(round=round)
    winner = Job.objects.get(pk=award.job_id)
    assert (winner.outcome_code, told()) == ("awarded", 1)
    rounds.rounds_publish(now=later(21))
    round.refresh_from_db()
    assert not round.explanations_due
    assert told() == len(jobs)
    assert not Job.objects.filter(outcome_why="").exists()


def test_a_worker_that_dies_between_the_explanations_leaves_them_to_the_next_tick(
    crowded, monkeypatch
):
    jobs, round = crowded
    calls = []

    def dies_after_one_part(*args, **named):
        calls.append(1)
        if len(calls) == 2:
            raise OperationalError("server closed the connection unexpectedly")
        return rows_update(*args, **named)

    monkeypatch.setattr(outcomes, "AT_ONCE", 2)
    monkeypatch.setattr(outcomes, "rows_update", dies_after_one_part)
    with pytest.raises(DatabaseError):
        rounds.rounds_publish(now=later(21))
    round.refresh_from_db()
    assert (round.state, round.explanations_due) == ("published", True)
    assert Lease.objects.count() == 1  # what was awarded did not wait for words
    assert told() == 3
    calls.append(1)  # it is back
    assert rounds.rounds_publish(now=later(22)) == []
    assert told() == 3  # whoever published it may still be telling
    assert rounds.rounds_publish(now=later(90)) == []
    round.refresh_from_db()
    assert not round.explanations_due
    assert told() == len(jobs)
    assert outcomes.rounds_explain(now=later(200)) == []


def test_a_worker_that_dies_before_publication_publishes_nothing_twice(crowded, monkeypatch):
    _, round = crowded
    escrow = publication.Purses.hold

    def dies(*_):
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(publication.Purses, "hold", dies)
    with pytest.raises(DatabaseError):
        rounds.rounds_publish(now=later(21))
    round.refresh_from_db()
    assert round.state == "cleared"
    assert not Lease.objects.exists()
    monkeypatch.setattr(publication.Purses, "hold", escrow)
    assert rounds.rounds_publish(now=later(22)) == [round.pk]
    assert Lease.objects.count() == Contract.objects.count() == 1
    assert trial_balance().holds


def test_a_later_round_s_word_stands(crowded):
    jobs, _ = crowded
    later_word = {str(job.pk): ("no_funds", "said later") for job in jobs[:2]}
    outcomes.outcomes_tell(number=2, told=later_word)
    rounds.rounds_publish(now=later(21))
    for job in jobs[:2]:
        job.refresh_from_db()
        assert (job.outcome_round, job.outcome_why) == (2, "said later")
    assert told() == len(jobs) - 2


def test_an_outbid_job_hears_why_at_once():
    """Its lease is asked back with the reason, so its explanation cannot wait."""
    site = a_site("north", gpus=1)
    tenant = a_tenant("ann")
    poor = a_job(tenant, value="500", samples=10**9)
    a_round(later(20))
    a_job(tenant, value="900", samples=10**9)
    a_cleared_round(31)
    poor.refresh_from_db()
    assert poor.outcome_round == 2
    assert poor.outcome_code in ("priced_out", "rejected_at_price")
    rounds.rounds_publish(now=later(31))
    lease = Lease.objects.get(job=poor)
    assert (lease.site, lease.revoke_code) == (site, "outbid")
    assert lease.revoke_why == poor.outcome_why[:300]


def test_an_explanation_that_cannot_be_made_does_not_stop_the_market(crowded, monkeypatch, caplog):
    _, round = crowded

    def broken(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(outcomes, "outcomes_read", broken)
    assert rounds.rounds_publish(now=later(21)) == [round.pk]
    assert "could not be explained" in caplog.text
    round.refresh_from_db()
    assert (round.state, round.explanations_due) == ("published", False)
    assert rounds.rounds_publish(now=later(22)) == []


def test_a_round_whose_book_is_forgotten_owes_no_explanation(crowded):
    _, round = crowded
    round.snapshot.body = None
    round.snapshot.save()
    assert outcomes.rounds_explain(now=later(21)) == []
    assert outcomes.rounds_explain(now=later(21), fresh=[round.pk]) == [round.pk]
    assert told() == 1
