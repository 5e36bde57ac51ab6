"""What jobs measured of their own steps, stored in bulk; what cannot be is held back with a reason.

Nothing is dropped: a measurement becomes a sample or a quarantined one. A report seen before
changes nothing, whichever it became.

Ids of samples grow in the order of commits within one (class, pool): the row of its model is locked
before they are given out. So who has read the samples up to one id has read all before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Subquery

from federation.bulk import AT_ONCE, pairs_stored, rows_insert, rows_update
from federation.machines.lease import LeaseState
from federation.models import (
    Forgotten,
    Lease,
    QuarantinedSample,
    Site,
    StoredModel,
    ThroughputSample,
    Venue,
)
from federation.selectors.samples import Pair, claimed_there, fastest_known
from federation.services.sample_checks import INT_32, TOO_FAST, Held, Place, SampleIn, held_back

SAMPLE = (
    *("lease_id", "pool_id", "job_class_id", "seq", "line", "received_at", "nodes", "replicas"),
    *("local_batch", "accumulation", "step_s", "sync_s", "grad_sqr", "grad_var", "memory_peak"),
)
HELD = ("lease_id", "seq", "received_at", "body", "code", "why")
MOST_WHY = 300
FORGOTTEN_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a batch; a measurement seen before is in neither."""

    samples: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class _Lease:
    """A lease as far as measurements go."""

    pair: Pair
    place: Place
    superseded: bool
    outlived: bool  #: the pool got other hardware since it was made


def samples_accept(
    *, site: Site, samples: Sequence[SampleIn], now: datetime, heard: bool = True
) -> Kept:
    """Store a batch of measurements of a site's leases; those of other leases are not looked at.

    `heard`: some may be stored already. False only where their reports are stored for the first
    time in the caller's transaction.
    """
    if not samples:
        return Kept(0, 0)
    try:
        return _accept(site, samples, now, heard)
    except IntegrityError:  # the same batch came twice at once: the other one is stored now
        return _accept(site, samples, now, True)


def _accept(site: Site, samples: Sequence[SampleIn], now: datetime, heard: bool) -> Kept:
    with transaction.atomic():
        leases = _leases(site, {sample.lease_id for sample in samples})
        fresh = _once([sample for sample in samples if sample.lease_id in leases], heard)
        good, held = _sorted(fresh, leases)
        _await(Counter(leases[sample.lease_id].pair for sample in good))
        rows_insert(ThroughputSample, SAMPLE, (_row(one, leases, now) for one in good))
        rows_insert(
            QuarantinedSample,
            HELD,
            (
                (one.lease_id, one.seq, now, one.body(), why.code, why.why[:MOST_WHY])
                for one, why in held
            ),
        )
    return Kept(len(good), len(held))


def _leases(site: Site, ids: Collection[UUID]) -> dict[UUID, _Lease]:
    changed = Forgotten.objects.filter(pool=OuterRef("pool"), cause=Forgotten.Cause.HARDWARE)
    since = Subquery(changed.order_by("-since").values("since")[:1])
    rows = Lease.objects.filter(site=site, pk__in=ids).values_list(
        "pk", "pool_id", "job__job_class_id", "pool__gpu", "gpus", "state", "created_at", since
    )
    return {
        pk: _Lease(
            pair=(pool, job_class),
            place=Place(job_class, gpu, gpus),
            superseded=state == LeaseState.FENCED,
            outlived=since is not None and made < since,
        )
        for pk, pool, job_class, gpu, gpus, state, made, since in rows
    }


def _once(samples: list[SampleIn], heard: bool) -> list[SampleIn]:
    """Of a number that stands twice, the first; without those stored before, if some can be."""
    first: dict[tuple[UUID, int], SampleIn] = {}
    for sample in samples:
        first.setdefault((sample.lease_id, sample.seq), sample)
    for model in (ThroughputSample, QuarantinedSample) if heard else ():
        for key in pairs_stored(model, ("lease_id", "seq"), first):
            del first[key]
    return sorted(first.values(), key=lambda one: (one.lease_id.int, one.seq))


def _sorted(
    samples: list[SampleIn], leases: dict[UUID, _Lease]
) -> tuple[list[SampleIn], list[tuple[SampleIn, Held]]]:
    """Those that are stored, and those that are held back with the reason."""
    told = {(sample.lease_id, sample.line) for sample in samples if 1 <= sample.line < INT_32}
    lines = pairs_stored(ThroughputSample, ("lease_id", "line"), told)
    good, held = [], []
    for sample, why in zip(samples, _judged(samples, leases), strict=True):
        key = (sample.lease_id, sample.line)
        if why is None and leases[sample.lease_id].superseded:
            why = Held("superseded", "The attempt had been given up before this came.")
        if leases[sample.lease_id].outlived:  # whatever else: it was right where it was measured
            why = Held("other_hardware", "The pool has GPUs of another kind since the lease began.")
        if why is None and key in lines:
            why = Held("duplicate", f"Line {sample.line} of this attempt was measured before.")
        if why is None:
            lines.add(key)
            good.append(sample)
        else:
            held.append((sample, why))
    return good, held


def _judged(samples: list[SampleIn], leases: dict[UUID, _Lease]) -> list[Held | None]:
    """What is wrong with each by itself.

    What its own pool's offer claims, no sample is too fast for; only of those beyond is it looked
    up what anybody has shown on GPUs of the kind.
    """
    places = [leases[sample.lease_id] for sample in samples]
    claimed = claimed_there({lease.pair for lease in places})
    found = [
        held_back(sample, lease.place, claimed.get(lease.pair, 0.0))
        for sample, lease in zip(samples, places, strict=True)
    ]
    beyond = [at for at, why in enumerate(found) if why is not None and why.code == TOO_FAST]
    if beyond:
        known = fastest_known({places[at].place.pair for at in beyond})
        for at in beyond:
            place = places[at].place
            found[at] = held_back(samples[at], place, known.get(place.pair))
    return found


def _await(counts: Counter[Pair]) -> None:
    """Note that models have samples to read. Locks their rows, in one order."""
    if not counts:
        return
    rows = StoredModel.objects.filter(
        pool__in={pool for pool, _ in counts}, job_class__in={job_class for _, job_class in counts}
    )
    pairs = rows.values_list("pk", "pool_id", "job_class_id")
    known = {(pool, job_class): pk for pk, pool, job_class in pairs}
    missing = sorted(counts.keys() - known.keys(), key=str)
    if missing:
        StoredModel.objects.bulk_create(
            (StoredModel(pool_id=pool, job_class_id=job_class) for pool, job_class in missing),
            ignore_conflicts=True,
        )
        known = {(pool, job_class): pk for pk, pool, job_class in pairs.all()}
    wanted = [known[pair] for pair in counts]
    locked = StoredModel.objects.select_for_update(no_key=True).filter(pk__in=wanted).order_by("pk")
    waiting = locked.values_list("pk", "waiting", "pool_id", "job_class_id")
    changed = [(pk, many + counts[pool, job_class]) for pk, many, pool, job_class in waiting]
    rows_update(StoredModel, ["waiting"], changed)


def _row(sample: SampleIn, leases: dict[UUID, _Lease], now: datetime) -> tuple[Any, ...]:
    lease = leases[sample.lease_id]
    return (
        *(sample.lease_id, *lease.pair, sample.seq, sample.line, now),
        *(sample.nodes or 1, sample.replicas or lease.place.gpus, sample.local_batch),
        *(sample.accumulation or 0, sample.step_s, sample.sync_s),
        *(sample.grad_sqr, sample.grad_var, sample.memory_peak),
    )


def samples_forget(*, now: datetime, limit: int = FORGOTTEN_AT_ONCE) -> int:
    """Drop measurements past their venue's retention, `limit` of each kind for each venue.

    A sample goes only when its lease is over and the model of its pair has read it: what was
    learned stays in the model. Returns how many went.
    """
    count = 0
    for venue in Venue.objects.all():
        before = now - timedelta(days=venue.retention_days)
        over = {"lease__site__venue": venue, "lease__ended_at__lt": before}
        read = StoredModel.objects.filter(
            pool=OuterRef("pool"),
            job_class=OuterRef("job_class"),
            last_sample__gte=OuterRef("pk"),
        )
        for rows in (
            ThroughputSample.objects.filter(Exists(read), received_at__lt=before, **over),
            QuarantinedSample.objects.filter(received_at__lt=before, **over),
        ):
            oldest = list(rows.order_by("pk").values_list("pk", flat=True)[:limit])
            for start in range(0, len(oldest), AT_ONCE):
                part = oldest[start : start + AT_ONCE]
                count += rows.model._default_manager.filter(pk__in=part).delete()[0]
    return count
