"""`hanse.book/1`: everything a round is decided from, read strictly into arrays and ids.

The only module of the package that knows ids on the way in. Rows are sorted by id on reading, so
the order of the document never changes a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from economics.bulk import sound_jobs
from economics.canonical import canonical_json, document_sha256
from economics.columns import Sheet, lay_out
from economics.errors import BadBook, Problem
from economics.market import Array, Market
from economics.memory import no_cycles
from economics.rows import (
    FloorRow,
    JobRow,
    PoolRow,
    Rules,
    read_affinity,
    read_floors,
    read_jobs,
    read_pools,
    read_rules,
    read_transfer,
)
from economics.schema import Fields, Problems

__all__ = ["BOOK_FORMAT", "Book", "canonical_json", "document_sha256", "read_book"]

BOOK_FORMAT = "hanse.book/1"
BOOK_KEYS = (
    *("format", "round_hours", "pools", "affinity", "transfer", "jobs"),
    *("floors", "previous_prices", "rules"),
)
MICRO = 1_000_000  # micro-credits in a credit


@dataclass(frozen=True, slots=True)
class Book:
    """A book that was read: the market's arrays, and what their axes are called."""

    market: Market
    sites: tuple[str, ...]  # (N,) every site named in the book, sorted
    pools: tuple[PoolRow, ...]  # (P,) sorted by id
    jobs: tuple[JobRow, ...]  # (J,) sorted by id
    speed: Mapping[tuple[str, str], Mapping[int, float]]  # {(pool, class): {GPUs: samples/s}}
    floors: tuple[FloorRow, ...]
    previous: Array  # (P,) last round's price, credits per GPU-hour; nan = none
    rules: Rules
    hours: float  # length of the round
    sha256: str  # of the canonical document

    def budget_micro(self, job: int) -> int | None:
        """Micro-credits the job may spend in the round; None = no limit."""
        budget = self.jobs[job].budget
        return None if math.isinf(budget) else int(budget * MICRO)


def read_book(document: object) -> Book:
    """Read a parsed document; raises BadBook with every problem found, each with its path."""
    with no_cycles():
        return _read_book(document)


def _read_book(document: object) -> Book:
    problems = Problems()
    fields = Fields(document, "", problems, BOOK_KEYS)
    _check_format(fields, problems)
    hours = fields.number("round_hours")
    if fields.raw.get("round_hours") in (0, 0.0) and fields.raw["round_hours"] is not False:
        fields.refuse("round_hours", "must be a positive number")

    pools = sorted(read_pools(fields, problems), key=lambda row: row.id)
    pool_of = {row.id: row for row in pools}
    affinity = read_affinity(fields, pool_of, problems)
    transfer = read_transfer(fields, problems)
    read = _jobs(fields, pool_of, problems)
    order = sorted(range(len(read)), key=[row.id for row in read].__getitem__)
    named = {row.id: row for row in read} if fields.raw.get("floors") else {}
    floors = read_floors(fields, named, problems)
    previous = fields.amounts("previous_prices", pool_of, "pool")
    rules = read_rules(fields, pool_of, problems)
    problems.raise_if_any()

    sheet = Sheet(
        sites=tuple(
            sorted(
                {row.site for row in pools}
                | {row.site for row in read}
                | {name for row in transfer for name in (row.home, row.site)}
            )
        ),
        pools=tuple(pools),
        jobs=read,
        order=order,
        affinity=affinity,
        transfer=transfer,
        floors=tuple(sorted(floors, key=lambda row: row.job)),
        price_cap=rules.price_cap,
        hours=hours,
    )
    market, jobs = lay_out(sheet), tuple([read[at] for at in order])
    _check_floors(sheet.floors, jobs, market, problems)
    problems.raise_if_any()
    return Book(
        market=market,
        sites=sheet.sites,
        pools=sheet.pools,
        jobs=jobs,
        speed=sheet.speed(),
        floors=sheet.floors,
        previous=np.array([previous.get(row.id, np.nan) for row in pools]),
        rules=rules,
        hours=hours,
        sha256=_digest(document),
    )


def _jobs(fields: Fields, pools: Mapping[str, PoolRow], problems: Problems) -> tuple[JobRow, ...]:
    """All rows at once when all is well, else one by one, which says what is wrong."""
    rows = sound_jobs(fields.raw.get("jobs"), pools)
    return read_jobs(fields, pools, problems) if rows is None else rows


def _check_format(fields: Fields, problems: Problems) -> None:
    if fields.raw and fields.text("format") not in ("", BOOK_FORMAT):
        problems.note("format", f"must be {BOOK_FORMAT!r}")


def _check_floors(
    floors: tuple[FloorRow, ...], jobs: tuple[JobRow, ...], market: Market, problems: Problems
) -> None:
    """Refuse a floor that the home site could not deliver with all its GPUs on that one job.

    Whether a site can keep *all* its floors together is a linear programme: `rounds.py` asks.
    """
    number = {row.id: at for at, row in enumerate(jobs)} if floors else {}
    for row in floors:
        job = number[row.job]
        most = _delivers_alone(market, job)
        if row.demand > most * (1 + 1e-9):
            home = jobs[job].site
            problems.note(
                f"{row.path}.demand",
                f"{row.demand:g} Msamples for job {row.job} is more than its home site {home} "
                f"delivers alone ({most:g})",
            )


def _delivers_alone(market: Market, job: int) -> float:
    """Msamples of a divisible job its home site's pools deliver with nothing else running."""
    at = np.arange(market.columns)[market.columns_of(job)]
    at = at[market.owner[market.pool[at]] == market.home[job]]
    speed = market.msamples[at] / market.gpu_hours[at]
    left, delivered = market.width[job], 0.0
    for column in at[np.argsort(-speed, kind="stable")]:
        hours = min(left, market.capacity[market.pool[column]])
        delivered += hours * market.msamples[column] / market.gpu_hours[column]
        left -= hours
    return float(min(delivered, market.demand[job]))


def _digest(document: object) -> str:
    try:
        return document_sha256(document)
    except ValueError as error:
        raise BadBook((Problem("book", str(error)),)) from None
