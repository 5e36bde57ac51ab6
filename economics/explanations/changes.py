"""What would have changed the answer, at the published prices: bid, budget, permission, GPUs, time.

Each change is worked out alone, everything else as it was, and prices as published: a job that is
small beside the market moves them little. `reclear.py` tries the bid in a new round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from economics.curves.cleared import Cleared, number
from economics.explanations.binding import Outcome
from economics.explanations.ways import Way
from economics.explanations.words import amount, gpus
from economics.rows import JobRow

SLIM = 1e-9  # credits per credit of value: gains below this are none
AGAIN = 1e-6  # relative; a job at the margin bids its own threshold, give or take


def gains_from(cleared: Cleared, job: int, ways: tuple[Way, ...]) -> dict[str, Any] | None:
    """The smallest bid, credits per Msample, from which the job gains at the published prices.

    None when no bid does: no pool may run it, or its budget does not pay for such a bid.
    """
    row = cleared.book.jobs[job]
    priced = [
        (way.bid_from(float(cleared.price[way.pool])), way.pool, way.gpus or 0, way)
        for way in ways
        if way.permitted and way.spare >= 0
    ]
    able = [found[:3] for found in priced if found[3].within(row.budget, found[0])]
    if not able:
        return None
    bid, pool, size = min(able)
    return {
        "pool": cleared.book.pools[pool].id,
        "gpus": size or None,
        "value": number(bid),
    }


def changes(
    cleared: Cleared, job: int, ways: tuple[Way, ...], result: Outcome
) -> list[dict[str, Any]]:
    """Everything that, changed alone, would have let the job gain more; by kind."""
    row = cleared.book.jobs[job]
    found = [*_deadline(cleared, row, ways)]
    if result.wants_more:
        found += _bid(row, gains_from(cleared, job, ways))
        found += _budget(cleared, row, ways, result)
        found += _more_gpus(cleared, row, ways)
    found += _permission(cleared, row, ways)
    return sorted(found, key=lambda change: str(change["kind"]))


def _change(kind: str, pool: str | None, why: str, **amounts: Any) -> dict[str, Any]:
    return {"kind": kind, "pool": pool, **amounts, "why": why}


def _bid(row: JobRow, threshold: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if threshold is None or threshold["value"] < row.value * (1 - AGAIN):
        return
    pool, value = threshold["pool"], threshold["value"]
    if value <= row.value * (1 + AGAIN):
        why = f"{pool} costs just what its bid is worth there: any higher bid gains."
    else:
        why = (
            f"From a bid of {amount(value)} per million samples on it gains at {pool} at these "
            f"prices; it bids {amount(row.value)}."
        )
    yield _change("bid", pool, why, value=value)


def _budget(
    cleared: Cleared, row: JobRow, ways: tuple[Way, ...], result: Outcome
) -> Iterator[dict[str, Any]]:
    if math.isinf(row.budget):
        return
    if not row.gang:
        if any(bound["what"] == "budget" for bound in result.binding) and math.isfinite(row.demand):
            needed = row.demand * row.value
            why = f"A budget of {amount(needed)} credits would pay for all it asks at its own bid."
            yield _change("budget", None, why, budget=number(needed))
        return
    over = _gaining(
        cleared,
        ways,
        lambda way: way.permitted and way.spare >= 0 and not way.within(row.budget, row.value),
    )
    if over:
        best = min(over, key=lambda way: (way.value, way.pool))
        pool = cleared.book.pools[best.pool].id
        why = (
            f"A budget of {amount(best.value)} credits would pay for its work of the round at "
            f"{pool}; it has {amount(row.budget)}."
        )
        yield _change("budget", pool, why, budget=number(best.value))


def _more_gpus(cleared: Cleared, row: JobRow, ways: tuple[Way, ...]) -> Iterator[dict[str, Any]]:
    """GPUs that the pool lacks: it is too small, or whole jobs left too few of them free."""
    book = cleared.book
    short = []
    for way in _gaining(cleared, ways, lambda way: way.permitted):
        sold = float(cleared.sold[way.pool]) / book.hours
        needs = (way.gpus or 1) - (book.pools[way.pool].gpus - sold)
        if (row.gang or way.spare < 0) and needs > AGAIN and way.within(row.budget, row.value):
            short.append((math.ceil(needs - AGAIN), way.pool, way))
    if short:
        lacking, at, way = min(short, key=lambda found: found[:2])
        pool = book.pools[at].id
        gain = way.gain(float(cleared.price[at]))
        why = (
            f"With {gpus(lacking)} more {pool} could run it; it would gain {amount(gain)} credits "
            "at these prices."
        )
        yield _change("gpus", pool, why, gpus=lacking, gain=number(gain))


def _permission(cleared: Cleared, row: JobRow, ways: tuple[Way, ...]) -> Iterator[dict[str, Any]]:
    """The cheapest pool it may not use, if it would gain more there than anywhere it may."""
    here = _gaining(cleared, ways, lambda way: _could(way, row) and way.permitted)
    there = _gaining(cleared, ways, lambda way: _could(way, row) and not way.permitted)
    if not there:
        return

    def gain(way: Way) -> float:
        return way.gain(float(cleared.price[way.pool]))

    best = max(there, key=lambda way: (gain(way), -way.pool))
    most = max(map(gain, here), default=0.0)
    if gain(best) - most <= cleared.close * best.gpu_hours:
        return
    pool = cleared.book.pools[best.pool].id
    why = (
        f"Were {pool} permitted, it would gain {amount(gain(best))} credits there at these prices, "
        f"and at most {amount(most)} where it may run."
    )
    yield _change("permission", pool, why, gain=number(gain(best)))


def _deadline(cleared: Cleared, row: JobRow, ways: tuple[Way, ...]) -> Iterator[dict[str, Any]]:
    """Whether what it asks for can still be done in time, on the fastest GPUs it may use."""
    if math.isinf(row.deadline_h) or math.isinf(row.demand):
        return
    able = [
        (_hours_needed(cleared, row, way), way.pool)
        for way in ways
        if way.permitted and way.spare >= 0
    ]
    if not able:
        return
    needed, at = min(able)
    pool, left = cleared.book.pools[at].id, row.deadline_h - needed
    asked = f"{amount(row.demand)} million samples take {amount(needed)} h at {pool}, the fastest"
    if left < 0:
        why = f"{asked} it may use; its deadline in {amount(row.deadline_h)} h comes before."
    else:
        why = f"{asked} it may use; it can wait {amount(left)} h and still meet its deadline."
    yield _change("deadline", pool, why, hours=number(needed), slack=number(left))


def _hours_needed(cleared: Cleared, row: JobRow, way: Way) -> float:
    book = cleared.book
    pool = book.pools[way.pool]
    wide = way.gpus or min(row.max_gpus, pool.gpus)
    rates = book.speed[pool.id, row.job_class]
    single = rates.get(1, 0.0) * wide
    rate = rates.get(way.gpus, single) if way.gpus else single
    return row.demand * 1e6 / (rate * 3600)


def _could(way: Way, row: JobRow) -> bool:
    return way.spare >= 0 and way.within(row.budget, row.value)


def _gaining(cleared: Cleared, ways: tuple[Way, ...], chosen: Callable[[Way], bool]) -> list[Way]:
    """The ways chosen that leave the job something at the published prices."""
    return [
        way
        for way in ways
        if chosen(way)
        and way.gain(float(cleared.price[way.pool]))
        > max(SLIM * way.value, cleared.close * way.gpu_hours)
    ]
