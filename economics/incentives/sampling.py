"""Which documents are studied: the rounds of a trace, or one round and draws of its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from economics.errors import BadBook, Problem
from economics.incentives.bootstrap import JOB_DRAWS, JOBS, ROUND_DRAWS, ROUNDS, Sample
from economics.incentives.variations import resampled

Document = Mapping[str, Any]
Books = Document | Sequence[Document]  # one `hanse.book/1` document, or those of several rounds
Row = TypeVar("Row")

LEAST_DRAWS = 20  # below, a 95 % interval is no more than the extremes


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn again, and how often."""

    unit: str  # rounds or jobs
    seed: int
    draws: int
    documents: tuple[Document, ...]  # rounds: each; jobs: the round, then one for each draw

    @classmethod
    def of(cls, books: Books, *, seed: int = 0, draws: int | None = None) -> Plan:
        """Rounds where there are several, else the jobs of the one. Raises BadBook."""
        given = (books,) if isinstance(books, Mapping) else tuple(books)
        if not given:
            raise BadBook((Problem("books", "there must be at least one"),))
        many = len(given) > 1
        count = (ROUND_DRAWS if many else JOB_DRAWS) if draws is None else draws
        if count < LEAST_DRAWS:
            raise BadBook((Problem("draws", f"must be at least {LEAST_DRAWS}"),))
        if seed < 0:
            raise BadBook((Problem("seed", "must not be negative"),))
        if many:
            return cls(ROUNDS, seed, count, given)
        drawn = (resampled(given[0], np.random.default_rng([seed, draw])) for draw in range(count))
        return cls(JOBS, seed, count, (given[0], *drawn))

    @property
    def rounds(self) -> tuple[Document, ...]:
        """The documents as given."""
        return self.documents if self.unit == ROUNDS else self.documents[:1]

    def sample(self, rows: Sequence[Row]) -> Sample[Row]:
        """What was computed for each document."""
        if self.unit == JOBS:
            return Sample.of_jobs(rows)
        return Sample.of_rounds(rows, seed=self.seed, draws=self.draws)
