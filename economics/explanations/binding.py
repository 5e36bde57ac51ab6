"""What kept a job from more: its own limits, a pool that is full, or the price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from economics.curves.cleared import Cleared
from economics.explanations.words import amount, gpus, listed
from economics.market import Index
from economics.rows import JobRow

SERVED, PARTLY, NOT_SERVED, NOTHING_ASKED = "served", "partly_served", "not_served", "nothing_asked"
FULL = 1e-6  # relative; what is left of a limit below this is not worth a line
WHAT = {  # reason of a clearing's `unplaced` -> what binds
    "no_capacity": "capacity",
    "partly_served": "priced_out",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job got, and what it is up against."""

    status: str
    gpu_hours: float
    msamples: float
    binding: tuple[dict[str, Any], ...]

    @property
    def wants_more(self) -> bool:
        return self.status in (NOT_SERVED, PARTLY)


def outcome(cleared: Cleared, job: int) -> Outcome:
    """Status of one job and everything that binds, own limits first."""
    market, row = cleared.book.market, cleared.book.jobs[job]
    at = np.arange(market.columns)[market.columns_of(job)]
    hours = float((market.gpu_hours[at] * cleared.share[at]).sum())
    given = float((market.msamples[at] * cleared.share[at]).sum())
    if row.value == 0 or row.demand == 0 or row.max_gpus == 0:
        why = "it bids nothing or asks for no work in this round."
        return Outcome(NOTHING_ASKED, hours, given, (_bound("nothing_asked", why),))
    limits = _gang(cleared, row, at) if row.gang else _limits(cleared, job, row, hours, given)
    own = list(limits)
    binding = list(own)
    if hours > 0:
        binding += _floor(cleared, job, row, at)
    taken = {bound["what"] for bound in own}
    status = _status(row, hours, taken)
    if status in (PARTLY, NOT_SERVED):
        told = _market(cleared, row, at)
        binding += [bound for bound in told if bound["what"] not in taken]
    return Outcome(status, hours, given, tuple(binding))


def _status(row: JobRow, hours: float, own: set[str]) -> str:
    if hours <= 0:
        return NOT_SERVED
    return SERVED if row.gang or own & {"demand", "width"} else PARTLY


def _bound(what: str, why: str, pool: str | None = None) -> dict[str, Any]:
    return {"what": what, "pool": pool, "why": why}


def _gang(cleared: Cleared, row: JobRow, at: Index) -> Iterator[dict[str, Any]]:
    """A gang that runs has all it can have; one that does not is left to the market."""
    market = cleared.book.market
    for column in at[cleared.share[at] > 0]:
        pool = cleared.book.pools[int(market.pool[column])].id
        size = float(market.gpu_hours[column]) / cleared.book.hours
        yield _bound("gang", f"runs whole on {gpus(size)} at {pool} for the whole round.", pool)
        if market.msamples[column] >= row.demand * (1 - FULL):
            yield _bound("demand", f"gets all {amount(row.demand)} million samples it asks for.")


def _limits(
    cleared: Cleared, job: int, row: JobRow, hours: float, given: float
) -> Iterator[dict[str, Any]]:
    """Demand, width and budget of a divisible job, as far as they are used up."""
    market = cleared.book.market
    if hours >= market.width[job] * (1 - FULL):
        why = f"runs as wide as it may: {gpus(row.max_gpus)} for the whole round."
        yield _bound("width", why)
    if given >= row.demand * (1 - FULL):
        yield _bound("demand", f"gets all {amount(row.demand)} million samples it asks for.")
    elif given >= market.demand[job] * (1 - FULL):
        why = (
            f"its budget of {amount(row.budget)} credits pays for no more at its own bid of "
            f"{amount(row.value)} per million samples."
        )
        yield _bound("budget", why)


def _floor(cleared: Cleared, job: int, row: JobRow, at: Index) -> Iterator[dict[str, Any]]:
    """A floor binds when the job runs at a loss that its home site bears."""
    market = cleared.book.market
    margin = cleared.worth[at] - cleared.price[market.pool[at]]
    lost = (cleared.share[at] > 0) & (margin < -cleared.close)
    if market.floor[job] > 0 and lost.any():
        pools = listed([cleared.book.pools[int(pool)].id for pool in market.pool[at[lost]]])
        yield _bound(
            "floor",
            f"runs at {pools} above its own bid: {row.site} promised it a floor and bears the "
            "difference.",
        )


def _market(cleared: Cleared, row: JobRow, at: Index) -> Iterator[dict[str, Any]]:
    """The clearing's own reason, and every full pool where the job is at the margin."""
    told = cleared.unplaced.get(row.id)
    full = [] if row.gang else list(_full_pools(cleared, row, at))
    yield from full
    if told is None:
        return
    what = str(told.get("reason", ""))
    if not (what == "partly_served" and full):
        yield _bound(WHAT.get(what, what), str(told.get("why", "")))


def _full_pools(cleared: Cleared, row: JobRow, at: Index) -> Iterator[dict[str, Any]]:
    market = cleared.book.market
    margin = cleared.worth[at] - cleared.price[market.pool[at]]
    for column in at[margin >= -cleared.close]:
        pool = int(market.pool[column])
        if cleared.sold[pool] < market.capacity[pool] * (1 - FULL):
            continue
        name, price = cleared.book.pools[pool].id, float(cleared.price[pool])
        yield _bound(
            "capacity",
            f"all {amount(market.capacity[pool])} GPU-hours of {name} are sold at "
            f"{amount(price)}, and one is worth {amount(float(cleared.worth[column]))} to it.",
            name,
        )
