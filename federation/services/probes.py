"""Small paid measurements: a class that nobody has run gets one before its first award."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F

from federation.errors import Refused
from federation.machines.job import JobState
from federation.matching import gpus_held, permits
from federation.models import Contract, Job, Lease, OfferPool, Venue
from federation.selectors.affinity import believed_cells, current_offers, speed_at
from federation.services.contracts import contract_open
from federation.services.leases import PROBE_LOST, job_close, lease_offer
from federation.services.story import tell

MAX_FAILED = 2  #: probes of one job that may fail before the job is rejected
MAX_TRIES = 10  #: probes of one job in all, those included that sites lost


def probes_place(*, venue: Venue, now: datetime) -> dict[UUID, tuple[str, str]]:
    """Start probes for waiting jobs whose speed is known at no pool they may run on.

    A probe is a job of its own (`kind` probe) on the cheapest pools with free GPUs, for `probe_s`
    seconds at the site's reserve price, paid by GPU time, since no rate per sample is known yet.
    One job speaks for its class and size. Returns what each such job is to be told.
    """
    offers = list(current_offers(venue, now))
    cells = believed_cells(offers)
    lines = list(
        OfferPool.objects.filter(offer__in=offers)
        .select_related("pool__site")
        .order_by("reserve_micro", "pool__site__name", "pool__name")
    )
    held = gpus_held(venue)
    told: dict[UUID, tuple[str, str]] = {}
    spoken_for: set[tuple[UUID, int]] = set()
    for job in _waiting(venue):
        allowed = [line for line in lines if permits(job, line.pool)]
        if not allowed or any(
            speed_at(cells, line.pool_id, job.job_class_id, int(size))
            for line in allowed
            for size in job.gpus
        ):
            continue  # nowhere to measure, or known somewhere
        size = min(int(g) for g in job.gpus)
        if (job.job_class_id, size) in spoken_for or _under_way(job, size, allowed):
            told[job.pk] = ("probing", f"The speed of {job.job_class} is being measured.")
            continue
        free = [line for line in allowed if line.gpus - held[line.pool_id] >= size]
        answer = _speak(job, size, free, now)
        if answer is not None:
            told[job.pk] = answer
            if answer[0] == "probing":
                spoken_for.add((job.job_class_id, size))
    return told


def _waiting(venue: Venue) -> Iterator[Job]:
    rows = Job.objects.filter(venue=venue, kind=Job.Kind.TRAINING, state=JobState.PENDING)
    return (
        rows.select_related("job_class", "tenant", "venue").order_by("created_at", "id").iterator()
    )


def _under_way(job: Job, size: int, allowed: list[OfferPool]) -> bool:
    """A probe of its class and size runs where it may run, or has just succeeded there."""
    leases = Lease.objects.filter(
        job__job_class=job.job_class_id,
        job__kind=Job.Kind.PROBE,
        gpus=size,
        pool__in=[line.pool_id for line in allowed],
    )
    return (
        leases.filter(job__ended_at__isnull=True).exists()
        or leases.filter(job__state=JobState.SUCCEEDED, measured_samples_per_s__gt=0).exists()
    )


def _speak(job: Job, size: int, free: list[OfferPool], now: datetime) -> tuple[str, str] | None:
    """Place the probes of one job; what to tell its tenant, None when it was rejected."""
    own = list(Job.objects.filter(parent=job, kind=Job.Kind.PROBE).order_by("created_at", "id"))
    failed = [p for p in own if p.reason_code != PROBE_LOST]
    if len(failed) >= MAX_FAILED or len(own) >= MAX_TRIES:
        _reject(job, own[-1], now)
        return None
    if not free:
        return "no_capacity", f"No pool has {size} GPUs free to measure {job.job_class} first."
    placed = 0
    for line in free[: job.venue.probe_pools]:
        try:
            with transaction.atomic():
                _start(job, line, size, now)
            placed += 1
        except Refused as refusal:
            if not placed:
                return refusal.code, f"A probe of its class could not be paid: {refusal.why}"
            break
    return "probing", f"Nobody has run {job.job_class} yet: its speed is being measured."


def _reject(job: Job, probe: Job, now: datetime) -> None:
    why = (
        f"Its class has no known speed and the probes of it failed; the last said: "
        f"{probe.reason} See the log of job {probe.pk}."
    )
    job_close(job, "reject", "probe_failed", why, now)


def _start(job: Job, line: OfferPool, size: int, now: datetime) -> None:
    """One probe on one pool; its price counts against the max_cost of the job that needs it."""
    venue = job.venue
    # GPU time from the agent's start of the process to its end, with room for its stop
    gpu_ms = size * int((venue.probe_s + venue.grace_s) * 1000)
    price = -(-line.reserve_micro * gpu_ms // 3_600_000)
    paying = Job.objects.filter(
        pk=job.pk, max_cost_micro__gte=F("spent_micro") + F("held_micro") + price
    )
    if not paying.update(held_micro=F("held_micro") + price):
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
    why = f"Nobody has run {job.job_class} yet: measured first at {line.pool} (job {probe.pk})."
    tell("job", job.pk, "probe", now=now, code="probing", why=why)
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
        contracted=max(1, gpu_ms),
        payment_micro=price,
        ends_at=None,
        now=now,
        basis=Contract.Basis.GPU_MS,
    )
