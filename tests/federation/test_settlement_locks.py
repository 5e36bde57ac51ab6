"""Leases, contracts, jobs, purses: everybody locks the same rows, and always in one order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from federation.models import Account, Contract, Job, Lease
from federation.services import rounds, syncs
from federation.services.contracts import (
    contract_open,
    contracts_hold_over,
    contracts_measure,
    contracts_settle,
    last_laps,
)
from federation.services.disputes import dispute_decide, dispute_open
from federation.services.leases import Ending, lease_offer
from federation.services.probes import cells_at_gate, probes_place
from federation.services.syncs import AttemptSeen
from tests.federation.contract_scene import EXAMPLE, HOUR, a_scene, settled
from tests.federation.test_bulk_publication import a_cleared_round
from tests.support.together import together
from tests.support.world import (
    HELLO,
    SimAgent,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    later,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("ledger_may_be_flushed"),
]


def a_busy_site(jobs):
    """A site that runs jobs, and what its agent says of them, in the reverse order of their ids."""
    site, tenant = a_site("north", gpus=jobs), a_tenant("ann", credits=10**6)
    for _ in range(jobs):
        a_job(tenant, samples=10**9)
    a_round(later(20))
    agent = SimAgent(site)
    agent.sync(later(21))
    agent.sync(later(21))
    return site, [AttemptSeen(pk, "running", None, 0) for pk in sorted(agent.running, reverse=True)]


def test_syncs_and_publications_at_once_do_not_wait_for_each_other_in_a_circle():
    site, seen = a_busy_site(8)
    for number in range(3):
        a_cleared_round(32 + 10 * number)
        now = later(33 + 10 * number)

        def act(worker, now=now):
            if worker == 0:
                return len(rounds.rounds_publish(now=now))
            syncs.site_synced(site=site, hello=HELLO, attempts=seen, now=now)
            return 0

        assert sum(together(4, act)) == 1
    assert Lease.objects.filter(state="active").count() == 8
    assert Contract.objects.count() == 4 * 8


def waits_for_a_lock():
    """True once another connection waits for a lock; this view is read anew each time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0] > 0


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
@pytest.mark.parametrize("act", ["sync", "publish"])
def test_who_waits_for_the_first_lease_holds_none_of_the_later_ones(act):
    site, seen = a_busy_site(12)
    a_cleared_round(32)
    first, *rest = Lease.objects.order_by("pk").values_list("pk", flat=True)

    def other():
        try:
            if act == "sync":
                syncs.site_synced(site=site, hello=HELLO, attempts=seen, now=later(33))
            else:
                rounds.rounds_publish(now=later(33))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as crew:
        with transaction.atomic():
            Lease.objects.select_for_update().get(pk=first)
            waiting = crew.submit(other)
            while not waits_for_a_lock():
                assert not waiting.done()
            free = Lease.objects.select_for_update(skip_locked=True).filter(pk__in=rest)
            assert len(list(free)) == len(rest)
        waiting.result()


# --- jobs before purses ------------------------------------------------------------------------


def while_its_job_is_locked(job, act, then=lambda: None):
    """Run `act` on a second connection while this one has a job: it waits, and has no purse. What
    is done `then` may take any. Returns the result of `act`."""

    def other():
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as crew:
        with transaction.atomic():
            Job.objects.select_for_update(no_key=True).get(pk=job.pk)
            waiting = crew.submit(other)
            while not waits_for_a_lock():
                assert not waiting.done()
            free = Account.objects.select_for_update(no_key=True, skip_locked=True)
            assert len(list(free)) == Account.objects.count() > 0
            then()
        return waiting.result()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_a_settlement_and_a_new_placement_of_one_job_do_not_wait_for_each_other():
    scene = a_scene()
    scene.say(100, 1000, gpu_seconds=10, ending=Ending("lost"))
    contracts_measure(now=later(200))
    job = Job.objects.select_related("venue", "tenant").get(pk=scene.job.pk)
    assert (job.state, scene.contract.state) == ("pending", "measured")

    def place():
        lease = lease_offer(
            job=job,
            pool=scene.agent.site.pools.get(),
            gpus=8,
            round=None,
            fence_s=60.0,
            predicted_samples_per_s=720.0,
            now=later(201),
        )
        terms = {**EXAMPLE, "ends_at": later(4000), "now": later(201)}
        contract_open(lease=lease, round=None, **terms)

    [paid] = while_its_job_is_locked(job, lambda: contracts_settle(now=later(201)), place)
    assert paid.pk == scene.contracts[0].pk
    job.refresh_from_db()
    assert (job.held_micro, job.spent_micro) == (EXAMPLE["payment_micro"], paid.paid_micro)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_a_publication_locks_its_jobs_before_the_purses():
    a_busy_site(2)
    a_cleared_round(32)
    job = Job.objects.order_by("-pk").first()
    assert len(while_its_job_is_locked(job, lambda: rounds.rounds_publish(now=later(33)))) == 1


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_contracts_that_are_enlarged_lock_their_jobs_before_the_purses():
    scene = a_scene()
    scene.say(3600, 2_592_000)
    held = while_its_job_is_locked(scene.job, lambda: contracts_hold_over(now=later(6000)))
    assert [c.pk for c in held] == [scene.contract.pk]


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_last_laps_lock_all_their_jobs_before_the_first_purse():
    a_venue(round_s=HOUR)
    tenant = a_tenant()
    scenes = [a_scene(tenant=tenant, site=a_site(name, gpus=8)) for name in ("north", "south")]
    for scene in scenes:
        scene.say(1800, 1_296_000)
    Job.objects.update(samples=1_296_000 + 1_296_000 + 3)
    last = max((scene.job for scene in scenes), key=lambda job: job.pk)
    laps = while_its_job_is_locked(last, lambda: last_laps(venue=a_venue(), now=later(1801)))
    assert {c.pk for c in laps} == {scene.contract.pk for scene in scenes}
    assert {scene.contract.payment_micro for scene in scenes} == {66_992_078}


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_a_gate_locks_the_jobs_that_pay_for_probes_before_the_purses():
    a_site("north", gpus=4, speeds={})
    tenant = a_tenant("ann")
    jobs = [a_job(tenant, gpus=[size], now=later(size)) for size in (1, 2)]  # the oldest first

    @transaction.atomic  # as a round is closed
    def gate():
        cells = cells_at_gate(venue=a_venue(), now=later(5))
        return probes_place(venue=a_venue(), now=later(5), cells=cells)

    told = while_its_job_is_locked(jobs[1], gate)
    assert {code for code, _ in told.values()} == {"probing"}
    assert Job.objects.filter(kind="probe").count() == 2


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no locks of rows")
def test_a_decision_locks_the_job_before_it_gives_back_what_was_frozen():
    scene = a_scene()
    contract = settled(scene, 2_384_640)
    said = {"actor": "t", "why": "so"}
    dispute = dispute_open(
        contract=contract, by="tenant", code="less", claimed=1, now=later(4000), **said
    )

    def decide():
        return dispute_decide(
            dispute=dispute, accepted=1_000_000, cause="site", now=later(5000), **said
        )

    assert while_its_job_is_locked(scene.job, decide).accepted == 1_000_000
