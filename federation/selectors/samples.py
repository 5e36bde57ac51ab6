"""Reads of measured steps: what is known to be fast, what no model has read, what was held back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import Case, F, FloatField, Max, Q, QuerySet, When
from numpy.typing import NDArray

from federation.errors import NotAllowed
from federation.machines.offer import OfferState
from federation.models import (
    MeasuredAffinity,
    OfferAffinity,
    QuarantinedSample,
    StoredModel,
    ThroughputSample,
    User,
)

Kind = tuple[str, UUID]  #: kind of GPU and class
Pair = tuple[UUID, UUID]  #: pool and class
_ON_ONE = Max(F("samples_per_s") / F("gpus"), output_field=FloatField())
_STANDING = Q(offer__state=OfferState.ACTIVE)


def claimed_there(pairs: Collection[Pair]) -> dict[Pair, float]:
    """Highest speed on one GPU, samples/s, that each pool's own offer claims of a class."""
    pools, classes = {pool for pool, _ in pairs}, {job_class for _, job_class in pairs}
    rows = OfferAffinity.objects.filter(_STANDING, pool__in=pools, job_class__in=classes)
    best = rows.order_by().values("pool_id", "job_class_id").annotate(speed=_ON_ONE)
    found = best.values_list("pool_id", "job_class_id", "speed")
    return {(pool, job_class): speed for pool, job_class, speed in found}


def fastest_known(kinds: Collection[Kind]) -> dict[Kind, float]:
    """Highest speed on one GPU, samples/s, that was claimed or measured of each class on each kind,
    wherever."""
    gpus, classes = {gpu for gpu, _ in kinds}, {job_class for _, job_class in kinds}
    measured = MeasuredAffinity.objects.filter(pool__gpu__in=gpus, job_class__in=classes)
    claimed = OfferAffinity.objects.filter(_STANDING, pool__gpu__in=gpus, job_class__in=classes)
    found: dict[Kind, float] = {}
    for rows in (measured, claimed):
        best = rows.order_by().values("pool__gpu", "job_class_id").annotate(speed=_ON_ONE)
        for gpu, job_class, speed in best.values_list("pool__gpu", "job_class_id", "speed"):
            found[gpu, job_class] = max(found.get((gpu, job_class), 0.0), speed)
    return found


@dataclass(frozen=True, slots=True)
class NewSamples:
    """Samples that a model has not read, in the order of their ids."""

    columns: NDArray[np.float64]  #: (n, 6) as `federation.affinity.tally.gather_columns` takes them
    last: int  #: id of the newest

    @property
    def count(self) -> int:
        return len(self.columns)


def samples_since(stored: StoredModel, *, limit: int) -> NewSamples | None:
    """The next samples of the model's class and pool; None when there are none."""
    rows = (
        ThroughputSample.objects.filter(
            pool=stored.pool_id, job_class=stored.job_class_id, id__gt=stored.last_sample
        )
        .order_by("id")
        .values_list("id", "nodes", "replicas", "local_batch", "accumulation", "step_s", "sync_s")
    )
    found = np.array(list(rows[:limit]), dtype=float)  # None becomes nan; ids are exact to 2^53
    if not len(found):
        return None
    return NewSamples(columns=found[:, 1:], last=int(found[-1, 0]))


def samples_split(stored: StoredModel, before: datetime) -> tuple[int, int]:
    """(id of the model's newest sample that came before a moment, how many came since)."""
    rows = ThroughputSample.objects.filter(pool=stored.pool_id, job_class=stored.job_class_id)
    last = rows.filter(received_at__lt=before).aggregate(last=Max("id"))["last"] or 0
    return last, rows.filter(id__gt=last).count()


@dataclass(frozen=True, slots=True)
class Named:
    """Of which site, pool and class, by name; None = any."""

    site: str | None = None
    pool: str | None = None
    job_class: str | None = None

    def among(self, pool: str, job_class: str) -> Q:
        """The condition on rows that reach their pool and class by these paths."""
        wanted = {
            f"{pool}__site__name": self.site,
            f"{pool}__name": self.pool,
            f"{job_class}__name": self.job_class,
        }
        return Q(**{path: name for path, name in wanted.items() if name is not None})


def quarantined_visible(
    user: User, named: Named, *, code: str | None = None, since: datetime | None = None
) -> QuerySet[QuarantinedSample]:
    """Measurements held back that concern a user: all to an operator, to a tenant those of its
    jobs, to a member those of its sites. Raises NotAllowed for an account that acts for nobody."""
    rows = QuarantinedSample.objects.filter(named.among("lease__pool", "lease__job__job_class"))
    if code is not None:
        rows = rows.filter(code=code)
    if since is not None:
        rows = rows.filter(received_at__gte=since)
    return rows.filter(_held_of(user)).select_related("lease__pool__site", "lease__job__job_class")


def _held_of(user: User) -> Q:
    if user.is_staff:
        return Q()
    if user.tenant is not None:
        return Q(lease__job__tenant=user.tenant)
    if user.member is not None:
        return Q(lease__site__member=user.member)
    raise NotAllowed("This account acts for no tenant and no member.", code="acts_for_nobody")


def quarantined_shown(row: QuarantinedSample) -> dict[str, Any]:
    """A measurement held back, as a document."""
    lease = row.lease
    return {
        "lease": lease.pk,
        "seq": row.seq,
        "site": lease.pool.site.name,
        "pool": lease.pool.name,
        "class": lease.job.job_class.name,
        "received_at": row.received_at,
        "code": row.code,
        "why": row.why,
        "body": row.body,
    }


def models_visible(user: User, named: Named) -> QuerySet[StoredModel]:
    """Models of classes on pools: all to an operator, to a member those of its sites. Raises
    NotAllowed for others. Each has `fitted`: whether there is a model by now."""
    rows = StoredModel.objects.filter(named.among("pool", "job_class"))
    if not user.is_staff:
        if user.member is None or user.tenant is not None:
            raise NotAllowed("This account acts for no member.", code="no_member")
        rows = rows.filter(pool__site__member=user.member)
    fitted = Case(When(body__has_key="model", then=True), default=False)
    return rows.annotate(fitted=fitted).defer("body").select_related("pool__site", "job_class")


def model_shown(row: StoredModel) -> dict[str, Any]:
    """How far a model of `models_visible` is, as a document."""
    fitted: bool = row.fitted  # type: ignore[attr-defined] # annotated there
    return {
        "site": row.pool.site.name,
        "pool": row.pool.name,
        "class": row.job_class.name,
        "fitted": fitted,
        "samples": row.samples,
        "waiting": row.waiting,
        "version": row.version,
        "fitted_at": row.fitted_at,
        "why": row.why or ("" if fitted else "No sample was read yet."),
    }
