"""Small measurements: of a class that nobody has run, before its first award, paid by the job that
needs it; and of a claim above what was measured, on the account of the site that makes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import F, Min, Q, QuerySet

from federation.admission import Doors
from federation.bulk import IdText
from federation.errors import Refused
from federation.machines.job import JobState
from federation.matching import gpus_held, permits
from federation.models import Alarm, Contract, Job, Lease, OfferPool, Venue
from federation.selectors.admission import doors_read, shut
from federation.selectors.affinity import (
    Matrix,
    believed_cells,
    claims_read_again,
    current_offers,
)
from federation.services.contracts import contract_open
from federation.services.guard import claim_probed, claims_review, open_claims
from federation.services.leases import PROBE_LOST, job_close, lease_offer
from federation.services.story import tell

MAX_FAILED = 2  #: probes of one job that may fail before the job is rejected
MAX_TRIES = 10  #: probes of one job in all, those included that sites lost
LOOKED_AT = 100  #: waiting jobs that are asked whether they lend a command to a claim's probe


def cells_at_gate(*, venue: Venue, now: datetime) -> Matrix:
    """The affinity matrix for one gate, read once; claims were held against what was measured."""
    offers = list(current_offers(venue, now))
    cells = believed_cells(offers)
    claims_review(venue=venue, now=now, cells=cells)
    return claims_read_again(offers, cells)


@transaction.atomic
def probes_place(*, venue: Venue, now: datetime, cells: Matrix) -> dict[UUID, tuple[str, str]]:
    """Start probes for waiting jobs whose speed is known at no pool they may run on.

    A probe is a job of its own (`kind` probe) for `probe_s` seconds at the site's reserve price,
    paid by GPU time, since no rate per sample is known yet. Of the pools with free GPUs those come
    first where the work is likely cheapest by the sample, as priors say. One job speaks for its
    class and size. `cells` are those of the gate; claims in doubt are probed last. Returns what
    each such job is to be told.
    """
    desk = _desk(venue, now, cells)
    _lock(venue, desk)
    told: dict[UUID, tuple[str, str]] = {}
    spoken_for: set[tuple[UUID, int]] = set()
    for job in _waiting(venue, desk):
        allowed, size = desk.allowed[_key(job)], _least(job)
        if (job.job_class_id, size) in spoken_for or desk.under_way(job):
            told[job.pk] = ("probing", f"The speed of {job.job_class} is being measured.")
            continue
        open_to = [line for line in allowed if not shut(desk.doors, job, line.pool, gpus=size)]
        free = [line for line in open_to if line.gpus - desk.held[line.pool_id] >= size]
        if not open_to:
            told[job.pk] = (
                "not_admitted",
                f"No site where {job.job_class} could be measured takes this job.",
            )
            continue
        free.sort(key=partial(_likely_price, job=job, size=size, cells=cells))
        answer = _speak(job, desk.probes[job.pk], free, now)
        if answer is not None:
            told[job.pk] = answer
            if answer[0] == "probing":
                spoken_for.add((job.job_class_id, size))
    claims_probe(venue=venue, now=now)
    return told


def claims_probe(*, venue: Venue, now: datetime) -> list[Job]:
    """Measure claims in doubt, each version of one once, where a job waits that may run there.

    The waiting job lends its command and pays nothing: the probe's price is zero, so the site
    bears the cost of showing what it claims. Without a waiting job, or free GPUs, the claim waits.
    """
    doubted = [alarm for alarm in open_claims(venue) if "probe" not in alarm.figures]
    if not doubted:
        return []
    offers = list(current_offers(venue, now))
    rows = OfferPool.objects.filter(offer__in=offers).select_related("pool__site")
    lines, doors = {line.pool_id: line for line in rows}, doors_read(venue, offers, now)
    held, placed = gpus_held(venue), []
    for alarm in doubted:
        line, size = lines.get(alarm.pool_id), int(alarm.figures["gpus"])  # type: ignore[arg-type]
        if line is None or line.gpus - held[line.pool_id] < size:
            continue
        job = _lender(venue, alarm, line, doors)
        if job is None:
            continue
        with transaction.atomic():
            probe = _probe(job, line, size, 0, now, for_claim=True)
            claim_probed(alarm=alarm, probe=str(probe.pk))
        held[line.pool_id] += size
        placed.append(probe)
    return placed


def _lender(venue: Venue, alarm: Alarm, line: OfferPool, doors: Doors) -> Job | None:
    """The oldest waiting job of the claim's class and size that may run there."""
    rows = _queue(venue).filter(job_class=alarm.job_class_id)
    ordered = rows.select_related("job_class", "tenant", "venue").order_by("created_at", "id")
    size = int(alarm.figures["gpus"])
    return next(
        (
            job
            for job in ordered[:LOOKED_AT]
            if size in job.gpus
            and permits(job, line.pool)
            and not shut(doors, job, line.pool, gpus=size)
        ),
        None,
    )


@dataclass(slots=True)
class _Desk:
    """What is known of the groups of jobs that nobody can run yet, by `_key`."""

    allowed: dict[str, list[OfferPool]]  #: pools of the groups that want measuring
    held: dict[UUID, int]  #: pool -> GPUs that are not free
    probes: dict[UUID, list[Job]]  #: job -> its own probes so far, oldest first
    doors: Doors  #: who is not let in where
    measured: dict[str, bool]  #: whether a probe of a group is under way or has succeeded

    def under_way(self, job: Job) -> bool:
        key = _key(job)
        if key not in self.measured:
            self.measured[key] = _under_way(job, _least(job), self.allowed[key])
        return self.measured[key]


def _desk(venue: Venue, now: datetime, cells: Matrix) -> _Desk:
    """One look at the market for each group of waiting jobs, and more at those without a speed."""
    offers = list(current_offers(venue, now))
    lines = list(
        OfferPool.objects.filter(offer__in=offers)
        .select_related("pool__site")
        .order_by("reserve_micro", "pool__site__name", "pool__name")
    )
    allowed: dict[str, list[OfferPool]] = {}
    for job in _speakers(venue):
        own = [line for line in lines if permits(job, line.pool)]
        known = any(
            cells.speed(line.pool_id, job.job_class_id, int(size))
            for line in own
            for size in job.gpus
        )
        if own and not known:  # else nowhere to measure, or known somewhere
            allowed[_key(job)] = own
    probes: dict[UUID, list[Job]] = defaultdict(list)
    if allowed:
        sent = Job.objects.filter(venue=venue, kind=Job.Kind.PROBE, parent__ended_at__isnull=True)
        for probe in sent.order_by("created_at", "id"):
            if probe.parent_id is not None:
                probes[probe.parent_id].append(probe)
    doors = doors_read(venue, offers, now)
    return _Desk(allowed, gpus_held(venue), probes, doors, measured={})


def _key(job: Job) -> str:
    return job.group or str(job.pk)


def _least(job: Job) -> int:
    return min(int(size) for size in job.gpus)


def _queue(venue: Venue) -> QuerySet[Job]:
    waiting = Job.objects.filter(venue=venue, kind=Job.Kind.TRAINING, state=JobState.PENDING)
    return waiting.filter(cancel_asked_at__isnull=True)


def _speakers(venue: Venue) -> Iterator[Job]:
    """One waiting job of each group, and every one that has no group."""
    rows = _queue(venue).order_by()
    first = rows.exclude(group="").values("group").annotate(one=Min(IdText("id")))
    ids = [UUID(job) for job in first.values_list("one", flat=True)]
    ids += rows.filter(group="").values_list("pk", flat=True)
    return iter(Job.objects.in_bulk(ids).values())


def _waiting(venue: Venue, desk: _Desk) -> Iterator[Job]:
    """Waiting jobs that want measuring, the oldest first."""
    if not desk.allowed:
        return iter(())
    rows = _queue(venue).filter(Q(group__in=desk.allowed) | Q(group=""))
    ordered = rows.select_related("job_class", "tenant", "venue").order_by("created_at", "id")
    return (job for job in ordered.iterator() if _key(job) in desk.allowed)


def _lock(venue: Venue, desk: _Desk) -> None:
    """Lock the jobs that may pay for a probe, all of them before the first purse: who settles one
    has its job and waits for a purse."""
    if desk.allowed:
        rows = _queue(venue).filter(Q(group__in=desk.allowed) | Q(group=""))
        jobs = rows.select_for_update(no_key=True).order_by("pk")
        list(jobs.values_list("pk", flat=True))


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


def _likely_price(line: OfferPool, job: Job, size: int, cells: Matrix) -> tuple[bool, float, float]:
    """Sorts pools by the reserve price of a sample, as far as a prior, or a model beyond its
    samples, supposes a speed there; after them the others by the price of a GPU-hour."""
    supposed = cells.supposed(line.pool_id, job.job_class_id, size)
    if supposed is None:
        return True, line.reserve_micro, 0.0
    speed = supposed.samples_per_s
    return False, line.reserve_micro * size / speed, -speed


def _speak(
    job: Job, own: list[Job], free: list[OfferPool], now: datetime
) -> tuple[str, str] | None:
    """Place the probes of one job; what to tell its tenant, None when it was rejected."""
    size, failed = _least(job), [p for p in own if p.reason_code != PROBE_LOST]
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
    price = -(-line.reserve_micro * _gpu_ms(job.venue, size) // 3_600_000)
    paying = Job.objects.filter(
        pk=job.pk, max_cost_micro__gte=F("spent_micro") + F("held_micro") + price
    )
    if not paying.update(held_micro=F("held_micro") + price):
        raise Refused("its max_cost does not cover it.", code="max_cost")
    probe = _probe(job, line, size, price, now)
    why = f"Nobody has run {job.job_class} yet: measured first at {line.pool} (job {probe.pk})."
    tell("job", job.pk, "probe", now=now, code="probing", why=why)


def _gpu_ms(venue: Venue, size: int) -> int:
    """GPU time from the agent's start of the process to its end, with room for its stop."""
    return size * int((venue.probe_s + venue.grace_s) * 1000)


def _probe(
    job: Job, line: OfferPool, size: int, price: int, now: datetime, *, for_claim: bool = False
) -> Job:
    """A job of its own with another's command, its lease and its contract.

    One for a claim belongs to no job: it is neither paid for nor stopped with the one that lent
    its command.
    """
    venue = job.venue
    probe = Job.objects.create(
        tenant=job.tenant,
        venue=venue,
        kind=Job.Kind.PROBE,
        parent=None if for_claim else job,
        name=f"probe-{line.pool.site.name}-{job.name}"[:63],
        job_class=job.job_class,
        command=job.command,
        setup=job.setup,
        env=job.env,
        gpus=[size],
        model=job.model,
        samples=job.samples,  # its runtime limit ends it
        value_micro=job.value_micro,
        max_cost_micro=max(price, 1),
        preemptible=False,
        max_runtime_s=venue.probe_s,
        grace_s=job.grace_s,
        created_at=now,
        updated_at=now,
    )
    what = "a claim of its site for" if for_claim else "the speed of"
    why = f"measures {what} {job.job_class}"
    tell("job", probe.pk, "submit", now=now, to_state=probe.state, why=why)
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
        price_micro=0 if for_claim else line.reserve_micro,
        contracted=max(1, _gpu_ms(venue, size)),
        payment_micro=price,
        ends_at=None,
        now=now,
        basis=Contract.Basis.GPU_MS,
    )
    return probe
