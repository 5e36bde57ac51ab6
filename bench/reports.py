"""Measured steps on PostgreSQL: accepted each second, read by models, believed by a round.

`python -m bench.reports --json`. A PostgreSQL of its own is started (or DATABASE_URL names one that
may be filled). Batches of reports with measurements are stored, first the measurements alone, then
as whole reports; a model reads one more batch; then the believed matrix is read before and after a
million samples stand behind it, with a prior stored for each of its cells, and again when every
other class is claimed nowhere, so that priors are all that is known of most of its cells. What a
round needs of it is one figure, every cell with its source, as a person sees it, another.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agents.protocol import PROTOCOL
from bench.support import database, report
from bench.supposed import guessed

if TYPE_CHECKING:
    from federation.models import Job, JobClass, Lease, Pool, Site, Venue
    from federation.services.reports import ReportIn
    from federation.services.sample_checks import SampleIn

REPEATS = 5
LEASES = 50  #: that the site's agent reports of
FEW = 2  #: of them, that one message speaks of after the broker was away
BATCH = 500  #: reports, as many as a message holds
BULK = 10_000  #: measurements stored at once
POSTS = 4  #: messages in a row
MEASURED = 10  #: each so-many-th cell of the matrix was measured
MODELLED = 50  #: and of each so-many-th pair there is a model
SIZES = (1, 2, 4, 8, 16)  #: gangs that each modelled pair has a forecast of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000, help="behind the matrix")
    parser.add_argument("--classes", type=int, default=2000)
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    with database():
        figures = measure(asked)
    report("reports", figures, as_json=asked.json)


@dataclass(slots=True)
class World:
    """A venue with its matrix, and leases on some of its pools that report."""

    venue: Venue
    site: Site
    leases: list[Lease]
    pools: list[Pool]
    classes: list[JobClass]
    contracts: dict[UUID, UUID]  #: that each lease runs under
    lines: int = 0

    def samples(self, many: int, leases: int = LEASES) -> list[SampleIn]:
        """Fresh measurements, taking turns over some leases."""
        from federation.services.sample_checks import SampleIn

        draw = random.Random(self.lines)  # noqa: S311 - the same in every run
        found = []
        for at in range(many):
            lease = self.leases[at % leases]
            line = self.lines + at // leases + 1
            batch = float(draw.choice((16, 32, 64, 128)))
            step = (0.02 + 0.004 * batch + 0.002 * lease.gpus**0.5) * draw.uniform(0.97, 1.03)
            found.append(
                SampleIn(
                    lease_id=lease.pk, seq=line, line=line, lines=line, step_s=step,
                    local_batch=batch, sync_s=0.05 * step, grad_sqr=1.0, grad_var=0.5,
                    memory_peak=2**33, gpu=lease.pool.gpu,
                )
            )  # fmt: skip
        self.lines += -(-many // leases)
        return found

    def batch(self, many: int, leases: int = LEASES) -> dict[str, Any]:
        """A message of reports with measurements under the leases' contracts, as it is posted."""
        return {
            "protocol": PROTOCOL,
            "reports": [
                {
                    "attempt": str(one.lease_id),
                    "seq": one.seq,
                    "kind": "progress",
                    "at": "2026-11-21T12:00:00+00:00",
                    "contract": str(self.contracts[one.lease_id]),
                    "progress": _progress(one),
                }
                for one in self.samples(many, leases)
            ],
        }

    def reports(self, many: int, leases: int = LEASES) -> list[ReportIn]:
        from agents.protocol import ReportBatch, decode
        from broker.gateway import wire

        return wire.reports(decode(ReportBatch, self.batch(many, leases)))


def _progress(one: SampleIn) -> dict[str, Any]:
    """Totals of the attempt, and what the job measured."""
    samples = one.line * 100
    return {
        "samples": samples,
        "contract_samples": samples,
        "gpu_seconds": float(one.line),
        "samples_per_s": 900.0,
        "lines": one.line,
        "loss": 0.5,
        "measurement": {
            "line": one.line,
            "step_time_s": one.step_s,
            "local_batch": one.local_batch,
            "sync_time_s": one.sync_s,
            "gpu": one.gpu,
            "grad_sqr": one.grad_sqr,
            "grad_var": one.grad_var,
            "memory_peak_bytes": one.memory_peak,
        },
    }


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Fill an empty database and time each step."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    world = furnish(asked)
    figures: dict[str, Any] = {
        "classes": asked.classes,
        "pools": asked.pools,
        **_stored(world, asked.repeats),
        **_refitted(world, asked.repeats),
    }
    _vacuum(connection)
    few = _believed(world, asked.repeats)
    _fill(world, asked.samples)
    _vacuum(connection)
    many = _believed(world, asked.repeats)
    figures |= {"few_samples": few["samples"], "few_matrix_seconds": few["matrix_seconds"]}
    return figures | many | guessed(world, partial(_believed, world, asked.repeats), asked.repeats)


def _vacuum(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _stored(world: World, repeats: int) -> dict[str, Any]:
    from federation.services.reports import reports_accept
    from federation.services.samples import samples_accept
    from tests.support.world import later

    def bulk(samples: Sequence[SampleIn]) -> None:
        kept = samples_accept(site=world.site, samples=samples, now=later(1))
        assert (kept.samples, kept.quarantined) == (len(samples), 0)

    def whole(reports: Sequence[ReportIn]) -> None:
        found = reports_accept(site=world.site, reports=reports, now=later(1))
        assert all(receipt.accepted for receipt in found.receipts)

    return {
        **_rates("bulk_samples_per_s", lambda: world.samples(BULK), bulk, repeats),
        **_rates("batch_samples_per_s", lambda: world.samples(BATCH), bulk, repeats),
        **_rates("bulk_reports_per_s", lambda: world.reports(BULK, LEASES), whole, repeats),
        **_rates("reports_per_s", lambda: world.reports(BATCH, FEW), whole, repeats),
        **_rates("spread_reports_per_s", lambda: world.reports(BATCH), whole, repeats),
        **_posted(world, repeats),
    }


def _posted(world: World, repeats: int) -> dict[str, float]:
    """Messages as an agent posts them: read, stored, answered."""
    from django.test import Client
    from django.utils import timezone

    from federation.services.access import agent_join, join_token_issue

    now = timezone.now()
    token = join_token_issue(site=world.site, actor="bench", ttl_s=600.0, now=now)
    headers = {"Authorization": f"Bearer {agent_join(token=token, now=now).secret}"}
    client = Client(headers=headers, raise_request_exception=True)

    def post(messages: list[str]) -> None:
        for message in messages:
            answer = client.post("/gateway/v1/reports", message, content_type="application/json")
            assert answer.status_code == 200, answer.content
            assert b'"accepted": false' not in answer.content

    found = []
    for _ in range(repeats + 1):
        messages = [json.dumps(world.batch(BATCH)) for _ in range(POSTS)]
        found.append(POSTS * BATCH / _seconds(partial(post, messages)))
    return _spread("posted_reports_per_s", found[1:])


def _rates(
    name: str, make: Callable[[], Any], run: Callable[[Any], None], repeats: int
) -> dict[str, float]:
    found = []
    for _ in range(repeats + 1):
        given = make()
        found.append(len(given) / _seconds(partial(run, given)))
    return _spread(name, found[1:])


def _refitted(world: World, repeats: int) -> dict[str, Any]:
    """A model that has read a thousand samples or more reads one more batch of one lease."""
    from federation.models import StoredModel
    from federation.services.fits import model_refit, models_refit
    from federation.services.samples import samples_accept
    from tests.support.world import later

    while models_refit(now=later(2)):
        pass
    lease, taken = world.leases[0], []
    for at in range(repeats + 1):
        batch = [one for one in world.samples(100 * LEASES) if one.lease_id == lease.pk]
        samples_accept(site=world.site, samples=batch, now=later(3 + at))
        stored = StoredModel.objects.select_related("pool__site", "job_class").get(
            pool=lease.pool_id, job_class=lease.job.job_class_id
        )
        taken.append(_seconds(partial(model_refit, stored=stored, now=later(9))))
    read = StoredModel.objects.get(pk=stored.pk)
    assert not read.why
    return {"refit_samples": read.samples, **_spread("refit_seconds", taken[1:])}


def _believed(world: World, repeats: int) -> dict[str, Any]:
    """The whole matrix, and of it what one class's gangs are planned on."""
    from federation.models import ThroughputSample
    from federation.selectors.affinity import believed_cells, current_offers
    from tests.support.world import later

    taken, cells = [], 0
    for _ in range(repeats + 1):
        started = time.perf_counter()
        matrix = believed_cells(list(current_offers(world.venue, later(60))))
        world_speed = matrix.speed(world.pools[0].pk, world.classes[0].pk, 1)
        taken.append(time.perf_counter() - started)
        cells = len(matrix.table.codes)
        assert world_speed is not None
    return {
        "samples": ThroughputSample.objects.count(),
        "cells": cells,
        **_spread("matrix_seconds", taken[1:]),
    }


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _spread(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        name: round(ordered[len(ordered) // 2], 4),
        f"{name}_least": round(ordered[0], 4),
        f"{name}_most": round(ordered[-1], 4),
    }


def furnish(asked: argparse.Namespace) -> World:
    """Every class has a speed on one GPU of every pool; some were measured, some have a model."""
    from federation.bulk import rows_insert
    from federation.models import JobClass, MeasuredAffinity, Offer, OfferAffinity, Pool
    from tests.support.crowd import Crowd, furnish
    from tests.support.world import NOW

    crowd = Crowd(
        jobs=LEASES, pools=asked.pools, sites=20, classes=asked.classes, groups=50, feasible=1
    )
    made = furnish(crowd, now=NOW)
    pools = list(Pool.objects.select_related("site").order_by("site__name", "name"))
    classes = list(JobClass.objects.order_by("name"))
    offers = dict(Offer.objects.values_list("site_id", "pk"))
    OfferAffinity.objects.all().delete()
    pairs = [(pool, job_class) for pool in pools for job_class in classes]
    draw = random.Random(1)  # noqa: S311 - the same in every run
    rows_insert(
        OfferAffinity,
        ("offer_id", "pool_id", "job_class_id", "gpus", "samples_per_s", "source"),
        (
            (offers[pool.site_id], pool.pk, one.pk, 1, draw.uniform(500, 2000), "declared")
            for pool, one in pairs
        ),
    )
    rows_insert(
        MeasuredAffinity,
        ("pool_id", "job_class_id", "gpus", "samples_per_s", "log_sd", "leases", "updated_at"),
        ((p.pk, c.pk, 1, draw.uniform(500, 2000), 0.05, 5, NOW) for p, c in pairs[::MEASURED]),
    )
    _foresee(pairs)
    site = made.sites[0]
    leases = list(_leases(site))
    contracts = {lease.pk: _contract(lease) for lease in leases}
    return World(made.venue, site, leases, pools, classes, contracts)


def _contract(lease: Lease) -> UUID:
    """One that its lease works under; nobody pays."""
    from federation.models import Contract
    from tests.support.world import NOW

    made = Contract.objects.create(
        lease=lease, sequence=1, state="running", gpus=lease.gpus, price_micro=0,
        contracted=10**15, payment_micro=0, created_at=NOW,
    )  # fmt: skip
    return made.pk


def _foresee(pairs: list[tuple[Pool, JobClass]]) -> None:
    """Forecasts as models leave them."""
    from federation.bulk import rows_insert
    from federation.models import ForecastAffinity
    from federation.services.fits import FORECAST
    from tests.support.world import NOW

    modelled = pairs[1::MODELLED]
    rows_insert(
        ForecastAffinity,
        FORECAST,
        (
            (pool.pk, one.pk, gpus, 900.0 * gpus, 800.0 * gpus, 1000.0 * gpus, gpus > 8, 90, NOW)
            for pool, one in modelled
            for gpus in SIZES
        ),
    )


def _leases(site: Site) -> Iterator[Lease]:
    """Leases that run at the site; every job of a class of its own but for the last few."""
    from federation.models import Job, Lease
    from tests.support.world import NOW

    pools = list(site.pools.order_by("name"))
    jobs: list[Job] = list(Job.objects.select_related("job_class").order_by("name"))
    for at, job in enumerate(jobs):
        lease = Lease(
            job=job, attempt=1, site=site, pool=pools[at % len(pools)], gpus=(1, 2, 4, 8)[at % 4],
            state="active", fence_s=60.0, renewed_at=NOW, started_at=NOW, created_at=NOW,
        )  # fmt: skip
        lease.save()
        Job.objects.filter(pk=job.pk).update(state="running")
        yield lease


def _fill(world: World, samples: int) -> None:
    """More samples of all leases, until there are so many."""
    from federation.models import ThroughputSample
    from federation.services.samples import samples_accept
    from tests.support.world import NOW

    missing = samples - ThroughputSample.objects.count()
    while missing > 0:
        some = world.samples(min(missing, 5 * BULK))
        samples_accept(site=world.site, samples=some, now=NOW + timedelta(hours=1))
        missing -= len(some)


if __name__ == "__main__":
    main()
