"""Write side of sites' records: settled contracts become a score, a bond rate and alarms.

A record is counted anew from the rows each time, so running it twice, late or out of order changes
nothing. It moves the rate of the site's bonds; its alarms are for people, save that a pool whose
leases do not start is planned on with fewer GPUs while that alarm is open.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max

from federation.affinity.alarms import (
    cusum,
    deviations,
    forged,
    non_start_share,
    slow_in_a_row,
)
from federation.affinity.reputation import bond_rate, score
from federation.errors import Refused
from federation.models import Alarm, Contract, Dispute, JobClass, Pool, Site, SiteRecord
from federation.selectors.affinity import Cell
from federation.selectors.records import (
    Served,
    fastest_elsewhere,
    non_starts,
    recent_starts,
    seasons,
    served,
    served_to_others,
    sites_settled_since,
)
from federation.services.alarms import Concern, alarm_raise, alarms_settle
from federation.services.disputes import dispute_open
from federation.services.rules import rules_of
from federation.services.story import BROKER

EVERY = timedelta(seconds=10)  #: between two looks at the sites that had contracts settled
OVERLAP = timedelta(minutes=1)  #: a settlement may commit so much later than its own time says
SCORED = 50  #: newest contracts of a site that its score looks at
WATCHED = 50  #: newest contracts of a cell that its alarms look at
RECENT = timedelta(days=1)  #: leases that ended within it tell whether a pool's leases start
SHOWN = (Alarm.Kind.DRIFT, Alarm.Kind.RATIO, Alarm.Kind.NON_START)
LEAST = 3  #: contracts of a cell before drift is looked for


def records_refit(*, now: datetime) -> list[SiteRecord]:
    """Count anew the record of every site that had a contract settled; raise and close its alarms.

    Between two looks that found something lies EVERY at least. Sites whose leases did not start
    lately are looked at every time: their alarms end by time.
    """
    last = SiteRecord.objects.aggregate(last=Max("updated_at"))["last"]
    if last is not None and last <= now < last + EVERY:
        return []
    due = sites_settled_since(None if last is None else last - OVERLAP)
    watched = Alarm.objects.filter(kind=Alarm.Kind.NON_START, closed_at__isnull=True)
    due |= {site for site in watched.values_list("site_id", flat=True) if site is not None}
    sites = Site.objects.filter(pk__in=due).select_related("member", "venue").order_by("name")
    return [_refit(site, now) for site in sites]


def _refit(site: Site, now: datetime) -> SiteRecord:
    rows = served(site)
    _forgeries(site, rows, now)
    alarms_settle(
        open_alarms=Alarm.objects.filter(site=site, kind__in=SHOWN),
        found=[*_speeds(site, rows), *_starts(site, now)],
        now=now,
    )
    return _record(site, rows, now)


def _record(site: Site, rows: list[Served], now: datetime) -> SiteRecord:
    logs = [row.log_ratio for row in rows[-SCORED:]]
    broken, contracts = non_starts(site), served_to_others(site).count()
    lately = sum(starts.non_starts for starts in recent_starts(site, now - RECENT).values())
    points = score(logs, non_starts=lately)
    base = rules_of(site.venue, now).bond_ppm
    record, _ = SiteRecord.objects.update_or_create(
        site=site,
        defaults={
            "contracts": contracts,
            "non_starts": broken,
            "log_ratio": sum(logs) / len(logs) if logs else 0.0,
            "score": points,
            # as the rules stand now, for people: bonds are computed of the score when they are held
            "bond_ppm": bond_rate(base, points) if contracts or broken else None,
            "updated_at": now,
        },
    )
    return record


def _speeds(site: Site, rows: list[Served]) -> Iterable[Concern]:
    """Cells whose contracts drifted from what was claimed, or stay below it."""
    season = seasons(site, {row.cell[1] for row in rows})
    cells: dict[Cell, list[float]] = defaultdict(list)
    for row in rows:
        cells[row.cell].append(row.log_ratio)
    for cell, every in sorted(cells.items(), key=lambda item: str(item[0])):
        logs = every[-WATCHED:]
        if len(logs) >= LEAST:
            yield from _drift(site, cell, logs, season.get(cell[1], []))
        if slow_in_a_row(logs):
            why = "The last ten contracts all ran below nine tenths of the speed that is claimed."
            yield _of_cell(site, cell, Alarm.Kind.RATIO, why, {"log_ratios": logs[-10:]})


def _drift(site: Site, cell: Cell, logs: list[float], season: list[float]) -> Iterable[Concern]:
    drift = cusum(deviations(logs, season))
    if drift is None:
        return
    way = "faster" if drift.faster else "slower"
    why = (
        f"Its contracts run {way} than claimed, and lastingly: the sum of their deviations is "
        f"{drift.sums:.3g} of their own spread."
    )
    figures = {"sums": drift.sums, "faster": drift.faster, "contracts": len(logs)}
    yield _of_cell(site, cell, Alarm.Kind.DRIFT, why, figures)


def _starts(site: Site, now: datetime) -> Iterable[Concern]:
    """Pools of which too many recent leases never started."""
    for pool, starts in recent_starts(site, now - RECENT).items():
        share = non_start_share(leases=starts.leases, non_starts=starts.non_starts)
        if not share:
            continue
        where = Pool.objects.select_related("site").get(pk=pool)
        why = (
            f"{starts.non_starts} of {starts.leases} leases of the last day never started. While "
            "this is so the market plans with fewer of its GPUs."
        )
        figures = {"share": share, "leases": starts.leases, "non_starts": starts.non_starts}
        yield Concern(Alarm.Kind.NON_START, str(where), why, figures, site, where)


def _forgeries(site: Site, rows: list[Served], now: datetime) -> None:
    """Contracts that report more than the hardware can do: told once, and disputed."""
    elsewhere = fastest_elsewhere(site, {row.cell[1] for row in rows})
    kinds = dict(Pool.objects.filter(site=site).values_list("pk", "gpu"))
    told = set(
        Alarm.objects.filter(kind=Alarm.Kind.FORGED, site=site).values_list("about", flat=True)
    )
    for row in rows:
        pool, job_class, gpus = row.cell
        fastest = max(row.claimed / gpus, elsewhere.get((kinds[pool], job_class), 0.0))
        about = f"contract {row.contract_id}"
        if about in told or not forged(
            samples=row.delivered, gpu_seconds=row.gpu_seconds, fastest=fastest
        ):
            continue
        why = (
            f"{row.delivered} samples in {row.gpu_seconds:.6g} GPU-seconds, where nobody has shown "
            f"or claimed more than {fastest:.6g} samples/s on one GPU."
        )
        figures = {
            "samples": row.delivered,
            "gpu_seconds": row.gpu_seconds,
            "fastest": fastest,
        }
        concern = _of_cell(site, row.cell, Alarm.Kind.FORGED, why, figures, about)
        with transaction.atomic():
            alarm_raise(concern=concern, now=now)
            _object(row, why, int(fastest * row.gpu_seconds), now)


def _object(row: Served, why: str, possible: int, now: datetime) -> None:
    """The broker disputes the contract, unless its window is over or it is disputed already."""
    with contextlib.suppress(Refused):
        dispute_open(
            contract=Contract.objects.get(pk=row.contract_id),
            by=Dispute.By.BROKER,
            actor=BROKER,
            code="forged",
            why=why,
            claimed=possible,
            now=now,
        )


def _of_cell(
    site: Site, cell: Cell, kind: str, why: str, figures: Mapping[str, object], about: str = ""
) -> Concern:
    pool, job_class, gpus = cell
    where = Pool.objects.select_related("site").get(pk=pool)
    what = JobClass.objects.get(pk=job_class)
    named = about or f"{where} {what} x{gpus}"
    return Concern(kind, named, why, {"gpus": gpus, **figures}, site, where, what)
