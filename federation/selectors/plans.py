"""One click: which pools, how many GPUs, and how a described model is split over them.

A book knows a job's gang sizes and its pools, not which go together. So those are chosen such that
a plan fits at every size on every pool: of the plans that meet deadline and budget, a large
rectangle of sizes x pools that holds the cheapest, and the fastest too where one rectangle can
hold both. The market then takes whichever cell is worth most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federation.affinity.planner.choosing import Choice, Priced, choose
from federation.affinity.planner.errors import BadDescription, NoPlan
from federation.affinity.planner.product import Rectangle, rectangle
from federation.errors import BadInput, FieldProblem, Refused
from federation.models import JobClass
from federation.selectors.plans_model import model_asked
from federation.selectors.plans_pools import MOST_POOLS, Market, Stock, Wish, market_for

MOST_SIZES = 64  #: gang sizes of one job
MOST_GPUS = 100_000  #: of one gang
NO_PLAN = "no_plan"
SHOWN = 5  #: sentences of one refusal


@dataclass(frozen=True, slots=True)
class Planned:
    """Gang sizes and pools, all of which fit together, and what they were chosen from."""

    gpus: tuple[int, ...]  #: ascending
    pools: tuple[str, ...]  #: SITE.POOL, by name
    document: dict[str, Any]  #: hanse.choice/1: cheapest, fastest, front, refused, why, notes

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the wish was dropped or cannot be met, a sentence each."""
        return (*self.document["why"], *self.document["notes"])


def plan_choice(
    *,
    model: Mapping[str, Any],
    samples: float,
    deadline_s: float | None,
    budget: float | None,
    wish: Wish,
    job_class: JobClass,
    stock: Stock,
) -> Planned:
    """Weigh every plan at every pool in stock that the wish permits, and choose sizes and pools.

    `deadline_s` seconds from now for the whole run, `budget` in credits, `samples` of the whole
    run. With `wish.gpus` only those sizes are weighed. Prices are those of the last round, at least
    the reserve. Raises BadInput for each bad field of the model, and Refused("no_plan") with a
    sentence for each pool when it fits nowhere.
    """
    # 1. what is asked, and what is on offer
    asked = model_asked(model, samples=samples)
    market = market_for(wish=wish, job_class=job_class, stock=stock)
    if not market.pools:
        raise Refused(_nothing(market), code=NO_PLAN)
    # 2. the best plan of every pool and size
    sizes = sorted({int(size) for size in wish.gpus})
    try:
        choice = choose(
            asked.model, market.pools, deadline_s=deadline_s, budget=budget, sizes=sizes
        )
    except NoPlan as refused:
        raise Refused(_listed(str(refused).splitlines()), code=NO_PLAN) from None
    except BadDescription as refused:
        raise BadInput(*(FieldProblem(p.path, p.why) for p in refused.problems)) from None
    # 3. sizes and pools that fit together
    cells = _candidates(choice, deadline_s, budget, explicit=bool(sizes))
    if not cells:
        raise Refused(f"It fits on more than {MOST_GPUS} GPUs alone.", code=NO_PLAN)
    chosen = _rectangle(cells)
    notes = _notes(wish, sizes, chosen, market)
    return Planned(chosen.sizes, chosen.pools, _document(choice, chosen, market, notes))


def _candidates(
    choice: Choice, deadline_s: float | None, budget: float | None, *, explicit: bool
) -> list[Priced]:
    """What meets both wishes; all that fits when nothing does, or when the sizes are the tenant's
    own: then the market decides."""
    small = [one for one in choice.priced if one.plan.gpus <= MOST_GPUS]
    meeting = [
        one
        for one in small
        if (deadline_s is None or one.seconds <= deadline_s)
        and (budget is None or one.credits <= budget)
    ]
    return meeting if meeting and not explicit else small


def _rectangle(cells: Sequence[Priced]) -> Rectangle:
    fits: dict[str, set[int]] = defaultdict(set)
    least: dict[int, float] = {}
    for one in cells:
        fits[one.pool].add(one.plan.gpus)
        least[one.plan.gpus] = min(one.credits, least.get(one.plan.gpus, one.credits))
    cheapest = min(cells, key=lambda one: (one.credits, one.seconds, one.pool, one.plan.gpus))
    fastest = min(cells, key=lambda one: (one.seconds, one.credits, one.pool, one.plan.gpus))
    wanted = [(one.pool, one.plan.gpus) for one in (cheapest, fastest)]
    return rectangle(fits, wanted, most_sizes=MOST_SIZES, order=least)


def _notes(wish: Wish, sizes: Iterable[int], chosen: Rectangle, market: Market) -> list[str]:
    """What of the tenant's own sizes and pools is dropped, and what was not looked at."""
    notes = []
    lost = sorted(set(sizes) - set(chosen.sizes))
    if lost:
        count = ", ".join(map(str, lost))
        notes.append(f"Without {count} GPUs: the model does not fit so at every pool chosen.")
    weighed = {pool.id for pool in market.pools} | {pool for pool, _ in market.unknown}
    away = sorted((set(wish.pools) & weighed) - set(chosen.pools))
    if away:
        notes.append(f"Without {', '.join(away)}: the model does not fit there at every size.")
    absent = sorted(set(wish.pools) - weighed - set(market.left_out))
    if absent:
        notes.append(f"Without {', '.join(absent)}: not on offer now, or not permitted.")
    if market.left_out:
        notes.append(
            f"{len(market.left_out)} pools with least computing for a credit were not weighed; at"
            f" most {MOST_POOLS} are."
        )
    return notes


def _document(
    choice: Choice, chosen: Rectangle, market: Market, notes: list[str]
) -> dict[str, Any]:
    return {
        "format": "hanse.choice/1",
        "gpus": list(chosen.sizes),
        "pools": list(chosen.pools),
        "cheapest": None if choice.cheapest is None else choice.cheapest.document(),
        "fastest": None if choice.fastest is None else choice.fastest.document(),
        "front": [one.document() for one in choice.front],
        "refused": [
            *({"pool": row.pool, "why": row.why} for row in choice.refused),
            *({"pool": pool, "why": why} for pool, why in market.unknown),
        ],
        "why": list(choice.why),
        "notes": notes,
    }


def _nothing(market: Market) -> str:
    if market.unknown:
        return _listed([why for _, why in market.unknown])
    return "No pool on offer now is permitted by its GPU kinds, sites and pools."


def _listed(sentences: Sequence[str]) -> str:
    """The first few sentences as one text."""
    shown = list(sentences[:SHOWN])
    if len(sentences) > SHOWN:
        shown.append(f"and {len(sentences) - SHOWN} pools more")
    return "; ".join(shown) + "."
