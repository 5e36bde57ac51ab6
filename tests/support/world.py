"""Builders with good defaults. Three members: Alder (operator), Birch (member), Clover (outsider).

Nothing here mocks: rows are made by the same services that the product uses.
"""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from federation.decision import decide
from federation.machines.lease import LIVE
from federation.models import Contract, Job, JobClass, Lease, Member, Site, Tenant, Venue
from federation.services import (
    contracts,
    ledger,
    members,
    offers,
    orders,
    reports,
    rounds,
    settling,
    syncs,
)
from federation.services.access import agent_join, join_token_issue
from federation.services.jobs import JobDraft, job_submit
from federation.services.leases import Ending

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
GAP_S = 20.0
_numbers = itertools.count(1)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_member(name: str = "") -> Member:
    name = name or f"member-{next(_numbers)}"
    return Member.objects.filter(name=name).first() or members.member_create(
        name=name, actor="test", now=NOW
    )


def a_venue(**settings: Any) -> Venue:
    defaults: dict[str, Any] = {
        "round_s": 10.0,
        "renew_s": 10.0,
        "fence_s": 60.0,
        "fence_margin_s": 5.0,
        "restart_s": 1.0,
        "probe_s": 5.0,
    }
    return members.venue_ensure(now=NOW, **{**defaults, **settings})


def a_class(name: str = "cnn") -> JobClass:
    return JobClass.objects.filter(name=name).first() or members.class_create(
        name=name, actor="test", now=NOW
    )


def a_tenant(name: str = "", *, member: Member | None = None, credits: int = 10_000) -> Tenant:
    member = member or a_member("birch")
    name = name or f"tenant-{next(_numbers)}"
    tenant = members.tenant_create(name=name, member=member, actor="test", now=NOW)
    if credits:
        ledger.deposit(
            tenant=tenant,
            venue=a_venue(),
            amount_micro=credits * 1_000_000,
            key="first",
            actor="test",
            now=NOW,
        )
    return tenant


def an_offer(
    site: Site,
    *,
    gpus: int = 4,
    gpu: str = "A100",
    reserve: str = "10",
    speeds: dict[str, float] | None = None,
    now: datetime = NOW,
) -> Any:
    """Put one pool called `gpu` on offer; `speeds`: class -> samples/s on one GPU."""
    speeds = {"cnn": 1000.0} if speeds is None else speeds
    for name in speeds:
        a_class(name)
    draft = offers.OfferDraft(
        digest=uuid.uuid4().hex,
        pools=[offers.PoolLine("gpu", gpu, gpus, reserve)],
        affinities=[offers.AffinityLine("gpu", n, 1, s, "declared") for n, s in speeds.items()],
        valid_from=None,
        valid_until=None,
        note="",
    )
    return offers.offer_submit(site=site, draft=draft, now=now)


def a_site(
    name: str = "",
    *,
    member: Member | None = None,
    online: bool = True,
    now: datetime = NOW,
    **offer: Any,
) -> Site:
    """An enrolled site with an offer, its agent in touch."""
    name = name or f"site-{next(_numbers)}"
    site = members.site_create(
        name=name, member=member or a_member("alder"), venue=a_venue(), actor="test", now=now
    )
    if online:
        syncs.site_synced(site=site, hello=HELLO, attempts=[], now=now)
        an_offer(site, now=now, **offer)
    site.refresh_from_db()
    return site


HELLO = syncs.Hello(agent_version="0.1.0", boot="journal.1", clock_skew_s=0.0)


def an_agent(site: Site, now: datetime = NOW) -> str:
    """The credential of a site's agent."""
    token = join_token_issue(site=site, actor="test", ttl_s=3600, now=now)
    return agent_join(token=token, now=now).secret


def a_job(tenant: Tenant, *, now: datetime = NOW, key: str | None = None, **fields: Any) -> Job:
    a_class(fields.get("job_class", "cnn"))
    draft: dict[str, Any] = {
        "name": f"job-{next(_numbers)}",
        "job_class": "cnn",
        "command": "python train.py",
        "gpus": [1],
        "samples": 100_000,
        "value": Decimal("500"),
        "max_cost": Decimal("1000"),
    }
    wanted = {**draft, **fields}
    wanted["value"], wanted["max_cost"] = Decimal(wanted["value"]), Decimal(wanted["max_cost"])
    return job_submit(
        tenant=tenant,
        venue=a_venue(),
        draft=JobDraft(**wanted),
        key=key,
        actor="test",
        now=now,
    ).job


def the_gateway_is_up(now: datetime, since: datetime | None = None) -> None:
    """Both parts of the broker have been alive since `since`."""
    for name in (syncs.GATEWAY, syncs.TICKS):
        syncs.pulse(name=name, now=since or NOW, gap_s=1e9)
        syncs.pulse(name=name, now=now, gap_s=1e9)


def a_round(now: datetime) -> None:
    """One round from gate to publication, decided for real."""
    venue = a_venue()
    rounds.round_ensure_open(venue=venue, now=now - timedelta(seconds=venue.round_s))
    rounds.rounds_close(now=now)
    for round_id in rounds.rounds_due(now=now):
        claim = rounds.round_claim(round_id=round_id, token=uuid.uuid4(), now=now)
        if claim is not None:
            rounds.round_record(claim=claim, decision=decide(claim.book), solve_s=0.1, now=now)
    rounds.rounds_publish(now=now)


def pay(now: datetime) -> None:
    """Measure, settle and close whatever is due."""
    contracts.contracts_measure(now=now)
    contracts.contracts_settle(now=now)
    settling.rounds_settle(now=now)


@dataclass
class SimAgent:
    """A site's agent in a test's own time: syncs and reports through the real services."""

    site: Site
    boot: str = "journal.1"
    running: dict[uuid.UUID, str] = field(default_factory=dict)
    seqs: dict[uuid.UUID, int] = field(default_factory=dict)
    samples: dict[uuid.UUID, int] = field(default_factory=dict)

    def sync(self, now: datetime) -> orders.Orders:
        """One sync: everything offered is taken up as starting."""
        attempts = [
            syncs.AttemptSeen(pk, state, None, self.seqs.get(pk, 0))
            for pk, state in self.running.items()
        ]
        self.site.refresh_from_db()
        hello = syncs.Hello("0.1.0", self.boot, 0.0)
        syncs.site_synced(site=self.site, hello=hello, attempts=attempts, now=now)
        reply = orders.orders_for_site(
            site=self.site, boot=self.boot, attempts=attempts, offer_digest="", now=now
        )
        for wanted in reply.wanted:
            self.running.setdefault(wanted.lease.pk, "starting")
        for gone in reply.forget:
            self.running.pop(gone, None)
        return reply

    def report(
        self,
        lease: Lease,
        now: datetime,
        *,
        samples: int | None = None,
        ending: Ending | None = None,
        speed: float | None = None,
    ) -> reports.ReportIn:
        """Send one report: cumulative samples under the lease's newest contract."""
        report = self.make_report(lease, samples=samples, ending=ending, speed=speed)
        reports.reports_accept(site=self.site, reports=[report], now=now)
        return report

    def make_report(
        self,
        lease: Lease,
        *,
        samples: int | None = None,
        ending: Ending | None = None,
        speed: float | None = None,
    ) -> reports.ReportIn:
        seq = self.seqs[lease.pk] = self.seqs.get(lease.pk, 0) + 1
        contract = Contract.objects.filter(lease=lease).order_by("-sequence").first()
        total = self.samples.get(lease.pk, 0) if samples is None else samples
        before = sum(
            Contract.objects.filter(lease=lease, sequence__lt=contract.sequence).values_list(
                "delivered", flat=True
            )
        )
        self.samples[lease.pk] = total
        if ending is not None:
            self.running[lease.pk] = "ended"
        elif total:
            self.running[lease.pk] = "running"
        return reports.ReportIn(
            lease_id=lease.pk,
            seq=seq,
            kind="ended" if ending else "progress",
            contract_id=contract.pk,
            measured=reports.Measured(
                samples=total,
                contract_samples=max(0, total - before),
                gpu_seconds=total / 1000,
                samples_per_s=speed,
                lines=5 if speed else 0,
                loss=0.5,
            ),
            log=None,
            ending=ending,
            body={},
        )


def live_lease(job: Job) -> Lease:
    return Lease.objects.select_related("job", "site", "pool").get(job=job, state__in=sorted(LIVE))
