"""`hanse.explanations/1`: why each job got what it got, and what would have changed it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from economics.curves.bundles import best_gain
from economics.curves.cleared import Cleared, number
from economics.errors import BadBook, Problem
from economics.explanations.binding import outcome
from economics.explanations.changes import changes, gains_from
from economics.explanations.offers import barred, offers
from economics.explanations.ways import ways_of

EXPLANATIONS_FORMAT = "hanse.explanations/1"


def explanations(cleared: Cleared, jobs: Iterable[str] | None = None) -> dict[str, Any]:
    """The document for these jobs, all of them when None; rows by id.

    Raises BadBook for an id that the book does not hold.
    """
    named = sorted(set(cleared.job_at if jobs is None else jobs))
    return {
        "format": EXPLANATIONS_FORMAT,
        "book_sha256": cleared.book.sha256,
        "clearing_sha256": cleared.sha256,
        "jobs": [explain(cleared, name) for name in named],
    }


def explain(cleared: Cleared, name: str) -> dict[str, Any]:
    """One job's row: what it got, what bound it, every pool, and what would have changed it.

    Credits per round; bids in credits per million samples, prices in credits per GPU-hour.
    """
    if name not in cleared.job_at:
        raise BadBook((Problem("job", f"unknown job {name!r}"),))
    job = cleared.job_at[name]
    row, ways, result = cleared.book.jobs[job], ways_of(cleared, job), outcome(cleared, job)
    gained, best = _gains(cleared, job)
    return {
        "id": row.id,
        "site": row.site,
        "class": row.job_class,
        "value": number(row.value),
        "status": result.status,
        "gpu_hours": number(result.gpu_hours),
        "msamples": number(result.msamples),
        "payment_micro": _paid(cleared, job),
        "binding": list(result.binding),
        "gain": number(gained),
        "best_gain": number(best),
        "regret": number(best - gained),
        "pools": offers(cleared, job),
        "barred": barred(cleared, job, ways),
        "gains_from": gains_from(cleared, job, ways),
        "changes": changes(cleared, job, ways, result),
    }


def _gains(cleared: Cleared, job: int) -> tuple[float, float]:
    """Credits the award leaves the job at the published prices, and what its best bundle would."""
    market = cleared.book.market
    at = np.arange(market.columns)[market.columns_of(job)]
    margin = cleared.worth[at] - cleared.price[market.pool[at]]
    hours = market.gpu_hours[at] * cleared.share[at]
    left = bool(((hours > 0) & ~market.stays[at]).any())
    moving = float(market.move_charge[job]) if left else 0.0
    gained = float(margin @ hours) - moving
    best = best_gain(market, job, cleared.price)
    return gained, best if np.isfinite(best) else gained


def _paid(cleared: Cleared, job: int) -> int:
    at = cleared.book.market.columns_of(job)
    return sum(cleared.paid_micro[at])
