"""Which pool, how many GPUs, which plan: cheapest in time, quickest within the money, and between.

For one pool and GPU count credits grow with time, so its quickest plan is also its cheapest, and
the front is found among one plan for each pool and count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from economics.errors import Problem
from federation.affinity.planner.checks import NOT_NEGATIVE, POSITIVE, refuse_any
from federation.affinity.planner.errors import NoPlan
from federation.affinity.planner.model import ModelDescription
from federation.affinity.planner.plan import DIGITS, Plan
from federation.affinity.planner.planning import Weighed, nothing_fits, plan_at, ranked, weigh
from federation.affinity.planner.pool import Pool
from federation.affinity.planner.splits import divisors

SECONDS_PER_HOUR = 3600.0
ANY = "any"  # instead of a pool's name, where plans are looked up
AT_ONCE = 50_000  # pairs of stages and micro-batches that are weighed together


@dataclass(frozen=True, slots=True)
class Priced:
    """A plan at a pool with what the whole run takes and costs there."""

    pool: str
    plan: Plan
    seconds: float
    credits: float

    def document(self) -> dict[str, Any]:
        """For a file: seconds and credits of the run, and the plan."""
        return {
            "pool": self.pool,
            "time_s": round(self.seconds, DIGITS),
            "credits": round(self.credits, DIGITS),
            "plan": self.plan.document(),
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """A pool that the job cannot run at, and why."""

    pool: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What the job could do, and what is best of it."""

    cheapest: Priced | None  #: of those that meet the deadline
    fastest: Priced | None  #: of those within the budget
    front: tuple[Priced, ...]  #: none is both quicker and cheaper; quickest first
    priced: tuple[Priced, ...]  #: the quickest plan of every pool and GPU count
    refused: tuple[Refused, ...]
    why: tuple[str, ...]  #: a sentence for each wish that nothing fulfils


def choose(
    model: ModelDescription,
    pools: Sequence[Pool],
    *,
    deadline_s: float | None = None,
    budget: float | None = None,
    sizes: Sequence[int] = (),
) -> Choice:
    """Weigh every plan of every pool and GPU count; with `sizes` on these GPU counts alone.

    Raises BadDescription for a model without `samples`, repeated pools and wishes that are no
    numbers, and NoPlan when the model fits nowhere. Order of the pools never matters.
    """
    samples = _checked(model, pools, deadline_s, budget)
    priced: list[Priced] = []
    refused: list[Refused] = []
    known: dict[Pool, list[Plan]] = {}
    for pool in sorted(pools, key=lambda pool: pool.id):
        alike = replace(pool, id=ANY, price=0.0)  # pools of the same GPUs have the same plans
        found = known[alike] if alike in known else best_by_size(model, pool, sizes)
        if isinstance(found, str):
            refused.append(Refused(pool.id, found))
        else:
            known[alike] = found
            priced += [_price(model, pool, plan, samples) for plan in found]
    if not priced:
        raise NoPlan("\n".join(row.why for row in refused))
    return _chosen(priced, refused, deadline_s, budget)


def best_by_size(
    model: ModelDescription, pool: Pool, asked: Sequence[int] = ()
) -> list[Plan] | str:
    """The quickest plan for each GPU count of the pool, or of those asked for; a sentence when none
    fits."""
    counts = tuple(sorted({size for size in asked if size <= pool.gpus})) if asked else pool.sizes()
    if not counts:
        return f"no plan on {pool.id}: it has {pool.gpus} GPUs, fewer than {min(asked)}"
    found: list[Plan] = []
    too_large: list[Weighed] = []
    for sizes in _portions(model, counts):
        weighed = weigh(model, pool, sizes)
        order = ranked(weighed)
        if not len(order):
            too_large = [min([*too_large, weighed], key=_least)]
        starts = np.flatnonzero(np.diff(weighed.splits.gpus[order], prepend=0))
        found += [plan_at(model, pool, weighed, int(row)) for row in order[starts]]
    return found or nothing_fits(model, pool, too_large[0])


def _portions(model: ModelDescription, sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """GPU counts to weigh at once, so that the memory this takes has a bound."""
    ways = len(divisors(model.layers)) * len(divisors(model.global_batch))
    many = max(AT_ONCE // ways, 1)
    return (sizes[at : at + many] for at in range(0, len(sizes), many))


def _least(weighed: Weighed) -> float:
    return float(np.min(weighed.total, initial=math.inf))


def pareto(priced: Iterable[Priced]) -> tuple[Priced, ...]:
    """Those that no other beats in time and credits alike, quickest first."""
    kept: list[Priced] = []
    for one in sorted(priced, key=_by_time):
        if not kept or one.credits < kept[-1].credits:
            kept.append(one)
    return tuple(kept)


def _checked(
    model: ModelDescription,
    pools: Sequence[Pool],
    deadline_s: float | None,
    budget: float | None,
) -> float:
    problems = []
    if not pools:
        problems.append(Problem("pools", "none is on offer"))
    names = [pool.id for pool in pools]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [Problem("pools", f"{name!r} stands twice") for name in twice]
    if model.samples is None:
        why = "missing; without it a run has neither time nor price"
        problems.append(Problem("samples", why))
    wishes = (("deadline_s", deadline_s, POSITIVE), ("budget", budget, NOT_NEGATIVE))
    found = [rule.problem(name, wish) for name, wish, rule in wishes if wish is not None]
    refuse_any([*problems, *found])
    return model.samples or math.nan


def _price(model: ModelDescription, pool: Pool, plan: Plan, samples: float) -> Priced:
    seconds = math.ceil(samples / model.global_batch) * plan.step_s
    hours = seconds / SECONDS_PER_HOUR
    return Priced(pool.id, plan, seconds, pool.price * plan.gpus * hours)


def _chosen(
    priced: Sequence[Priced],
    refused: Sequence[Refused],
    deadline_s: float | None,
    budget: float | None,
) -> Choice:
    limit = math.inf if deadline_s is None else deadline_s
    purse = math.inf if budget is None else budget
    cheapest = min((p for p in priced if p.seconds <= limit), key=_by_credits, default=None)
    fastest = min((p for p in priced if p.credits <= purse), key=_by_time, default=None)
    why = []
    if cheapest is None:
        one = min(priced, key=_by_time)
        why.append(
            f"nothing ends within {limit:g} s: the quickest, {one.plan.gpus} GPUs of {one.pool},"
            f" takes {one.seconds:.0f} s"
        )
    if fastest is None:
        one = min(priced, key=_by_credits)
        why.append(
            f"nothing costs at most {purse:g} credits: the cheapest, {one.plan.gpus} GPUs of"
            f" {one.pool}, costs {one.credits:.2f}"
        )
    return Choice(cheapest, fastest, pareto(priced), tuple(priced), tuple(refused), tuple(why))


def _by_time(one: Priced) -> tuple[float, float, str, int]:
    return one.seconds, one.credits, one.pool, one.plan.gpus


def _by_credits(one: Priced) -> tuple[float, float, str, int]:
    return one.credits, one.seconds, one.pool, one.plan.gpus
