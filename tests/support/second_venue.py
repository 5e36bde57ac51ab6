"""A second venue with a site on line and a job that waits: `python -m tests.support.second_venue`.

Its site has no agent: that is enough for a book.
"""

from __future__ import annotations

from decimal import Decimal

import django

if __name__ == "__main__":
    django.setup()
    from django.utils import timezone

    from federation.models import Member, Tenant
    from federation.services import offers, syncs
    from federation.services.jobs import JobDraft, job_submit
    from federation.services.members import site_create, venue_ensure

    now = timezone.now()
    venue = venue_ensure(now=now, name="lab", round_s=3.0, solve_patience_s=60.0)
    owner = Member.objects.get(name="alder")
    site = site_create(name="lab-site", member=owner, venue=venue, actor="test", now=now)
    hello = syncs.Hello(agent_version="0.1.0", boot="journal.1", clock_skew_s=0.0)
    syncs.site_synced(site=site, hello=hello, attempts=[], now=now)
    draft = offers.OfferDraft(
        digest="first",
        pools=[offers.PoolLine("gpu", "A100", 4, "10")],
        affinities=[offers.AffinityLine("gpu", "steady", 1, 1000.0, "declared")],
        valid_from=None,
        valid_until=None,
        note="",
    )
    offers.offer_submit(site=site, draft=draft, now=now)
    job = JobDraft(
        name="lab-job",
        job_class="steady",
        command="true",
        gpus=(1,),
        samples=100_000,
        value=Decimal("500"),
        max_cost=Decimal("1000"),
    )
    tenant = Tenant.objects.get(name="ann")
    job_submit(tenant=tenant, venue=venue, draft=job, key=None, actor="test", now=now)
