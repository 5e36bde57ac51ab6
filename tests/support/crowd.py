"""A venue with many pools and very many waiting jobs, made in a few statements.

`python -m tests.support.crowd JSON` furnishes the database that the settings name; the keys are
the fields of `Crowd`, and `venue` may hold settings of the venue.
"""

from __future__ import annotations

import json
import random
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import django

if __name__ == "__main__":
    django.setup()

from federation.bulk import rows_insert
from federation.grouping import Traits, group_of
from federation.models import Job, JobClass, Member, Site, Tenant, Venue
from federation.services import ledger, members, offers, syncs

KINDS = ("A100", "H100", "L40S", "V100")
SIZES = ((1,), (2,), (4,), (8,), (1, 2, 4))
FUNDS_MICRO = 10**13
BOOT = "journal.1"


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many of everything; the same numbers and seed give the same market."""

    jobs: int = 10_000
    pools: int = 100
    sites: int = 20
    classes: int = 50
    groups: int = 50  #: kinds of job: home, class, sizes, permissions
    tenants: int = 40
    members: int = 10
    gpus: int = 32  #: of each pool
    feasible: int | None = None  #: pools each class has a speed at; None = most of them
    preemptible: float = 1.0  #: share of jobs that can be interrupted
    seed: int = 0
    venue: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Furnished:
    venue: Venue
    sites: list[Site]
    tenants: list[Tenant]


def furnish(crowd: Crowd, *, now: datetime) -> Furnished:
    """Members, sites with offers, tenants with funds, and the jobs, all waiting."""
    draw = random.Random(crowd.seed)
    settings = {"round_s": 300.0, "renew_s": 3600.0, **crowd.venue}
    venue = members.venue_ensure(now=now, **settings)
    homes = [
        members.member_create(name=f"member-{at}", actor="test", now=now)
        for at in range(crowd.members)
    ]
    classes = [
        members.class_create(name=f"class-{at}", actor="test", now=now)
        for at in range(crowd.classes)
    ]
    sites = [_site(at, crowd, venue, homes, draw, now) for at in range(crowd.sites)]
    tenants = [_tenant(at, venue, homes, now) for at in range(crowd.tenants)]
    jobs_add(crowd, venue=venue, tenants=tenants, classes=classes, draw=draw, now=now)
    return Furnished(venue, sites, tenants)


def _site(
    at: int, crowd: Crowd, venue: Venue, homes: list[Member], draw: random.Random, now: datetime
) -> Site:
    """A site in touch, with its share of the pools; every class runs on most kinds of GPU."""
    site = members.site_create(
        name=f"site-{at}", member=homes[at % len(homes)], venue=venue, actor="test", now=now
    )
    syncs.site_synced(site=site, hello=syncs.Hello("0.1.0", BOOT, 0.0), attempts=[], now=now)
    names = {f"pool-{p}": KINDS[p % len(KINDS)] for p in range(at, crowd.pools, crowd.sites)}
    lines = [
        offers.PoolLine(name, gpu, crowd.gpus, f"{draw.uniform(0.5, 2.5):.3f}")
        for name, gpu in names.items()
    ]
    speeds = [
        offers.AffinityLine(
            name, f"class-{c}", 1, round(_speed(c, gpu) * draw.uniform(0.9, 1.1), 3), "declared"
        )
        for name, gpu in names.items()
        for c in range(crowd.classes)
        if _speed(c, gpu) and _runs_there(crowd, name, c)
    ]
    draft = offers.OfferDraft(f"crowd-{at}", lines, speeds, None, None, "")
    offers.offer_submit(site=site, draft=draft, now=now)
    site.refresh_from_db()
    return site


def _runs_there(crowd: Crowd, pool: str, job_class: int) -> bool:
    """Each class at `feasible` pools, spread over sites and kinds of GPU."""
    if crowd.feasible is None:
        return True
    at = int(pool.removeprefix("pool-"))
    return (at * 7 + job_class * 11) % crowd.pools < crowd.feasible


def _speed(job_class: int, gpu: str) -> float:
    """Samples/s on one GPU of a kind; one class in ten does not run on one of the kinds."""
    at = KINDS.index(gpu)
    if job_class % 10 == at:
        return 0.0
    return 1000.0 * (1.0 + 0.35 * at) * (1.0 + 0.1 * ((job_class * 7 + at * 3) % 11))


def _tenant(at: int, venue: Venue, homes: list[Member], now: datetime) -> Tenant:
    tenant = members.tenant_create(
        name=f"tenant-{at}", member=homes[at % len(homes)], actor="test", now=now
    )
    ledger.deposit(
        tenant=tenant, venue=venue, amount_micro=FUNDS_MICRO, key="crowd", actor="test", now=now
    )
    return tenant


def jobs_add(
    crowd: Crowd,
    *,
    venue: Venue,
    tenants: list[Tenant],
    classes: list[JobClass],
    draw: random.Random,
    now: datetime,
) -> None:
    """Waiting jobs in one go: `crowd.groups` kinds of job, each with bids of its own."""
    kinds = list(_kinds(crowd, tenants, classes))
    rows_insert(
        Job,
        (
            *("id", "tenant_id", "venue_id", "name", "job_class_id", "command"),
            *("gpus", "gpu_kinds", "group", "samples", "value_micro", "max_cost_micro"),
            *("preemptible", "max_runtime_s", "grace_s", "reason_code", "reason"),
            *("created_at", "updated_at"),
        ),
        (
            (
                uuid.UUID(int=draw.getrandbits(128), version=4),
                draw.choice(kind.tenants).pk,
                venue.pk,
                f"job-{at}",
                kind.job_class.pk,
                "python train.py",
                *(list(kind.gpus), list(kind.gpu_kinds), kind.group),
                int(10 ** draw.uniform(6, 10)),
                int(5e5 * draw.lognormvariate(0.0, 0.7)) + 1,
                10**10,
                draw.random() < crowd.preemptible,
                *(7 * 86400.0, 30.0, "queued", "Waits for the next round.", now, now),
            )
            for at in range(crowd.jobs)
            for kind in (kinds[at % len(kinds)],)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    tenants: list[Tenant]
    job_class: JobClass
    gpus: tuple[int, ...]
    gpu_kinds: tuple[str, ...]
    group: str


def _kinds(crowd: Crowd, tenants: list[Tenant], classes: list[JobClass]) -> Iterator[_Kind]:
    for at in range(crowd.groups):
        home = tenants[at % len(tenants)].member_id
        job_class, gpus = classes[at % len(classes)], SIZES[at % len(SIZES)]
        able = [kind for kind in KINDS if _speed(at % len(classes), kind)]
        gpu_kinds = () if at % 5 else (able[at // 5 % len(able)],)
        traits = Traits(home, job_class.pk, Job.Kind.TRAINING, gpus, gpu_kinds)
        own = [tenant for tenant in tenants if tenant.member_id == home]
        yield _Kind(own, job_class, gpus, gpu_kinds, group_of(traits))


if __name__ == "__main__":
    from django.utils import timezone

    furnish(Crowd(**json.loads(sys.argv[1])), now=timezone.now())
