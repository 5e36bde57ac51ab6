"""Measurements that count no more: a pool has other hardware, or is lastingly slower or faster."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from federation.affinity.alarms import Witness, shifted_from
from federation.affinity.coldstart.voices import column_of
from federation.models import (
    Alarm,
    ForecastAffinity,
    Forgotten,
    Job,
    JobClass,
    Lease,
    MeasuredAffinity,
    Pool,
    PriorAffinity,
    StoredModel,
)
from federation.services.fits import model_forget
from federation.services.story import BROKER, tell


def drift_forget(
    *, pool: Pool, job_class: JobClass, leases: Sequence[Lease], now: datetime
) -> Sequence[Lease]:
    """Those of a cell's measured leases, oldest first, that ran at the speed of today.

    `leases` have their jobs, tenants and members with them. Where that is not all of them the
    others are forgotten for good, with the measured steps of class and pool from before: they are a
    pool's that is no more.
    """
    logs = [math.log(lease.measured_samples_per_s or 1.0) for lease in leases]
    at = shifted_from(logs, [_witness(lease.job) for lease in leases])
    if at is None:
        return leases
    first = leases[at]
    before, since = (math.exp(_mean(part)) for part in (logs[:at], logs[at:]))
    why = (
        f"{job_class} on {first.gpus} GPU ran at {before:.6g} samples/s in {at} leases and at "
        f"{since:.6g} in the {len(leases) - at} since."
    )
    with transaction.atomic():
        Forgotten.objects.create(
            pool=pool,
            job_class=job_class,
            gpus=first.gpus,
            cause=Forgotten.Cause.DRIFT,
            since=first.created_at,
            why=why[:300],
            found_at=now,
        )
        model_forget(pool=pool.pk, job_class=job_class.pk, before=first.created_at)
        _tell(pool, why, now, BROKER)
    return leases[at:]


def _witness(job: Job) -> Witness:
    free = job.kind == Job.Kind.PROBE and job.parent_id is None
    return Witness(owner=job.tenant.member.behind, free=free)


def same_hardware(gpu: str, other: str) -> bool:
    """Whether two names are of one kind of GPU: case, dashes and marks of makers aside."""
    return column_of(gpu) == column_of(other) or _letters(gpu) == _letters(other)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def hardware_forget(*, changed: Sequence[tuple[Pool, str]], actor: str, now: datetime) -> None:
    """Forget all that was measured of pools whose GPUs are of another kind now.

    `changed`: each pool with the kind that it had. Measured speeds, models, forecasts and priors
    go at once, and leases that were made before count no more. So does no claim: each waits until
    a lease or a probe has shown the cell (`federation.selectors.unproven`), and has its probe anew.
    """
    pools = [pool for pool, _ in changed]
    with transaction.atomic():
        stored = StoredModel.objects.select_for_update(no_key=True).filter(pool__in=pools)
        pairs = list(stored.order_by("pk").values_list("pool", "job_class"))  # as samples lock them
        for pool, was in changed:
            why = f"its GPUs are {pool.gpu}, no longer {was}"
            Forgotten.objects.create(
                pool=pool, cause=Forgotten.Cause.HARDWARE, since=now, why=why, found_at=now
            )
            why += "; its claims wait for a lease or a probe that reaches them"
            _tell(pool, why, now, actor)
        for model in (MeasuredAffinity, ForecastAffinity, PriorAffinity):
            model.objects.filter(pool__in=pools).delete()
        for pool_id, job_class in pairs:
            model_forget(pool=pool_id, job_class=job_class, before=now)
        for alarm in Alarm.objects.filter(
            kind=Alarm.Kind.CLAIM, closed_at__isnull=True, pool__in=pools
        ):
            alarm.figures = {key: value for key, value in alarm.figures.items() if key != "probe"}
            alarm.save(update_fields=["figures"])


def _mean(logs: Sequence[float]) -> float:
    return math.fsum(logs) / len(logs)


def _tell(pool: Pool, why: str, now: datetime, actor: str) -> None:
    tell("site", pool.site_id, "forget", now=now, actor=actor, why=f"{pool}: {why}")
