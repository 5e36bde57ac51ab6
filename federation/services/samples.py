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
from django.db.models import Exists, OuterRef

from federation.bulk import AT_ONCE, rows_among, rows_insert, rows_update
from federation.machines.lease import LeaseState
from federation.models import Lease, QuarantinedSample, Site, StoredModel, ThroughputSample, Venue
from federation.selectors.samples import Fastest, fastest_known
from federation.services.sample_checks import Held, Place, SampleIn, held_back

SAMPLE = (
    *("lease_id", "pool_id", "job_class_id", "seq", "line", "received_at", "nodes", "replicas"),
    *("local_batch", "accumulation", "step_s", "sync_s", "grad_sqr", "grad_var", "memory_peak"),
)
HELD = ("lease_id", "seq", "received_at", "body", "code", "why")
MOST_WHY = 300
FORGOTTEN_AT_ONCE = 50_000
Pair = tuple[UUID, UUID]  #: pool and class


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


def samples_accept(*, site: Site, samples: Sequence[SampleIn], now: datetime) -> Kept:
    """Store a batch of measurements of a site's leases; those of other leases are not looked at."""
    if not samples:
        return Kept(0, 0)
    try:
        return _accept(site, samples, now)
    except IntegrityError:  # the same batch came twice at once: the other one is stored now
        return _accept(site, samples, now)


def _accept(site: Site, samples: Sequence[SampleIn], now: datetime) -> Kept:
    with transaction.atomic():
        leases = _leases(site, {sample.lease_id for sample in samples})
        fresh = _unseen([sample for sample in samples if sample.lease_id in leases])
        fastest = fastest_known({lease.place.pair for lease in leases.values()})
        good, held = _sorted(fresh, leases, fastest)
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
    rows = Lease.objects.filter(site=site, pk__in=ids).values_list(
        "pk", "pool_id", "job__job_class_id", "pool__gpu", "gpus", "state"
    )
    return {
        pk: _Lease((pool, job_class), Place(job_class, gpu, gpus), state == LeaseState.FENCED)
        for pk, pool, job_class, gpu, gpus, state in rows
    }


def _unseen(samples: list[SampleIn]) -> list[SampleIn]:
    """Without those whose report was stored before; of a number that stands twice, the first."""
    first: dict[tuple[UUID, int], SampleIn] = {}
    for sample in samples:
        first.setdefault((sample.lease_id, sample.seq), sample)
    ids = list({sample.lease_id for sample in samples})
    least = min((sample.seq for sample in samples), default=0)
    for model in (ThroughputSample, QuarantinedSample):
        rows = model._default_manager.filter(seq__gte=least).order_by()
        for key in rows_among(rows.values_list("lease_id", "seq"), "lease_id", ids):
            first.pop(key, None)
    return sorted(first.values(), key=lambda one: (str(one.lease_id), one.seq))


def _sorted(
    samples: list[SampleIn], leases: dict[UUID, _Lease], fastest: Fastest
) -> tuple[list[SampleIn], list[tuple[SampleIn, Held]]]:
    """Those that are stored, and those that are held back with the reason."""
    lines = _stored_lines(samples)
    good, held = [], []
    for sample in samples:
        lease, key = leases[sample.lease_id], (sample.lease_id, sample.line)
        why = held_back(sample, lease.place, fastest.get(lease.place.pair))
        if why is None and lease.superseded:
            why = Held("superseded", "The attempt had been given up before this came.")
        if why is None and key in lines:
            why = Held("duplicate", f"Line {sample.line} of this attempt was measured before.")
        if why is None:
            lines.add(key)
            good.append(sample)
        else:
            held.append((sample, why))
    return good, held


def _stored_lines(samples: list[SampleIn]) -> set[tuple[UUID, int]]:
    if not samples:
        return set()
    ids = list({sample.lease_id for sample in samples})
    rows = ThroughputSample.objects.filter(line__gte=min(sample.line for sample in samples))
    pairs = rows.order_by().values_list("lease_id", "line")
    return set(rows_among(pairs, "lease_id", ids))


def _await(counts: Counter[Pair]) -> None:
    """Note that models have samples to read. Locks their rows, in one order."""
    if not counts:
        return
    rows = StoredModel.objects.filter(
        pool__in={pool for pool, _ in counts}, job_class__in={job_class for _, job_class in counts}
    )
    known = set(rows.values_list("pool_id", "job_class_id"))
    StoredModel.objects.bulk_create(
        (
            StoredModel(pool_id=pool, job_class_id=job_class)
            for pool, job_class in sorted(counts.keys() - known, key=str)
        ),
        ignore_conflicts=True,
    )
    pairs = rows.values_list("pk", "pool_id", "job_class_id")
    wanted = [pk for pk, *pair in pairs if tuple(pair) in counts]
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
