"""Rows -> book and clearing -> rows: the only bridge between the federation and the market.

`book_build` reads the venue once and makes a `hanse.book/1` document; the players of the market
are members, so `site` in the book is a member's name. `awards_read` turns a `hanse.clearing/1`
document back into values that carry ids.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Q

from federation.affinity.believed import Believed
from federation.machines.job import JobState
from federation.machines.lease import LIVE, LeaseState
from federation.matching import last_laps_of, permits
from federation.models import (
    Account,
    Job,
    Lease,
    Offer,
    OfferPool,
    Pool,
    PoolPrice,
    Round,
    Venue,
)
from federation.money import as_credits, to_micro
from federation.selectors.affinity import Cell, believed_cells, current_offers, speed_at

VETO = timedelta(hours=1)  #: a pool that declined or lost a job is not asked again for this long
SITE_ENDINGS = ("declined", "driver_failed", "lost")
_RUNS = (JobState.RESERVED, JobState.DISPATCHED, JobState.STARTING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A job that the book does not hold, and why: `code` for a machine, `why` for its tenant."""

    job_id: UUID
    code: str
    why: str
    final: bool = False  #: no later round can serve it either


@dataclass(frozen=True, slots=True)
class Book:
    """A frozen book and what was decided on the way to it."""

    document: dict[str, Any]
    offers: tuple[Offer, ...]
    left_out: tuple[LeftOut, ...]
    gpus: int


@dataclass(frozen=True, slots=True)
class Award:
    """One line of a clearing, with ids and whole GPUs."""

    job_id: UUID
    pool_id: UUID
    gpus: int
    samples: int
    samples_per_s: float
    price_micro: int
    payment_micro: int


@dataclass(frozen=True, slots=True)
class PoolRow:
    pool: Pool
    gpus: int
    reserve_micro: int


@dataclass(slots=True)
class _View:
    """What one reading of the venue found, while a book is being built."""

    venue: Venue
    now: datetime
    offers: list[Offer]
    pools: list[PoolRow]
    cells: dict[Cell, Believed]
    leases: dict[UUID, Lease]  #: running jobs that bid again -> their lease
    vetoes: dict[UUID, set[UUID]]  #: job -> pools that declined it lately
    funds: dict[UUID, int]  #: tenant -> micro-credits not yet promised in this book
    left_out: list[LeftOut] = field(default_factory=list)


def book_build(*, venue: Venue, now: datetime) -> Book:
    """Freeze the venue's offers and bids as one document. Runs in the caller's transaction."""
    jobs = _bidding_jobs(venue)
    view = _view(venue, jobs, now)
    rows, placeable = [], {row.pool.pk: row for row in view.pools}
    for job in sorted(jobs, key=lambda j: (-j.value_micro, str(j.pk))):
        row = _job_row(job, placeable, view)
        if row is not None:
            rows.append(row)
    classes = {row["class"] for row in rows}
    document: dict[str, Any] = {
        "format": "hanse.book/1",
        "round_hours": venue.round_s / 3600.0,
        "pools": [_pool_row(row) for row in view.pools],
        "affinity": _affinity_rows(view, jobs, classes),
        "jobs": sorted(rows, key=lambda r: r["id"]),
        "rules": {
            "policy": "surplus",
            "epsilon": venue.epsilon,
            "core_repair": venue.core_repair,
            "seller_share": venue.seller_share,
        },
    }
    previous = _previous_prices(venue, view.pools)
    if previous:
        document["previous_prices"] = previous
    return Book(
        document=document,
        offers=tuple(view.offers),
        left_out=tuple(view.left_out),
        gpus=sum(row.gpus for row in view.pools),
    )


def _bidding_jobs(venue: Venue) -> list[Job]:
    """Jobs that wait, and running preemptible ones, which bid again in every round.

    One whose contract runs to its end (its last lap) does not: it keeps what it has.
    """
    rerun = Q(
        state__in=_RUNS,
        preemptible=True,
        leases__state__in=[LeaseState.OFFERED, LeaseState.ACTIVE],
        leases__revoke_asked_at__isnull=True,
        leases__site__state="online",
    )
    return list(
        Job.objects.filter(venue=venue, kind=Job.Kind.TRAINING)
        .filter(Q(state=JobState.PENDING) | (rerun & ~last_laps_of("pk")))
        .select_related("job_class", "tenant__member")
        .distinct()
    )


def _view(venue: Venue, jobs: list[Job], now: datetime) -> _View:
    offers = list(current_offers(venue, now))
    bidding = {job.pk for job in jobs}
    live = list(
        Lease.objects.filter(site__venue=venue, state__in=sorted(LIVE)).select_related("pool__site")
    )
    held: dict[UUID, int] = defaultdict(int)
    for lease in live:
        if lease.job_id not in bidding and lease.revoke_asked_at is None:
            held[lease.pool_id] += lease.gpus
    vetoes: dict[UUID, set[UUID]] = defaultdict(set)
    for job_id, pool_id in Lease.objects.filter(
        job_id__in=bidding, end_reason__in=SITE_ENDINGS, ended_at__gt=now - VETO
    ).values_list("job_id", "pool_id"):
        vetoes[job_id].add(pool_id)
    lines = OfferPool.objects.filter(offer__in=offers).select_related("pool__site__member")
    pools = [
        PoolRow(line.pool, max(0, line.gpus - held[line.pool_id]), line.reserve_micro)
        for line in lines
    ]
    funds = Account.objects.filter(
        kind=Account.Kind.TENANT_CASH, currency=venue.currency, tenant__isnull=False
    ).values_list("tenant_id", "balance_micro")
    return _View(
        venue=venue,
        now=now,
        offers=offers,
        pools=sorted(pools, key=lambda row: str(row.pool)),
        cells=believed_cells(offers),
        leases={lease.job_id: lease for lease in live if lease.job_id in bidding},
        vetoes=vetoes,
        funds={tenant: balance for tenant, balance in funds if tenant is not None},
    )


def _job_row(job: Job, pools: dict[UUID, PoolRow], view: _View) -> dict[str, Any] | None:
    """One job's bid, or None with the reason noted."""
    sizes = [int(size) for size in job.gpus]
    allowed = [row for row in pools.values() if _permits(job, row, view)]
    if not allowed:
        _leave_out(view, job, "no_feasible_pool", "No pool on offer is among those it may run on.")
        return None
    speeds = {
        (row.pool.pk, size): speed_at(view.cells, row.pool.pk, job.job_class_id, size)
        for row in allowed
        for size in sizes
    }
    known = [speed.samples_per_s for speed in speeds.values() if speed is not None]
    if not known:
        why = f"No site has stated or shown how fast {job.job_class} runs."
        _leave_out(view, job, "no_affinity", why)
        return None
    if _spent_out(job, allowed, speeds, view):
        why = "What is left of its max_cost does not pay for one more round anywhere."
        view.left_out.append(LeftOut(job.pk, "max_cost", why, final=True))
        return None
    if not any(row.gpus >= min(sizes) for row in allowed):
        _leave_out(view, job, "no_capacity", f"No pool has {min(sizes)} GPUs free in this round.")
        return None
    remaining = max(job.samples - job.samples_done, job.samples // 100, 1)
    budget = _budget_micro(job, remaining, max(known), view)
    demand = min(remaining, budget * 1_000_000 // job.value_micro)
    if demand < 1:
        spent_out = job.max_cost_micro <= job.spent_micro + job.held_micro
        code = "max_cost" if spent_out else "no_funds"
        why = (
            "Its max_cost is spent or held in escrow."
            if spent_out
            else "Its tenant has no free funds left for this round."
        )
        _leave_out(view, job, code, why)
        return None
    row: dict[str, Any] = {
        "id": str(job.pk),
        "site": job.tenant.member.name,
        "tenant": job.tenant.name,
        "class": job.job_class.name,
        "value": as_credits(job.value_micro),
        "demand": demand / 1e6,
        "gang": sizes[0] if len(sizes) == 1 else sizes,
        "budget": as_credits(budget),
    }
    if len(allowed) < len(pools):
        row["pools"] = sorted(str(a.pool) for a in allowed)
    lease = view.leases.get(job.pk)
    if lease is not None and lease.pool_id in pools:
        row["running_on"] = str(lease.pool)
        row["move_cost"] = _move_cost(job, lease, view)
    return row


def _spent_out(
    job: Job,
    allowed: list[PoolRow],
    speeds: dict[tuple[UUID, int], Believed | None],
    view: _View,
) -> bool:
    """Nothing is held any more and the rest of its max_cost is below every reserve."""
    room = job.max_cost_micro - job.spent_micro
    if job.held_micro or not job.spent_micro or job.state != JobState.PENDING:
        return False
    least = min(
        row.reserve_micro * size * view.venue.round_s / 3600
        for row in allowed
        for size in (int(s) for s in job.gpus)
        if speeds[row.pool.pk, size] is not None
    )
    return room <= 0 or room < least


def _permits(job: Job, row: PoolRow, view: _View) -> bool:
    return permits(job, row.pool) and row.pool.pk not in view.vetoes.get(job.pk, ())


def _leave_out(view: _View, job: Job, code: str, why: str) -> None:
    view.left_out.append(LeftOut(job.pk, code, why))


def _budget_micro(job: Job, remaining: int, fastest: float, view: _View) -> int:
    """What the job may spend in this round, taken off its tenant's funds so that no two jobs
    promise the same credit: escrow can then not fail for lack of funds."""
    output = min(remaining, int(fastest * view.venue.round_s) + 1)
    if not job.preemptible:
        output = remaining  # its contract covers all its work at once
    worth = -(-output * job.value_micro // 1_000_000)
    room = job.max_cost_micro - job.spent_micro - job.held_micro
    budget = max(0, min(worth, room, view.funds.get(job.tenant_id, 0)))
    view.funds[job.tenant_id] = view.funds.get(job.tenant_id, 0) - budget
    return budget


def _move_cost(job: Job, lease: Lease, view: _View) -> float:
    """Credits lost by stopping here and starting elsewhere, at the job's own value of time."""
    speed = speed_at(view.cells, lease.pool_id, job.job_class_id, lease.gpus)
    rate = speed.samples_per_s if speed is not None else 0.0
    return round(as_credits(job.value_micro) * rate / 1e6 * view.venue.restart_s, 9)


def _pool_row(row: PoolRow) -> dict[str, Any]:
    return {
        "id": str(row.pool),
        "site": row.pool.site.member.name,
        "gpu": row.pool.gpu,
        "gpus": row.gpus,
        "reserve": as_credits(row.reserve_micro),
    }


def _affinity_rows(view: _View, jobs: Iterable[Job], classes: set[str]) -> list[dict[str, Any]]:
    names = {job.job_class_id: job.job_class.name for job in jobs}
    pools = {row.pool.pk: str(row.pool) for row in view.pools}
    rows = [
        {
            "pool": pools[pool],
            "class": names[job_class],
            "samples_per_s": round(cell.samples_per_s, 9),
            "gpus": gpus,
        }
        for (pool, job_class, gpus), cell in view.cells.items()
        if pool in pools and names.get(job_class) in classes
    ]
    return sorted(rows, key=lambda r: (r["pool"], r["class"], r["gpus"]))


def _previous_prices(venue: Venue, pools: list[PoolRow]) -> dict[str, float]:
    last = Round.objects.filter(venue=venue, published_at__isnull=False).order_by("-number").first()
    if last is None:
        return {}
    names = {row.pool.pk: str(row.pool) for row in pools}
    return {
        names[pool]: as_credits(price)
        for pool, price in PoolPrice.objects.filter(round=last).values_list(
            "pool_id", "price_micro"
        )
        if pool in names
    }


def awards_read(
    *, book: dict[str, Any], clearing: dict[str, Any], pools: dict[str, UUID]
) -> list[Award]:
    """The allocation of a clearing as values with ids. `pools`: name in the book -> id."""
    speeds = {
        (a["pool"], a["class"], a.get("gpus", 1)): a["samples_per_s"] for a in book["affinity"]
    }
    classes = {job["id"]: job["class"] for job in book["jobs"]}
    awards = []
    for line in clearing["allocation"]:
        gpus = round(line["gpu_hours"] / book["round_hours"])
        key = (line["pool"], classes[line["job"]])
        speed = speeds.get((*key, gpus)) or gpus * speeds[(*key, 1)]
        awards.append(
            Award(
                job_id=UUID(line["job"]),
                pool_id=pools[line["pool"]],
                gpus=gpus,
                samples=max(1, round(line["msamples"] * 1e6)),
                samples_per_s=speed,
                price_micro=price_micro(clearing["prices"][line["pool"]]),
                payment_micro=int(line["payment_micro"]),
            )
        )
    return awards


def bid_limits(book: dict[str, Any]) -> dict[str, str]:
    """For bids that are worth less than a round of GPU time: what holds them down, in words."""
    best: dict[str, float] = defaultdict(float)
    for row in book["affinity"]:
        best[row["class"]] = max(best[row["class"]], row["samples_per_s"] / row["gpus"])
    found = {}
    for job in book["jobs"]:
        sizes = job["gang"] if isinstance(job["gang"], list) else [job["gang"]]
        output = best[job["class"]] * min(sizes) * book["round_hours"] * 3600 / 1e6
        if job["demand"] >= 0.99 * output:
            continue
        if job["budget"] < 1.01 * job["demand"] * job["value"] and job["budget"] > 0:
            paid = "what its max_cost and its tenant's funds leave for this round pays for"
        else:
            paid = "it has only"
        found[job["id"]] = (
            f"A gang pays for its GPUs for the whole round, and {paid} "
            f"{job['demand']:.6g} of the {output:.6g} million samples that a round can train."
        )
    return found


def price_micro(credits: float) -> int:
    """A published price as micro-credits."""
    return to_micro(Decimal(repr(credits)))


def pack(document: dict[str, Any]) -> bytes:
    """A document as gzip: the same document always gives the same bytes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode(), mtime=0)


def unpack(body: bytes | memoryview) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress(bytes(body)))
    return document
