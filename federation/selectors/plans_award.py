"""The plan of an award: how a job is split over the GPUs that it was given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from federation.affinity.planner.environment import launch_environment
from federation.affinity.planner.plan import Plan
from federation.affinity.planner.planning import nothing_fits, ranked, weigh
from federation.affinity.planner.planning import plan_at as row_as_plan
from federation.affinity.planner.pool import Pool
from federation.errors import BadInput, Refused
from federation.models import Job, OfferPool
from federation.selectors.plans import NO_PLAN
from federation.selectors.plans_model import Asked, model_asked, synchronisation_of
from federation.selectors.plans_pools import belief, lines_of, planner_pool

LONGEST = 64 * 1024  #: characters of HANSE_PLAN; a launched command takes no more in one variable
PLAN = "HANSE_PLAN"
NOT_NOW = "not_on_offer"
KEPT = 256  #: plans of models that are asked for again in the same round


def plan_at(
    *,
    model: Mapping[str, Any],
    pool: OfferPool | None,
    gpus: int,
    samples_per_s: float | None = None,
) -> dict[str, Any]:
    """The quickest plan of a model on so many GPUs of a pool on offer, for `Lease.plan`.

    The plan as in HANSE_PLAN, and under `environment` torchrun's names. `samples_per_s`: what the
    award forecasts on these GPUs; the plan's times are scaled to it. Raises Refused("no_plan")
    with the tightest part when it does not fit there (any more), Refused("not_on_offer") when the
    pool does not offer so many GPUs at the moment.
    """
    if pool is None:
        raise Refused("Its site has no offer now that says what its GPUs are.", code=NOT_NOW)
    place = planner_pool(pool, believed=belief(samples_per_s, gpus))
    if not isinstance(place, Pool):
        raise Refused(f"{place}.", code=NO_PLAN)
    if gpus > place.gpus:
        why = f"{place.id} has {place.gpus} GPUs on offer now, fewer than {gpus}."
        raise Refused(why, code=NOT_NOW)
    text = json.dumps(model, sort_keys=True)
    document: dict[str, Any] = json.loads(_planned(text, place, gpus))  # a copy of what is kept
    return document


def plan_of(
    *,
    job: Job,
    pool: UUID,
    gpus: int,
    samples_per_s: float | None,
    lines: Mapping[UUID, OfferPool] | None = None,
) -> dict[str, Any] | None:
    """The plan of an award of a job; None for a job without a model. Raises as `plan_at`.

    `lines`: the offers' lines where they were read already.
    """
    if job.model is None:
        return None
    known = lines_of([pool]) if lines is None else lines
    return plan_at(model=job.model, pool=known.get(pool), gpus=gpus, samples_per_s=samples_per_s)


def launch_variables(plan: Mapping[str, Any] | None) -> dict[str, str] | None:
    """What a launched command is told of a stored plan; None without one."""
    if plan is None:
        return None
    said = {name: value for name, value in plan.items() if name != "environment"}
    return {**plan.get("environment", {}), PLAN: _text(said)}


@lru_cache(maxsize=KEPT)
def _planned(model: str, pool: Pool, gpus: int) -> str:
    try:
        asked = model_asked(json.loads(model), samples=None)
    except BadInput as refused:  # it was read at submission: by an older version, then
        raise Refused(f"Its model cannot be read: {refused.why}.", code=NO_PLAN) from None
    weighed = weigh(asked.model, pool, [gpus])
    rows = ranked(weighed)
    if not len(rows):
        raise Refused(f"{nothing_fits(asked.model, pool, weighed)}.", code=NO_PLAN)
    return json.dumps(_document(asked, pool, row_as_plan(asked.model, pool, weighed, int(rows[0]))))


def _document(asked: Asked, pool: Pool, plan: Plan) -> dict[str, Any]:
    synchronisation = synchronisation_of(asked, pool, plan)
    variables = launch_environment(plan, synchronisation=synchronisation)
    document: dict[str, Any] = json.loads(variables.pop(PLAN))
    if synchronisation is not None and len(_text(document)) > LONGEST:
        document["synchronisation"].pop("variables")  # which strategy is said all the same
    return {**document, "environment": variables}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
