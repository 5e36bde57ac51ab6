"""Reads of studies: quotes as their tenant sees them, reports as far as somebody may see them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from federation.errors import Refused
from federation.models import Job, OfferPool, Round, Study, Tenant
from federation.money import as_text
from federation.selectors.plans_award import plan_at
from federation.snapshot import unpack

NOTE = (
    "A report only: nobody pays by it. `at_least` is certified at the published prices. "
    "`marginal` is the surplus of the round less the surplus without the tenant, `would_pay` what "
    "Vickrey, Clarke and Groves would charge for the same award; both are theirs only where "
    "`exact` is true. Such payments together may fall short of what sites bid."
)


#: what a tenant can do about each reason of `economics.reasons` for which a job would not run
ADVICE = {
    "budget": "take fewer GPUs or a higher max_cost",
    "no_capacity": "take fewer GPUs, or permit more GPU kinds, sites and pools",
    "no_feasible_pool": "permit more GPU kinds, sites and pools, or take another number of GPUs",
    "rejected_at_price": "ask with a higher value, or take fewer GPUs",
}


def advice(study: Study, reason: str) -> str:
    """What to ask for next, after a quote by which the job would not run.

    A gang pays for its GPUs for the whole round: where max_cost is all that it may spend, a higher
    value buys it fewer samples and no more of the pool.
    """
    most = study.parameters.get("job", {}).get("max_cost")
    if most is not None and study.parameters["bid"]["budget"] >= float(most):
        return ADVICE["budget"]
    return ADVICE.get(reason, "ask with a higher value or fewer limits")


def quotes_of(tenant: Tenant) -> QuerySet[Study]:
    """A tenant's own quotes."""
    return Study.objects.filter(tenant=tenant, kind=Study.Kind.QUOTE).select_related(
        "round__venue", "tenant"
    )


def quote_shown(study: Study) -> dict[str, Any]:
    """A quote as its tenant may see it: of others' jobs only how many would have had less."""
    bid = study.parameters["bid"]
    return {
        "id": study.pk,
        "name": study.parameters["name"],
        "round": study.round.number,
        "state": study.state.upper(),
        "created_at": study.created_at,
        "finished_at": study.finished_at,
        "job_class": bid["class"],
        "gpus": bid["gang"] if isinstance(bid["gang"], list) else [bid["gang"]],
        "value": credits_text(bid["value"]),
        "expires_at": expiry_of(study),
        "offers": study.parameters.get("offers", []),
        "plans": study.parameters.get("plans"),
        "failed": {"code": study.code, "message": study.why} if study.code else None,
        "answer": None if study.result is None else _answer(study, unpack(study.result)),
    }


def expiry_of(study: Study) -> datetime | None:
    """Until when a quote may be cited; None for one that was asked before quotes could be."""
    moment = study.parameters.get("expires_at")
    return None if moment is None else datetime.fromisoformat(moment)


def _plan(study: Study, placed: dict[str, Any], gpus: int) -> dict[str, Any] | None:
    """How a described model is split over the GPUs where it was placed, by the pinned offer; None
    without a model, and where it cannot be said any more."""
    model = study.parameters.get("job", {}).get("model")
    if model is None:
        return None
    pins = [pin["offer"] for pin in study.parameters["offers"]]
    lines = OfferPool.objects.filter(offer__in=pins).select_related("pool__site")
    line = next((line for line in lines if str(line.pool) == placed["pool"]), None)
    try:
        return plan_at(model=model, pool=line, gpus=gpus, samples_per_s=placed.get("samples_per_s"))
    except Refused:  # the model no longer fits: the award would go without a plan too
        return None


def _answer(study: Study, told: dict[str, Any]) -> dict[str, Any]:
    lost = [row["job"] for row in told["displaced"]]
    own = Job.objects.filter(tenant=study.tenant, pk__in=lost) if lost and study.tenant else []
    mine = sorted(str(job.pk) for job in own)
    at = told["would_run_at"]
    return {
        "runs": bool(told["placed"]),
        "placed": [_placed(study, row, told["round_hours"]) for row in told["placed"]],
        "reason": _reason(study, told) if told["reason"] else None,
        "would_run_at": None
        if at is None
        else {"pool": at["pool"], "value": credits_text(at["value"])},
        "displaces_own": mine,
        "displaces_others": len(lost) - len(mine),
    }


def _reason(study: Study, told: dict[str, Any]) -> dict[str, str]:
    """Why it would not run, or not in full; and what to do where a higher bid alone is in vain."""
    code, why = told["reason"], told["why"]
    if not told["placed"] and advice(study, code) == ADVICE["budget"]:
        why = f"{why} To run, {ADVICE['budget']}."
    return {"code": code, "message": why}


def _placed(study: Study, row: dict[str, Any], hours: float) -> dict[str, Any]:
    gpus = round(row["gpu_hours"] / hours)
    return {
        "pool": row["pool"],
        "gpus": gpus,
        "samples": round(row["msamples"] * 1e6),
        "samples_per_s": row.get("samples_per_s"),
        "price": credits_text(row["price"]),
        "price_before": credits_text(row["price_before"]),
        "payment": as_text(row["payment_micro"]),
        "price_per_million": credits_text(row["payment_micro"] / 1e6 / row["msamples"])
        if row["msamples"]
        else None,
        "plan": _plan(study, row, gpus),
    }


def report_of(round: Round) -> Study | None:
    """The newest report on what every tenant brought to a round."""
    return (
        Study.objects.filter(round=round, kind=Study.Kind.REPORT)
        .select_related("round__venue")
        .order_by("-created_at")
        .first()
    )


def report_shown(study: Study, *, visible: Collection[str] | None) -> dict[str, Any]:
    """A report with the tenants named in `visible`; None = all of them."""
    told = {} if study.result is None else unpack(study.result)
    found = {row["tenant"]: row for row in told.get("contributions", [])}
    rows = [
        _row(row, found.get(row["tenant"], {}))
        for row in told.get("standings", [])
        if visible is None or row["tenant"] in visible
    ]
    return {
        "round": study.round.number,
        "state": study.state.upper(),
        "created_at": study.created_at,
        "finished_at": study.finished_at,
        "share": study.parameters["share"],
        "note": NOTE,
        "failed": {"code": study.code, "message": study.why} if study.code else None,
        "tenants": rows,
    }


MONEY = ("worth", "paid", "surplus", "at_least")
CONTRIBUTION_MONEY = ("marginal", "low", "high", "would_pay")


def _row(standing: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    failed = found.get("failed")
    return {
        "tenant": standing["tenant"],
        "jobs": standing["jobs"],
        "gpu_hours": standing["gpu_hours"],
        "share": standing["share"],
        **{key: credits_text(standing[key]) for key in MONEY},
        **{key: credits_text(found[key]) if key in found else None for key in CONTRIBUTION_MONEY},
        "exact": found.get("exact"),
        "failed": {"code": failed, "message": found["why"]} if failed else None,
    }


def names_of(tenants: QuerySet[Tenant]) -> set[str]:
    """Names as they stand in a book."""
    return set(tenants.values_list("name", flat=True))


def credits_text(credits: float) -> str:
    """A sum of the mathematics as decimal text, to the nearest micro-credit."""
    return as_text(round(credits * 1e6))
