"""Which pools a job may run on, and what of them is taken: asked by the book and by the probes."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from federation.machines.lease import LIVE
from federation.models import Contract, Job, Lease, Pool, Venue


def permits(job: Job, pool: Pool) -> bool:
    """The tenant's own limits: GPU kinds, sites, pools."""
    return (
        (not job.gpu_kinds or pool.gpu in job.gpu_kinds)
        and (not job.sites_allow or pool.site.name in job.sites_allow)
        and pool.site.name not in job.sites_deny
        and (not job.pools or str(pool) in job.pools)
    )


def last_laps_of(job: str) -> Exists:
    """A live contract to the job's end; `job` names the outer query's reference to it."""
    return Exists(
        Contract.objects.filter(
            lease__job=OuterRef(job),
            lease__state__in=sorted(LIVE),
            superseded_at__isnull=True,
            to_end=True,
        )
    )


def gpus_held(venue: Venue) -> dict[UUID, int]:
    """GPUs of each pool under leases that no round can take back."""
    held: dict[UUID, int] = defaultdict(int)
    kept = Q(job__preemptible=False) | Q(job__kind=Job.Kind.PROBE) | last_laps_of("job")
    rows = Lease.objects.filter(
        kept, site__venue=venue, state__in=sorted(LIVE), revoke_asked_at__isnull=True
    )
    for pool, gpus in rows.values_list("pool_id", "gpus"):
        held[pool] += gpus
    return held
