"""A site's sync and a publication lock the same leases, and always in one order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from federation.models import Contract, Lease
from federation.services import rounds, syncs
from federation.services.syncs import AttemptSeen
from tests.federation.test_bulk_publication import a_cleared_round
from tests.support.together import together
from tests.support.world import HELLO, SimAgent, a_job, a_round, a_site, a_tenant, later

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
