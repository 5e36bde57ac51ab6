"""A small federation in mid-life for the console's tests, made by the real services."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from federation.models import (
    Contract,
    Job,
    Lease,
    MeasuredAffinity,
    Member,
    Offer,
    Pool,
    Report,
    Round,
    Site,
    Tenant,
    User,
    Venue,
)
from federation.services import reports, rounds
from federation.services.leases import Ending
from tests.support import world

OPERATOR = "olga"


@dataclass(frozen=True)
class Console:
    """What the pages are about."""

    venue: Venue
    member: Member
    site: Site
    silent: Site
    tenant: Tenant
    running: Job
    waiting: Job
    done: Job
    lease: Lease
    contract: Contract
    offer: Offer
    cleared: Round
    void: Round


def operator(name: str = OPERATOR, **flags: bool) -> User:
    return User.objects.create_user(
        name, password="a long pass phrase", is_staff=True, is_superuser=flags.get("root", True)
    )


def filled(now: datetime = world.NOW) -> Console:
    """Three sites, two tenants, five jobs, a settled, a published and a void round."""
    alder, birch = world.a_member("alder"), world.a_member("birch")
    speeds = {"cnn": 1200.0, "lm": 90.0}
    site = world.a_site("alder-1", member=alder, now=now, gpus=8, reserve="2.5", speeds=speeds)
    hall = world.a_site(
        "birch-hall", member=birch, now=now, gpus=4, gpu="H100", reserve="4", speeds=speeds
    )
    silent = world.a_site("clover-lab", member=world.a_member("clover"), now=now, online=False)
    vision = world.a_tenant("vision-team", member=birch)
    nlp = world.a_tenant("nlp-team", member=alder, credits=2_000)
    done = _job(vision, "resnet-a", now, gpus=[4], value="9", samples=20_000)
    running = _job(vision, "resnet-b", now, gpus=[2], value="7", samples=3_800_000)
    _job(nlp, "lm-small", now, gpus=[1, 2, 4], job_class="lm", value="90", samples=900_000)
    agents = [world.SimAgent(site), world.SimAgent(hall)]
    _first_round(agents, done, running, now)
    waiting = _job(nlp, "lm-cheap", now, gpus=[8], job_class="lm", value="0.01", samples=10_000)
    void = _void_round(now + timedelta(seconds=14))
    world.a_round(now + timedelta(seconds=26))
    for agent in agents:
        agent.sync(now + timedelta(seconds=27))
    world.pay(now + timedelta(seconds=28))
    _measured(site, now)
    rounds.round_ensure_open(venue=world.a_venue(), now=now + timedelta(seconds=28))
    lease = world.live_lease(running)
    return Console(
        venue=world.a_venue(),
        member=alder,
        site=site,
        silent=silent,
        tenant=vision,
        running=running,
        waiting=waiting,
        done=done,
        lease=lease,
        contract=Contract.objects.filter(lease=lease).latest("sequence"),
        offer=Offer.objects.get(site=site),
        cleared=Round.objects.filter(welfare__gt=0).order_by("number")[0],
        void=void,
    )


def _job(tenant: Tenant, name: str, now: datetime, **fields: Any) -> Job:
    bid = Decimal(str(fields.pop("value")))
    return world.a_job(tenant, now=now, name=name, value=bid * 100, **fields)


def _first_round(agents: list[world.SimAgent], done: Job, running: Job, now: datetime) -> None:
    """Both jobs start; the first ends well, the second has written a log."""
    world.a_round(now + timedelta(seconds=10))
    for agent in agents:
        agent.sync(now + timedelta(seconds=11))
    for job, samples in ((done, 20_000), (running, 6_000)):
        lease = world.live_lease(job)
        agent = next(a for a in agents if a.site.pk == lease.site_id)
        agent.report(lease, now + timedelta(seconds=12), samples=samples, speed=2300.0)
        if job is done:
            end = Ending("exited", exit_code=0)
            agent.report(lease, now + timedelta(seconds=13), samples=samples, ending=end)
        else:
            _log(agent, lease, now)
    world.pay(now + timedelta(seconds=13))


def _log(agent: world.SimAgent, lease: Lease, now: datetime) -> None:
    text = "".join(f"step {i} loss {2.5 / (i + 1):.4f}\n" for i in range(60))
    seq = agent.seqs[lease.pk] = agent.seqs[lease.pk] + 1
    contract = Contract.objects.get(lease=lease)
    piece = reports.ReportIn(
        lease_id=lease.pk,
        seq=seq,
        kind="log",
        contract_id=contract.pk,
        measured=None,
        log=reports.LogPiece(offset=0, data=text.encode(), truncated=False),
        ending=None,
        body={},
    )
    reports.reports_accept(site=agent.site, reports=[piece], now=now + timedelta(seconds=13))
    assert Report.objects.filter(lease=lease, kind="log").exists()


def _void_round(now: datetime) -> Round:
    venue = world.a_venue()
    opened = rounds.round_ensure_open(venue=venue, now=now)
    assert opened is not None
    rounds.round_void(
        round=opened, code="not_certified", why="A check of the clearing failed.", now=now
    )
    return Round.objects.get(pk=opened.pk)


def _measured(site: Site, now: datetime) -> None:
    """The site is slower than it says."""
    pool = Pool.objects.get(site=site)
    MeasuredAffinity.objects.create(
        pool=pool,
        job_class=world.a_class("cnn"),
        gpus=1,
        samples_per_s=720.0,
        leases=4,
        updated_at=now,
    )


def many_jobs(tenant: Tenant, count: int) -> None:
    """Rows enough to fill pages; written straight to the table."""
    first = Job.objects.filter(tenant=tenant).first() or world.a_job(tenant)
    Job.objects.bulk_create(
        Job(
            tenant=tenant,
            venue=first.venue,
            name=f"bulk-{n}-{uuid4().hex[:6]}",
            job_class=first.job_class,
            command="true",
            gpus=[1],
            samples=1000,
            value_micro=1,
            max_cost_micro=1,
            max_runtime_s=1.0,
            grace_s=1.0,
            created_at=world.NOW,
            updated_at=world.NOW,
        )
        for n in range(count)
    )
