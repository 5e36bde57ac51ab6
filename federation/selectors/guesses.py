"""Priors of some pools, read as arrays when they are first asked for.

A round prices on none of them alone, so it reads only those that are weighed with leases.
"""

from __future__ import annotations

from functools import cached_property
from uuid import UUID

from django.db.models import Case, Exists, IntegerField, OuterRef, QuerySet, Value, When

from federation.affinity.believed import GUESSED
from federation.models import MeasuredAffinity, PriorAffinity
from federation.selectors.cell_codes import CodeIndex, Codes, ranked
from federation.selectors.columns import columns_read
from federation.selectors.matrix_columns import Guessed


class StoredGuesses:
    """The priors of some pools as they are stored."""

    def __init__(self, pools: list[UUID], index: CodeIndex) -> None:
        self._rows = PriorAffinity.objects.filter(pool__in=pools, source__in=GUESSED).order_by()
        self._index = index

    def all(self) -> Guessed:
        """Every one, (n,); read once."""
        return self._every

    def at(self, codes: Codes) -> Guessed:
        """Those of some sorted codes, all of which leases showed."""
        return self._leased

    @cached_property
    def _every(self) -> Guessed:
        return self._read(self._rows)

    @cached_property
    def _leased(self) -> Guessed:
        same = {name: OuterRef(name) for name in ("pool_id", "job_class_id", "gpus")}
        shown = MeasuredAffinity.objects.filter(leases__gt=0, **same)
        return self._read(self._rows.filter(Exists(shown)))

    def _read(self, rows: QuerySet[PriorAffinity]) -> Guessed:
        places = (When(source=name, then=Value(at)) for at, name in enumerate(GUESSED))
        told = rows.annotate(said=Case(*places, default=Value(0), output_field=IntegerField()))
        pool, job_class, gpus, *values = columns_read(
            told.values_list(
                *("pool_id", "job_class_id", "gpus"),
                *("log_mean", "log_sd", "said", "n", "made_at"),
            ),
            ("id", "id", "int", "float", "float", "int", "int", "time"),
        )
        return Guessed(*ranked(self._index.codes(pool, job_class, gpus), *values))
