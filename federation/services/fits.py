"""Throughput models kept up to date: each changed (class, pool) reads its new samples alone.

A stored body is `{"model": ...}` (`federation.affinity.models_file`), or `{"tally": ...}` while
the samples show too few configurations for a model. Either is read with the samples that came
since: the cost grows with those, not with all that was ever stored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.db import transaction
from django.db.models import F, Q
from numpy.typing import NDArray

from federation.affinity import tally
from federation.affinity.models_file import model_document, read_model
from federation.affinity.samples import BadSamples, Configuration
from federation.affinity.throughput import (
    Forecast,
    ThroughputModel,
    fit_tally,
    priced,
    refit_tally,
)
from federation.bulk import rows_insert
from federation.errors import FederationError
from federation.models import ForecastAffinity, StoredModel
from federation.selectors.samples import NewSamples, samples_since, samples_split

log = logging.getLogger(__name__)
MODELS_AT_ONCE = 200  #: models that are handed out at once
AGAIN = timedelta(seconds=60)  #: a message that nobody answered is taken for lost
SAMPLES_AT_ONCE = 100_000  #: of one model; the rest waits for the next run
SMALL = range(1, 17)  #: gang sizes that are forecast one by one
LARGE = (*range(24, 65, 8), *(2**power for power in range(7, 21)))
FURTHER = 8  #: sizes up to so many times the largest measured are shown as extrapolated
MOST_WHY = 500
FORECAST = (
    *("pool_id", "job_class_id", "gpus", "samples_per_s", "low", "high", "extrapolated"),
    *("samples", "fitted_at"),
)


@dataclass(frozen=True, slots=True)
class Fit:
    """A model that has read what waited for it."""

    pool: str
    job_class: str
    version: int
    samples: int  #: that it has read in all
    why: str  #: why there is no model; empty when there is one


def models_due(*, now: datetime, limit: int = MODELS_AT_ONCE) -> list[int]:
    """Models that samples wait for, the longest known first: each for one worker, which calls
    `waiting_refit`. One whose worker was lost is among them again after AGAIN."""
    behind = StoredModel.objects.filter(waiting__gt=0)
    free = behind.filter(Q(due_at__isnull=True) | Q(due_at__lte=now)).order_by("id")
    return [
        pk
        for pk, due_at in free.values_list("pk", "due_at")[:limit]
        if StoredModel.objects.filter(pk=pk, due_at=due_at).update(due_at=now + AGAIN)
    ]


def models_refit(*, now: datetime, limit: int = MODELS_AT_ONCE) -> list[Fit]:
    """Refit every model that samples wait for, one after the other."""
    behind = StoredModel.objects.filter(waiting__gt=0).order_by("id")
    fits = (waiting_refit(model=pk, now=now) for pk in behind.values_list("pk", flat=True)[:limit])
    return [fit for fit in fits if fit is not None]


def waiting_refit(*, model: int, now: datetime) -> Fit | None:
    """Refit one model; None when nothing waits, or it could not be: then why stands with it.

    What could not be is tried again once it is due.
    """
    rows = StoredModel.objects.select_related("pool__site", "job_class")
    stored = rows.filter(pk=model, waiting__gt=0).first()
    if stored is None:
        return None
    try:
        return model_refit(stored=stored, now=now)
    except (FederationError, ValueError, ArithmeticError) as error:
        log.warning("model of %s: cannot refit: %s", stored, error)
        why = f"Its new samples could not be read: {error}"[:MOST_WHY]
        StoredModel.objects.filter(pk=stored.pk, version=stored.version).update(why=why)
        return None


def model_refit(*, stored: StoredModel, now: datetime) -> Fit | None:
    """Read the samples that wait for one model; None when another worker was first.

    A body that this version cannot read is forgotten: all samples are read again. Raises
    BadSamples, with nothing written, when one of the samples makes no sense.
    """
    new = samples_since(stored, limit=SAMPLES_AT_ONCE)
    if new is None:
        return None
    try:
        before = _read(stored.body)
    except (KeyError, TypeError, ValueError):
        _start_again(stored)
        return None
    _sensible(new.columns)
    body, model, why = _learned(before, tally.gather_columns(new.columns))
    with transaction.atomic():
        if not _keep(stored, new, body, why, now):
            return None
        pair = ForecastAffinity.objects.filter(pool=stored.pool_id, job_class=stored.job_class_id)
        pair.delete()
        if model is not None:
            rows_insert(ForecastAffinity, FORECAST, _rows(stored, model, now))
    samples = stored.samples + new.count
    return Fit(str(stored.pool), stored.job_class.name, stored.version + 1, samples, why)


def model_forget(*, pool: UUID, job_class: UUID, before: datetime) -> None:
    """Learn anew from the samples since then: the pool is not what it was.

    What its model said is withdrawn at once.
    """
    with transaction.atomic():
        rows = StoredModel.objects.select_for_update(no_key=True)
        stored = rows.filter(pool=pool, job_class=job_class).first()
        if stored is None:
            return
        last, later = samples_split(stored, before)
        StoredModel.objects.filter(pk=stored.pk).update(
            body={}, why="", version=F("version") + 1, samples=0, waiting=later, last_sample=last
        )
        ForecastAffinity.objects.filter(pool=pool, job_class=job_class).delete()


def _sensible(columns: NDArray[np.float64]) -> None:
    """Raises BadSamples for rows that no check let in: whatever is learned of them is made up."""
    told = columns.copy()
    told[np.isnan(told[:, 5]), 5] = 0.0
    bad = int(np.count_nonzero(~tally.sound(told)))
    if bad:
        raise BadSamples((f"{bad} of {len(told)} stored samples make no sense",))


def _read(body: dict[str, Any]) -> ThroughputModel | tally.Tally | None:
    if "model" in body:
        return read_model(body["model"])
    return tally.read(body["tally"]) if body else None


def _start_again(stored: StoredModel) -> None:
    StoredModel.objects.filter(pk=stored.pk, version=stored.version).update(
        body={},
        version=F("version") + 1,
        waiting=F("waiting") + F("samples"),
        samples=0,
        last_sample=0,
        due_at=None,
    )


def _learned(
    before: ThroughputModel | tally.Tally | None, added: tally.Tally
) -> tuple[dict[str, Any], ThroughputModel | None, str]:
    """The new body, its model, and why there is none."""
    if isinstance(before, ThroughputModel):
        model = refit_tally(before, added)
        return {"model": model_document(model)}, model, ""
    counted = added if before is None else tally.merge(before, added)
    try:
        model = fit_tally(counted)
    except BadSamples as refused:
        return {"tally": tally.document(counted)}, None, refused.problems[0][:MOST_WHY]
    return {"model": model_document(model)}, model, ""


def _keep(
    stored: StoredModel, new: NewSamples, body: dict[str, Any], why: str, now: datetime
) -> bool:
    return bool(
        StoredModel.objects.filter(pk=stored.pk, version=stored.version).update(
            body=body,
            why=why,
            version=F("version") + 1,
            waiting=F("waiting") - new.count,
            samples=F("samples") + new.count,
            last_sample=new.last,
            fitted_at=now,
            due_at=None,
        )
    )


def _rows(stored: StoredModel, model: ThroughputModel, now: datetime) -> Iterable[tuple[Any, ...]]:
    """What the model says of gangs, as rows."""
    cells = tally.cells(model.tally)
    sizes = gang_sizes(cells)
    asked = [usual_configuration(cells, size) for size in sizes]
    samples = model.tally.samples
    for size, one, said in zip(sizes, asked, model.forecasts(asked), strict=True):
        low, high = _speeds(one, said)
        yield (
            *(stored.pool_id, stored.job_class_id, size, said.samples_per_s, low, high),
            *(not priced(said), samples, now),
        )


def _speeds(asked: Configuration, said: Forecast) -> tuple[float, float]:
    """The ends of the band in samples/s."""
    return asked.samples_per_step / said.upper_s, asked.samples_per_step / said.lower_s


def gang_sizes(cells: tally.Cells) -> list[int]:
    """Gang sizes that a model is asked about: what was measured, what is usual, a little beyond."""
    measured = {max(1, round(float(size))) for size in cells.replicas}
    least, most = min(measured), max(measured)
    usual = {size for size in (*SMALL, *LARGE) if least <= size <= most}
    powers = (2**power for power in range(21))
    beyond = {size for size in powers if size < least or most < size <= FURTHER * most}
    return sorted(measured | usual | beyond)


def usual_configuration(cells: tally.Cells, gpus: int) -> Configuration:
    """How a gang of this size is taken to run: as the measured size nearest to it usually did.

    Nearest by ratio, the larger of two; usually is with the most samples. As many GPUs on a node.
    """
    apart = np.abs(np.log(cells.replicas / gpus))
    nearest = float(cells.replicas[apart <= apart.min() + 1e-9].max())
    place = max(
        np.flatnonzero(cells.replicas == nearest).tolist(),
        key=lambda at: (cells.count[at], cells.batch[at], -cells.nodes[at]),
    )
    on_a_node = max(1.0, nearest / float(cells.nodes[place]))
    return Configuration(
        nodes=min(gpus, int(np.ceil(gpus / on_a_node - 1e-9))),
        replicas=gpus,
        local_batch=float(cells.batch[place]),
        accumulation=max(0, round(float(cells.accumulation[place]))),
    )
