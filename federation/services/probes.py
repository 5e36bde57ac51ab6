"""Small paid measurements: a class that nobody has run gets one before its first award."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from federation.errors import Refused
from federation.machines.job import JobState
from federation.models import Contract, Job, Lease, Offer, OfferPool, Venue
from federation.selectors.affinity import believed_cells, current_offers
from federation.services.contracts import contract_open
from federation.services.leases import PROBE_LOST, lease_offer
from federation.services.story import move, tell

MAX_FAILED = 2  #: probes of one job that may fail before the job is rejected
MAX_TRIES = 10  #: probes of one job in all, those included that sites lost


def probes_place(*, venue: Venue, now: datetime) -> list[UUID]:
    """Start a probe for each waiting job whose class nobody has run; one job speaks for a class.

    The probe is a job of its own (`kind` probe) on the cheapest pools that fit, for `probe_s`
    seconds at the site's reserve price, paid by GPU time, since no rate per sample is known yet.
    """
    offers = list(current_offers(venue, now))
    known = {job_class for _, job_class, _ in believed_cells(offers)}
    waiting = (
        Job.objects.filter(venue=venue, kind=Job.Kind.TRAINING, state=JobState.PENDING)
        .exclude(job_class_id__in=known)
        .select_related("job_class", "tenant", "venue")
        .order_by("created_at", "id")
    )
    placed: list[UUID] = []
    spoken_for: set[UUID] = set()
    for job in waiting:
        if job.job_class_id in spoken_for:
            continue
        spoken_for.add(job.job_class_id)
        probes = list(Job.objects.filter(job_class_id=job.job_class_id, kind=Job.Kind.PROBE))
        if any(p.ended_at is None for p in probes) or _just_measured(probes, offers):
            continue
        own = [p for p in probes if p.parent_id == job.pk]
        failed = [p for p in own if p.reason_code != PROBE_LOST]
        if len(failed) >= MAX_FAILED or len(own) >= MAX_TRIES:
            _reject(job, own[-1], now)
        else:
            placed += _probe(job, offers, now)
    return placed


def _just_measured(probes: list[Job], offers: list[Offer]) -> bool:
    """A probe at a pool on offer has succeeded: its speed is about to be folded in."""
    measured = [p.pk for p in probes if p.state == JobState.SUCCEEDED]
    return Lease.objects.filter(
        job_id__in=measured, measured_samples_per_s__gt=0, site__offers__in=offers
    ).exists()


def _reject(job: Job, probe: Job, now: datetime) -> None:
    why = (
        f"Its class has no known speed and the probes of it failed; the last said: "
        f"{probe.reason} See the log of job {probe.pk}."
    )
    move(
        job,
        "reject",
        now=now,
        code="probe_failed",
        why=why,
        reason_code="probe_failed",
        reason=why[:1000],
        ended_at=now,
        updated_at=now,
    )


def _probe(job: Job, offers: list[Offer], now: datetime) -> list[UUID]:
    size = min(int(g) for g in job.gpus)
    lines = (
        OfferPool.objects.filter(offer__in=offers, gpus__gte=size)
        .select_related("pool__site")
        .order_by("reserve_micro", "pool__site__name", "pool__name")
    )
    fitting = [
        line
        for line in lines
        if (not job.gpu_kinds or line.pool.gpu in job.gpu_kinds)
        and (not job.sites_allow or line.pool.site.name in job.sites_allow)
        and line.pool.site.name not in job.sites_deny
        and (not job.pools or str(line.pool) in job.pools)
    ]
    placed = []
    for line in fitting[: job.venue.probe_pools]:
        try:
            with transaction.atomic():
                placed.append(_start(job, line, size, now))
        except Refused as refusal:
            Job.objects.filter(pk=job.pk).update(
                outcome_code=refusal.code, outcome_why=f"A probe was not paid for: {refusal.why}"
            )
            break
    return placed


def _start(job: Job, line: OfferPool, size: int, now: datetime) -> UUID:
    venue = job.venue
    # GPU time from the agent's start of the process to its end, with room for its stop
    hours = size * (venue.probe_s + venue.grace_s) / 3600
    price = -(-line.reserve_micro * size * int((venue.probe_s + venue.grace_s) * 1000) // 3_600_000)
    if job.spent_micro + job.held_micro + price > job.max_cost_micro:
        raise Refused("its max_cost does not cover it.", code="max_cost")
    probe = Job.objects.create(
        tenant=job.tenant,
        venue=venue,
        kind=Job.Kind.PROBE,
        parent=job,
        name=f"probe-{line.pool.site.name}-{job.name}"[:63],
        job_class=job.job_class,
        command=job.command,
        setup=job.setup,
        env=job.env,
        gpus=[size],
        samples=job.samples,  # its runtime limit ends it
        value_micro=job.value_micro,
        max_cost_micro=max(price, 1),
        preemptible=False,
        max_runtime_s=venue.probe_s,
        grace_s=job.grace_s,
        created_at=now,
        updated_at=now,
    )
    tell("job", probe.pk, "submit", now=now, to_state=probe.state, why=f"measures {job.job_class}")
    tell(
        "job",
        job.pk,
        "probe",
        now=now,
        code="probing",
        why=f"Nobody has run {job.job_class} yet: measured first at {line.pool} (job {probe.pk}).",
    )
    lease = lease_offer(
        job=probe,
        pool=line.pool,
        gpus=size,
        round=None,
        fence_s=venue.fence_s,
        predicted_samples_per_s=None,
        now=now,
    )
    if lease is None:
        raise Refused("the probe could not be placed.", code="probe_not_placed")
    contract_open(
        lease=lease,
        round=None,
        price_micro=line.reserve_micro,
        contracted=max(1, int(hours * 3_600_000)),
        payment_micro=price,
        ends_at=None,
        now=now,
        basis=Contract.Basis.GPU_MS,
    )
    return probe.pk
