"""What one reading of a venue finds: offers, free GPUs, speeds, leases, vetoes, funds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from federation.admission import OPEN, Doors
from federation.affinity.alarms import trimmed
from federation.machines.lease import LIVE
from federation.models import Account, Lease, Offer, OfferPool, Pool, Tenant, Venue
from federation.selectors.admission import doors_read
from federation.selectors.affinity import Matrix, believed_cells, current_offers
from federation.selectors.matrix import EXTRAPOLATED
from federation.selectors.records import haircuts
from federation.selectors.rules import rules_newest

VETO = timedelta(hours=1)  #: a pool that declined or lost a job is not asked again for this long
SITE_ENDINGS = ("declined", "driver_failed", "lost")


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool on offer, with the GPUs that no lease holds beyond this round.

    Of a pool whose leases do not start, only those that are planned on.
    """

    pool: Pool
    name: str
    gpus: int
    reserve_micro: int
    cap_micro: int | None = None  #: most that a GPU-hour may cost; None = no limit


@dataclass(frozen=True, slots=True)
class Running:
    """Where a job that bids again runs now."""

    pool_id: UUID
    gpus: int


@dataclass(frozen=True, slots=True)
class View:
    """One reading of the venue. Jobs and tenants are named by the text of their ids."""

    venue: Venue
    offers: list[Offer]
    pools: dict[UUID, PoolRow]  #: by id, in the order of their names
    cells: Matrix
    running: dict[str, Running]  #: bidding jobs that have a live lease
    vetoes: dict[str, frozenset[UUID]]  #: job -> pools that declined or lost it lately
    funds: dict[str, int]  #: tenant -> free micro-credits
    tenants: dict[str, str]  #: tenant -> name
    doors: Doors = OPEN  #: who is not let in where

    def keys(self, bids: Iterable[tuple[Any, ...]]) -> list[str]:
        """A key for each bid: those of one key have the same terms.

        A bid begins with job, tenant and group.
        """
        own, doors = self.vetoes, self.doors
        if doors.plain:
            return [job if job in own else group or job for job, _, group, *_ in bids]
        return [
            job if job in own else doors.key(job, tenant, group or job)
            for job, tenant, group, *_ in bids
        ]

    def takes(self, pool: UUID, gpus: int) -> bool:
        """Whether the pool's site gives one job so many GPUs."""
        most = self.doors.most(self.pools[pool].pool.site_id)
        return most is None or gpus <= most

    def speed(self, pool: UUID, job_class: UUID, gpus: int) -> float | None:
        """Samples/s of a class on a gang there; None = not known to run, or not priced on."""
        return self.cells.speed(pool, job_class, gpus)

    def beyond(self, pool: UUID, job_class: UUID, gpus: int) -> bool:
        """Whether a model speaks of that gang, from beyond what was measured."""
        said = self.cells.get((pool, job_class, gpus))
        return said is not None and said.source == EXTRAPOLATED


def view_read(
    venue: Venue, bidding: Iterable[str], now: datetime, cells: Matrix | None = None
) -> View:
    """Read a venue in a few statements, whatever the number of jobs, `bidding`, that bid.

    `cells`: its affinity matrix, where it was read already.
    """
    offers = list(current_offers(venue, now))
    running, held = _leases(venue, bidding)
    pools = _pools(venue, offers, running, held)
    funds = Account.objects.filter(
        kind=Account.Kind.TENANT_CASH, currency=venue.currency, tenant__isnull=False
    ).values_list("tenant_id", "balance_micro")
    return View(
        venue=venue,
        offers=offers,
        pools={row.pool.pk: row for row in sorted(pools, key=lambda row: row.name)},
        cells=believed_cells(offers) if cells is None else cells,
        running=running,
        vetoes=_vetoes(venue, now),
        funds={str(tenant): balance for tenant, balance in funds},
        tenants={str(pk): name for pk, name in Tenant.objects.values_list("pk", "name")},
        doors=doors_read(venue, offers, now),
    )


def _pools(
    venue: Venue, offers: list[Offer], running: dict[str, Running], held: dict[UUID, int]
) -> list[PoolRow]:
    """Pools on offer, with what is planned on and the venue's price caps.

    A cap below a pool's reserve is raised to it: the site may not be made to sell at a loss.
    """
    rules = rules_newest(venue)
    caps: dict[str, int] = {} if rules is None else rules.price_caps
    lines = list(OfferPool.objects.filter(offer__in=offers).select_related("pool__site__member"))
    unstarted = haircuts(line.pool_id for line in lines)
    busy: dict[UUID, int] = defaultdict(int, held)
    for place in running.values():
        busy[place.pool_id] += place.gpus
    rows = []
    for line in lines:
        pool, gpus, cap = line.pool_id, line.gpus, caps.get(line.pool.gpu)
        if pool in unstarted:
            gpus = trimmed(gpus=gpus, share=unstarted[pool], busy=busy[pool])
        rows.append(
            PoolRow(
                pool=line.pool,
                name=str(line.pool),
                gpus=max(0, gpus - held[pool]),
                reserve_micro=line.reserve_micro,
                cap_micro=None if cap is None else max(cap, line.reserve_micro),
            )
        )
    return rows


def _leases(venue: Venue, bidding: Iterable[str]) -> tuple[dict[str, Running], dict[UUID, int]]:
    """Live leases of jobs that bid again, and the GPUs of each pool that the others keep."""
    live = Lease.objects.filter(site__venue=venue, state__in=sorted(LIVE)).values_list(
        "job_id", "pool_id", "gpus", "revoke_asked_at"
    )
    leases = {str(job): (Running(pool, gpus), asked) for job, pool, gpus, asked in live}
    running = {job: leases[job][0] for job in bidding if job in leases}
    held: dict[UUID, int] = defaultdict(int)
    for job, (place, asked) in leases.items():
        if job not in running and asked is None:
            held[place.pool_id] += place.gpus
    return running, held


def _vetoes(venue: Venue, now: datetime) -> dict[str, frozenset[UUID]]:
    lost = Lease.objects.filter(
        job__venue=venue,
        job__ended_at__isnull=True,
        end_reason__in=SITE_ENDINGS,
        ended_at__gt=now - VETO,
    )
    found: dict[str, set[UUID]] = defaultdict(set)
    for job, pool in lost.values_list("job_id", "pool_id"):
        found[str(job)].add(pool)
    return {job: frozenset(pools) for job, pools in found.items()}
