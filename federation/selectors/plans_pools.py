"""What is on offer, as the planner reads it: GPUs, links, prices, speeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from federation.affinity.planner.errors import BadDescription
from federation.affinity.planner.pool import BELIEF_RULES, BelievedSpeed, Pool
from federation.affinity.planner.sheets import described
from federation.machines.offer import OfferState
from federation.matching import permits
from federation.models import Job, JobClass, Offer, OfferPool, PoolPrice, Round, Venue
from federation.selectors.affinity import believed_cells, current_offers

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


def market_for(*, wish: Wish, job_class: JobClass, venue: Venue, now: datetime) -> Market:
    """The pools on offer now that the wish permits, with prices and believed speeds."""
    offers = list(current_offers(venue, now))
    lines = _permitted(offers, wish)
    prices = prices_last(venue)
    speeds = _speeds(offers, job_class) if lines else {}
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


def prices_last(venue: Venue) -> dict[UUID, int]:
    """What the pools of the last published round cleared at, micro-credits per GPU-hour."""
    published = Round.objects.filter(venue=venue, published_at__isnull=False)
    last = published.order_by("-number").values_list("pk", flat=True).first()
    rows = PoolPrice.objects.filter(round=last)
    return dict(rows.values_list("pool_id", "price_micro"))


def _permitted(offers: list[Offer], wish: Wish) -> list[OfferPool]:
    """Lines of the offers that the wish permits, by name."""
    asking = Job(
        gpu_kinds=list(wish.gpu_kinds),
        sites_allow=list(wish.sites_allow),
        sites_deny=list(wish.sites_deny),
        pools=list(wish.pools),
    )
    lines = OfferPool.objects.filter(offer__in=offers).select_related("pool__site")
    own = [line for line in lines if permits(asking, line.pool)]
    return sorted(own, key=lambda line: str(line.pool))


def _speeds(offers: list[Offer], job_class: JobClass) -> dict[UUID, dict[int, float]]:
    """Pool -> GPUs -> samples/s that the market plans on, of the class."""
    found: dict[UUID, dict[int, float]] = {}
    for (pool, gpus), speed in believed_cells(offers).row_speeds(job_class.pk).items():
        if speed > 0:  # 0: not priced on
            found.setdefault(pool, {})[gpus] = speed
    return found


def _believed(speeds: Mapping[int, float], most: int) -> BelievedSpeed | None:
    """The largest gang known that the pool has: what is planned is rather large than small."""
    known = [gpus for gpus in speeds if gpus <= most]
    return belief(speeds[max(known)], max(known)) if known else None
