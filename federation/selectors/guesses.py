"""Priors of some pools, read as arrays when they are first asked for.

A round plans on none of them, so it reads them only where somebody looks.
"""

from __future__ import annotations

from functools import cached_property
from uuid import UUID

from django.db.models import Case, IntegerField, Value, When

from federation.affinity.believed import GUESSED
from federation.models import PriorAffinity
from federation.selectors.cell_codes import CodeIndex, ranked
from federation.selectors.columns import columns_read
from federation.selectors.matrix_columns import Guessed


class StoredGuesses:
    """The priors of some pools as they are stored; those that nobody can reckon with left out."""

    def __init__(self, pools: list[UUID], index: CodeIndex) -> None:
        self._pools = pools
        self._index = index

    def all(self) -> Guessed:
        """Every one, (n,); read once."""
        return self._every

    @cached_property
    def _every(self) -> Guessed:
        rows = PriorAffinity.objects.filter(pool__in=self._pools, source__in=GUESSED).order_by()
        places = (When(source=name, then=Value(at)) for at, name in enumerate(GUESSED))
        told = rows.annotate(said=Case(*places, default=Value(0), output_field=IntegerField()))
        pool, job_class, gpus, *values = columns_read(
            told.values_list(
                *("pool_id", "job_class_id", "gpus"),
                *("log_mean", "log_sd", "said", "n", "made_at"),
            ),
            ("id", "id", "int", "float", "float", "int", "int", "time"),
        )
        return Guessed(*ranked(self._index.codes(pool, job_class, gpus), *values)).believable()
