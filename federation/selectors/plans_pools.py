"""What is on offer, as the planner reads it: GPUs, links, prices, speeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from federation.admission import Doors
from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.pool import BELIEF_RULES, BelievedSpeed, Pool
from federation.affinity.planner.sheets import described
from federation.machines.offer import OfferState
from federation.matching import permits
from federation.models import Job, JobClass, OfferPool, PoolPrice, Round, Venue
from federation.selectors.admission import doors_read
from federation.selectors.affinity import Matrix, believed_cells, current_offers

MICRO = 1e6
MOST_POOLS = 200  #: weighed for one job


class Wish(Protocol):
    """What a job says of where it may run; a job and a draft of one do."""

    @property
    def gpus(self) -> Iterable[int]: ...
    @property
    def gpu_kinds(self) -> Iterable[str]: ...
    @property
    def sites_allow(self) -> Iterable[str]: ...
    @property
    def sites_deny(self) -> Iterable[str]: ...
    @property
    def pools(self) -> Iterable[str]: ...


@dataclass(frozen=True, slots=True)
class Market:
    """Pools to weigh, and a sentence for each that cannot be."""

    pools: tuple[Pool, ...]
    unknown: tuple[tuple[str, str], ...]  #: pool, why
    left_out: tuple[str, ...]  #: beyond MOST_POOLS, those with least computing for a credit


@dataclass(frozen=True, slots=True)
class Stock:
    """What is on offer at a moment, for any wish: read once, however many jobs are planned."""

    lines: tuple[OfferPool, ...]  #: by name
    doors: Doors
    prices: Mapping[UUID, int]  #: of a pool, micro-credits per GPU-hour
    cells: Matrix


def stock_read(venue: Venue, now: datetime) -> Stock:
    """The pools on offer now, with the prices of the last round and all believed speeds."""
    offers = list(current_offers(venue, now))
    lines = OfferPool.objects.filter(offer__in=offers).select_related("pool__site")
    return Stock(
        lines=tuple(sorted(lines, key=lambda line: str(line.pool))),
        doors=doors_read(venue, offers, now),
        prices=prices_last(venue),
        cells=believed_cells(offers),
    )


def market_for(*, wish: Wish, job_class: JobClass, stock: Stock) -> Market:
    """The pools in stock that the wish permits, with prices and believed speeds."""
    lines = [
        line
        for line in _permitted(stock.lines, wish)
        if not stock.doors.shut_to_class(line.pool.site_id, job_class.pk, job_class.name)
    ]
    prices = stock.prices
    speeds = _speeds(stock.cells, job_class) if lines else {}
    found: list[Pool] = []
    unknown: list[tuple[str, str]] = []
    for line in lines:
        price = max(prices.get(line.pool_id, 0), line.reserve_micro)
        believed = speeds.get(line.pool_id, {})
        made = planner_pool(line, price_micro=price, believed=_believed(believed, line.gpus))
        if isinstance(made, Pool):
            found.append(made)
        else:
            unknown.append((str(line.pool), made))
    ranked = sorted(found, key=lambda pool: (pool.price / pool.device.peak_tflops, pool.id))
    left_out = tuple(pool.id for pool in ranked[MOST_POOLS:])
    return Market(tuple(ranked[:MOST_POOLS]), tuple(unknown), left_out)


def planner_pool(
    line: OfferPool, *, price_micro: int = 0, believed: BelievedSpeed | None = None
) -> Pool | str:
    """A pool on offer for the planner, `pool` selected with its site; or why it cannot be one."""
    if line.gpus < 1:
        return f"{line.pool} has no GPU on offer"
    try:
        found = described(line.pool.gpu, line.device or {})
    except BadDescription as refused:
        return f"what the site of {line.pool} says of its GPUs cannot be: {refused}"
    if isinstance(found, str):
        return f"{line.pool}: {found}"
    return Pool(
        id=str(line.pool),
        device=found.device,
        gpus=line.gpus,
        gpus_per_node=found.gpus_per_node,
        price=price_micro / MICRO,
        believed=believed,
    )


def belief(samples_per_s: float | None, gpus: int) -> BelievedSpeed | None:
    """A speed for the planner; None for one that is not known, or beyond what it reckons with."""
    if samples_per_s is None or BELIEF_RULES["samples_per_s"].problem("", samples_per_s):
        return None
    return BelievedSpeed(samples_per_s, gpus)


def lines_of(pools: Iterable[UUID]) -> dict[UUID, OfferPool]:
    """Pool -> its line in its site's current offer."""
    rows = OfferPool.objects.filter(
        pool__in=set(pools), offer__state__in=[OfferState.ACTIVE, OfferState.PAUSED]
    )
    return {line.pool_id: line for line in rows.select_related("pool__site")}


def gpus_on_offer(pools: Iterable[UUID]) -> dict[UUID, int]:
    """Pool -> GPUs in its site's current offer; a pool that is in none is left out."""
    rows = OfferPool.objects.filter(
        pool__in=set(pools), offer__state__in=[OfferState.ACTIVE, OfferState.PAUSED]
    )
    return dict(rows.values_list("pool_id", "gpus"))


def prices_last(venue: Venue) -> dict[UUID, int]:
    """What the pools of the last published round cleared at, micro-credits per GPU-hour."""
    published = Round.objects.filter(venue=venue, published_at__isnull=False)
    last = published.order_by("-number").values_list("pk", flat=True).first()
    rows = PoolPrice.objects.filter(round=last)
    return dict(rows.values_list("pool_id", "price_micro"))


def _permitted(lines: Iterable[OfferPool], wish: Wish) -> list[OfferPool]:
    """Lines that the wish permits, in their order."""
    asking = Job(
        gpu_kinds=list(wish.gpu_kinds),
        sites_allow=list(wish.sites_allow),
        sites_deny=list(wish.sites_deny),
        pools=list(wish.pools),
    )
    return [line for line in lines if permits(asking, line.pool)]


def _speeds(cells: Matrix, job_class: JobClass) -> dict[UUID, dict[int, float]]:
    """Pool -> GPUs -> samples/s that the market plans on, of the class."""
    found: dict[UUID, dict[int, float]] = {}
    for (pool, gpus), speed in cells.row_speeds(job_class.pk).items():
        if speed > 0:  # 0: not priced on
            found.setdefault(pool, {})[gpus] = speed
    return found


def _believed(speeds: Mapping[int, float], most: int) -> BelievedSpeed | None:
    """The largest gang known that the pool has: what is planned is rather large than small."""
    known = [gpus for gpus in speeds if gpus <= most]
    return belief(speeds[max(known)], max(known)) if known else None
