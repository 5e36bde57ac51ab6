"""A round of ten thousand waiting jobs: certified, paid to the last micro-credit, nothing twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from django.db.models import Count, Sum

from economics.certificate import verify
from federation.machines.lease import LIVE
from federation.models import Assignment, Contract, Entry, Job, Lease, PoolPrice, Round
from federation.selectors.accounts import trial_balance
from federation.selectors.rounds import book_of, clearing_of
from federation.services.leases import Ending
from tests.support.crowd import Crowd, Furnished, furnish
from tests.support.realm import Realm
from tests.support.servers import Postgres, Valkey
from tests.support.world import SimAgent, a_round, later, pay

pytestmark = pytest.mark.slow
JOBS = 10_000
MARKET = Crowd(jobs=JOBS, pools=40, sites=10, classes=20, groups=40)
PATIENCE_S = 150.0  #: on a machine that does other things too
LIVE_STATES = ", ".join(f"'{state}'" for state in sorted(LIVE))


@pytest.fixture
def market(db: None) -> Furnished:
    return furnish(MARKET, now=later(0))


def in_full(agents: list[SimAgent], now: float) -> Counter[str]:
    """Every site fetches what was awarded to it; how often each job was given to a site."""
    given: Counter[str] = Counter()
    for agent in agents:
        given.update(str(wanted.lease.job_id) for wanted in agent.sync(later(now)).wanted)
        agent.sync(later(now))
    return given


def all_end(agents: list[SimAgent], now: float) -> int:
    """Every running attempt trains its contract's samples and ends well; how many there were."""
    count = 0
    for agent in agents:
        for lease in Lease.objects.filter(site=agent.site, state="active"):
            contract = Contract.objects.get(lease=lease, superseded_at=None)
            done = {"samples": contract.contracted, "speed": lease.predicted_samples_per_s}
            agent.report(lease, later(now), **done, ending=Ending("exited", 0))
            count += 1
    return count


def test_two_rounds_of_ten_thousand_jobs_from_bids_to_money(market):
    agents = [SimAgent(site) for site in market.sites]
    a_round(later(300))
    first = Round.objects.get(number=1)
    assert (first.state, first.certified, first.bids) == ("published", True, JOBS)
    assert all(check.holds for check in verify(book_of(first), clearing_of(first)))
    assert PoolPrice.objects.filter(round=first).count() == MARKET.pools

    awards = Assignment.objects.filter(round=first)
    assert awards.count() > 100
    assert not awards.exclude(status="placed").exists()
    assert Job.objects.filter(outcome_round=1).exclude(outcome_why="").count() == JOBS
    sold = dict(awards.values_list("pool").annotate(Sum("gpus")))
    assert max(sold.values()) <= MARKET.gpus

    given = in_full(agents, 301)
    assert set(given.values()) == {1}
    assert len(given) == awards.count() == Lease.objects.count()
    ended = all_end(agents, 500)
    assert ended == len(given)

    a_round(later(601))
    second = Round.objects.get(number=2)
    assert (second.state, second.certified, second.bids) == ("published", True, JOBS - ended)
    again = in_full(agents, 602)
    assert not set(again) & set(given)  # what has succeeded is not given out again
    all_end(agents, 800)
    pay(later(801))

    assert Job.objects.filter(state="succeeded").count() == len(given) + len(again)
    attempts = Lease.objects.values("job").annotate(n=Count("pk"))
    assert set(attempts.values_list("n", flat=True)) == {1}
    assert not Contract.objects.exclude(state="settled").exists()
    assert not Job.objects.exclude(held_micro=0).exists()
    assert Entry.objects.aggregate(total=Sum("amount_micro"))["total"] == 0
    assert trial_balance().holds
    spent = Job.objects.aggregate(total=Sum("spent_micro"))["total"]
    assert spent == Contract.objects.aggregate(total=Sum("paid_micro"))["total"] > 0


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Realm]:
    """Real processes under production settings, on PostgreSQL and Valkey, with the market in."""
    postgres, valkey = Postgres(), Valkey()
    postgres.create()
    postgres.start()
    valkey.start()
    home = Path(tempfile.mkdtemp(prefix="hanse-e2e-"))
    realm = Realm(
        home,
        settings="broker.settings.prod",
        HANSE_DATABASE_URL=postgres.url,
        HANSE_REDIS_URL=valkey.url,
        HANSE_SECRET_KEY="a key for this test only, long enough for Django's checks 0123456789",
        HANSE_SSL_REDIRECT="false",
        HANSE_STATIC_ROOT=str(tmp_path / "static"),
    )
    realm.federation.migrate()
    wish = json.dumps({**asdict(MARKET), "venue": {"round_s": 5.0}})
    subprocess.run(
        [sys.executable, "-m", "tests.support.crowd", wish],
        env=realm.federation.env,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    realm.start()
    yield realm
    realm.close()
    valkey.stop()
    postgres.remove()
    shutil.rmtree(home, ignore_errors=True)


def test_the_worker_s_own_processes_clear_ten_thousand_jobs(production):
    """Closed, claimed, solved, recorded and published by Celery; nobody helps."""
    r = production
    r.wait(
        lambda: r.rows("SELECT 1 FROM federation_round WHERE number = 1 AND state = 'published'"),
        "the publication of the first round",
        PATIENCE_S,
    )
    r.wait(
        lambda: r.rows("SELECT 1 FROM federation_round WHERE number = 1 AND NOT explanations_due"),
        "the explanations of the first round",
    )
    [first] = r.rows("SELECT certified, claims, bids FROM federation_round WHERE number = 1")
    assert first == {"certified": True, "claims": 1, "bids": JOBS}
    [untold] = r.rows("SELECT count(*) AS n FROM federation_job WHERE outcome_why = ''")
    assert untold["n"] == 0
    [awarded] = r.rows("SELECT count(*) AS n FROM federation_assignment WHERE status <> 'dropped'")
    [leased] = r.rows("SELECT count(DISTINCT job_id) AS n FROM federation_lease")
    assert awarded["n"] >= leased["n"] > 100
    assert not r.rows(
        f"SELECT job_id FROM federation_lease WHERE state IN ({LIVE_STATES}) "
        "GROUP BY job_id HAVING count(*) > 1"
    )
    assert not r.rows("SELECT 1 FROM federation_round WHERE state = 'void'")
    [total] = r.rows("SELECT COALESCE(SUM(amount_micro), 1) AS s FROM federation_entry")
    assert int(total["s"]) == 0
    assert not r.rows(
        "SELECT group_id FROM federation_entry GROUP BY group_id HAVING SUM(amount_micro) <> 0"
    )
    # one statement: the market goes on while we look
    [purses] = r.rows(
        "SELECT (SELECT SUM(balance_micro) FROM federation_account WHERE kind = 'tenant_escrow') "
        "- (SELECT SUM(payment_micro) FROM federation_contract WHERE settled_at IS NULL) AS short"
    )
    assert int(purses["short"]) == 0
