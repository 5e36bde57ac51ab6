"""What the market is to a job before its bid is looked at: found once for each group of jobs.

Jobs of a group (`federation.grouping`) may run in the same pools at the same speeds. A job that
pools declined or lost lately has terms of its own, without those pools; those of a tenant, or of a
length, that some site does not take have terms together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from federation.matching import permits
from federation.models import Job
from federation.selectors.admission import shut
from federation.snapshot.documents import spell
from federation.snapshot.view import PoolRow, View

NAMED = 5  #: pools that a refusal names
#: what is a bid's own in the row of a job
OWN = {"budget": "%s", "demand": "%s", "id": '"%s"', "tenant": "%s", "value": "%s"}
Limits = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What the market is to every job of a group. One object for each group."""

    job_class: UUID
    sizes: tuple[int, ...]  #: of its gangs
    row: dict[str, Any]  #: the part of a book's row that they share
    template: str  #: their row as text, with places for what is a bid's own
    output: int  #: samples in a round where it runs fastest, at most
    least_micro: float  #: reserve price of its cheapest gang for a round
    refused: tuple[str, str] | None = None  #: no bid helps
    crowded: tuple[str, str] | None = None  #: not in this round


def terms_read(
    bids: Iterable[tuple[Any, ...]], keys: Iterable[str], view: View
) -> dict[str, Terms]:
    """The terms of all bids by their keys, see `View.keys`: one job speaks for each.

    A bid begins with the id of its job.
    """
    speakers = {key: bid[0] for bid, key in zip(bids, keys, strict=True)}
    found = Job.objects.select_related("job_class", "tenant__member").in_bulk(
        [UUID(job) for job in speakers.values()]
    )
    allowed: dict[Limits, list[PoolRow]] = {}
    return {
        key: _terms(found[UUID(job)], view.vetoes.get(job, frozenset()), view, allowed)
        for key, job in speakers.items()
    }


def _terms(
    job: Job, vetoes: frozenset[UUID], view: View, known: dict[Limits, list[PoolRow]]
) -> Terms:
    sizes = [int(size) for size in job.gpus]
    permitted = _permitted(job, view, known)
    asked = () if view.doors.plain else permitted
    doors = {row.name: code for row in asked if (code := shut(view.doors, job, row.pool))}
    allowed = [row for row in permitted if row.pool.pk not in vetoes and row.name not in doors]
    speeds = [
        (row, size, speed)
        for row in allowed
        for size in sizes
        if view.takes(row.pool.pk, size)
        and (speed := view.speed(row.pool.pk, job.job_class_id, size)) is not None
    ]
    round_s, row = view.venue.round_s, _shared_row(job, sizes, allowed, len(view.pools))
    fastest = max((speed for _, _, speed in speeds), default=0.0)
    cheapest = (pool.reserve_micro * size * round_s / 3600 for pool, size, _ in speeds)
    return Terms(
        job_class=job.job_class_id,
        sizes=tuple(sizes),
        row=row,
        template=row_template(row),
        output=int(fastest * round_s) + 1,
        least_micro=min(cheapest, default=0.0),
        refused=None if speeds else _refused(job, allowed, view) if allowed else _kept_out(doors),
        crowded=_crowded(allowed, min(sizes)),
    )


def row_template(row: dict[str, Any]) -> str:
    """The row of a job as canonical JSON with `%s` for each of OWN, in the order of their names."""
    fields = {key: spell(value).replace("%", "%%") for key, value in row.items()} | OWN
    return "{" + ",".join(f'"{key}":{fields[key]}' for key in sorted(fields)) + "}"


def _permitted(job: Job, view: View, known: dict[Limits, list[PoolRow]]) -> list[PoolRow]:
    """Pools that the job's own limits leave; many groups have the same limits."""
    limits = tuple(
        tuple(names) for names in (job.gpu_kinds, job.sites_allow, job.sites_deny, job.pools)
    )
    if limits not in known:
        known[limits] = [row for row in view.pools.values() if permits(job, row.pool)]
    return known[limits]


def _shared_row(job: Job, sizes: list[int], allowed: list[PoolRow], pools: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "site": job.tenant.member.name,
        "class": job.job_class.name,
        "gang": sizes[0] if len(sizes) == 1 else sizes,
    }
    if len(allowed) < pools:
        row["pools"] = [pool.name for pool in allowed]
    return row


def _kept_out(doors: Mapping[str, str]) -> tuple[str, str]:
    """Why it may run nowhere: by its own limits, or by the sites' rules."""
    closed = [f"{pool} ({code})" for pool, code in sorted(doors.items())]
    if not closed:
        return "no_feasible_pool", "No pool on offer is among those it may run on."
    rest = f" and {len(closed) - NAMED} more" if len(closed) > NAMED else ""
    return (
        "not_admitted",
        f"Sites do not take it by their own rules: {', '.join(closed[:NAMED])}{rest}.",
    )


def _refused(job: Job, allowed: list[PoolRow], view: View) -> tuple[str, str]:
    """Why nothing is known of its speed where it may run."""
    sizes = [int(size) for size in job.gpus]
    if any(view.beyond(row.pool.pk, job.job_class_id, size) for row in allowed for size in sizes):
        why = f"{job.job_class} was not measured at its size: a forecast is not priced on there."
        return "no_affinity", f"{why} A probe at that size is needed first."
    return "no_affinity", f"No site has stated or shown how fast {job.job_class} runs."


def _crowded(allowed: list[PoolRow], size: int) -> tuple[str, str] | None:
    if any(row.gpus >= size for row in allowed):
        return None
    return "no_capacity", f"No pool has {size} GPUs free in this round."
