"""The demo's training jobs: sized by the offered speeds, submitted by REST, read at the end."""

from __future__ import annotations

import sys
from typing import Any

from broker.demo.sites import KNOWN, TRAINING, UNKNOWN
from hanse.client import Client

SECONDS = (5.0, 7.0, 9.0)  #: of training at the class's best site
WORTH = (2400.0, 3600.0, 3000.0, 4200.0)  #: credits per GPU-hour at the class's best site
UNKNOWN_SAMPLES = 120_000


def clients(url: str, tokens: dict[str, str]) -> dict[str, Client]:
    """One REST client for each tenant."""
    return {name: Client(url, token) for name, token in tokens.items()}


def all_sites_offer() -> bool:
    """True when every site is online and its offer states the speed of every class it knows."""
    from federation.models import OfferAffinity, Site

    stated = OfferAffinity.objects.filter(offer__state="active", offer__site__state="online")
    return stated.count() == Site.objects.count() * len(KNOWN)


def best_speeds(client: Client) -> dict[str, float]:
    """Class -> samples/s at the site where it is fastest."""
    best: dict[str, float] = {}
    for pool in client.offers():
        for cell in pool["affinities"]:
            if cell["gpus"] == 1:
                name = cell["job_class"]
                best[name] = max(best.get(name, 0.0), cell["believed"] or 0.0)
    return best


def submit_all(tenants: dict[str, Client], count: int) -> list[str]:
    """Submit `count` jobs, spread over tenants and classes; returns their ids."""
    speeds = best_speeds(next(iter(tenants.values())))
    names = list(tenants)
    ids = []
    for i in range(count):
        job_class = UNKNOWN if i == count - 1 else KNOWN[i % len(KNOWN)]
        body = _body(i, job_class, speeds.get(job_class))
        tenant = names[(i // len(KNOWN) + i) % len(names)]
        ids.append(tenants[tenant].submit(body, idempotency_key=f"demo-{i}")["id"])
    return ids


def _body(i: int, job_class: str, speed: float | None) -> dict[str, Any]:
    worth = WORTH[i % len(WORTH)]
    samples = int((speed or 0) * SECONDS[i % len(SECONDS)]) or UNKNOWN_SAMPLES
    per_million = worth / ((speed or 20_000.0) * 3600 / 1e6)
    return {
        "name": f"{job_class}-{i + 1:02d}",
        "job_class": job_class,
        "command": f"exec {sys.executable} {TRAINING} --class {job_class} --seed {i}",
        "gpus": [1],
        "samples": samples,
        "value": f"{per_million:.6f}",
        "max_cost": "1000",
        "preemptible": True,
        "max_runtime_s": 180,
        "grace_s": 5,
    }


def all_settled() -> bool:
    """True when every job is over, every contract paid and every decided round closed."""
    from federation.machines import job, round
    from federation.models import Contract, Job, Round

    return not (
        Job.objects.filter(state__in=sorted(job.MACHINE.live)).exists()
        or Contract.objects.exclude(state__in=["settled", "final", "voided"]).exists()
        or Round.objects.exclude(state__in=["open", *sorted(round.MACHINE.final)]).exists()
    )


def rows(ids: list[str]) -> list[dict[str, Any]]:
    """One row for each submitted job, as it ended."""
    from federation.models import Job, Lease

    found = []
    for job in (
        Job.objects.filter(pk__in=ids).select_related("job_class", "tenant").order_by("name")
    ):
        lease = Lease.objects.filter(job=job).select_related("site").order_by("-samples").first()
        found.append(_row(job, lease))
    return found


def _row(job: Any, lease: Any) -> dict[str, Any]:
    predicted = lease.predicted_samples_per_s if lease else None
    measured = lease.measured_samples_per_s if lease else None
    contract = lease.contracts.order_by("-sequence").first() if lease else None
    return {
        "job": job.name,
        "class": job.job_class.name,
        "tenant": job.tenant.name,
        "state": job.state,
        "reason": job.reason,
        "site": lease.site.name if lease else None,
        "predicted": predicted,
        "measured": measured,
        "error": abs(measured / predicted - 1) if predicted and measured else None,
        "price_micro": contract.price_micro if contract else None,
        "spent_micro": job.spent_micro,
        "loss": lease.loss if lease else None,
        "attempts": job.attempts,
    }
