"""A job that cites a quote: may it, and what did the quote say.

A quote binds to the offer versions that it was computed from, not to a price: the next round
decides as it would have decided anyway, and the settled line says how it stands to the quote
(`federation.quoted`). More than one job may cite a quote; each line is held against it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from federation.errors import BadInput, FieldProblem, Refused
from federation.machines.offer import OfferState
from federation.models import Offer, Study, Tenant
from federation.money import as_text, to_micro
from federation.quoted import Pin, Quoted
from federation.selectors.plans import Planned
from federation.selectors.studies import advice
from federation.snapshot import unpack
from federation.snapshot.documents import price_micro

if TYPE_CHECKING:
    from federation.services.jobs import JobDraft

SHOWN = 8  #: offers that are named in one refusal


def asked_of(draft: JobDraft) -> dict[str, Any]:
    """What of a job a quote hangs on, with one spelling: what must be the same when it is cited.

    Name, command and environment may differ: no round looks at them.
    """
    return {
        "job_class": draft.job_class,
        "gpus": sorted(set(draft.gpus)),
        "samples": draft.samples,
        "value": as_text(to_micro(draft.value)),
        "max_cost": as_text(to_micro(draft.max_cost)),
        "deadline": draft.deadline.astimezone(UTC).isoformat() if draft.deadline else None,
        "preemptible": draft.preemptible,
        "gpu_kinds": sorted(set(draft.gpu_kinds)),
        "sites_allow": sorted(set(draft.sites_allow)),
        "sites_deny": sorted(set(draft.sites_deny)),
        "pools": sorted(set(draft.pools)),
        "model": None if draft.model is None else dict(draft.model),
    }


def quote_cited(*, tenant: Tenant, draft: JobDraft, now: datetime) -> dict[str, Any] | None:
    """What the quote that a draft cites said, as its job keeps it; None when it cites none.

    Raises BadInput for a quote that is not this tenant's (as if it did not exist) and for each
    field that differs from the quoted job; Refused("quote_not_answered"), ("quote_not_placed"),
    ("quote_expired") and ("quote_stale"). Writes nothing.
    """
    if draft.quote is None:
        return None
    study = _own(tenant, draft.quote)
    _same(study.parameters.get("job", {}), asked_of(draft))
    quoted = _said(study)
    if quoted.expires_at <= now:
        over = quoted.expires_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        raise Refused(
            f"`quote`: it expired at {over}; ask for a new one and cite that.", code="quote_expired"
        )
    _current(quoted)
    return quoted.document()


def plan_cited(*, tenant: Tenant, draft: JobDraft) -> Planned | None:
    """The sizes and pools that the quote cited was asked with, so that the job asks for the same;
    None where there is none. Whether it may be cited at all is said by `quote_cited`."""
    if draft.quote is None or draft.model is None:
        return None
    plans = _own(tenant, draft.quote).parameters.get("plans")
    return plans and Planned(tuple(plans["gpus"]), tuple(plans["pools"]), plans)


def _own(tenant: Tenant, quote: UUID) -> Study:
    found = Study.objects.select_related("round").defer("round__clearing")
    study = found.filter(pk=quote, tenant=tenant, kind=Study.Kind.QUOTE).first()
    if study is None:
        why = "there is no such quote of this tenant; ask for one"
        raise BadInput(FieldProblem("quote", why, "unknown_quote"))
    if "expires_at" not in study.parameters:  # asked of a version whose quotes bound nobody
        raise Refused("`quote`: it cannot be cited; ask for a new one.", code="quote_expired")
    return study


def _same(quoted: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    problems = [
        FieldProblem(
            name,
            f"{_spoken(value)}, the quote was asked with {_spoken(quoted.get(name))}; mend it or "
            "ask for a new quote",
            "quote_differs",
        )
        for name, value in asked.items()
        if quoted.get(name) != value
    ]
    if problems:
        raise BadInput(*problems)


def _spoken(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _said(study: Study) -> Quoted:
    """The answer of a quote as a job keeps it. Raises Refused when there is none to keep."""
    if study.state != Study.State.DONE or study.result is None:
        why = f"it has no answer: {study.why}" if study.why else "it is not answered yet"
        raise Refused(f"`quote`: {why}.".replace("..", "."), code="quote_not_answered")
    told = unpack(study.result)
    if not told["placed"]:
        reason: str = told["reason"]
        raise Refused(
            f"`quote`: by it the job would not run ({reason}); {advice(study, reason)}.",
            code="quote_not_placed",
        )
    [placed] = told["placed"]  # a gang stands in one pool
    return Quoted(
        id=str(study.pk),
        round=study.round.number,
        expires_at=datetime.fromisoformat(study.parameters["expires_at"]),
        pool=placed["pool"],
        gpus=round(placed["gpu_hours"] / told["round_hours"]),
        price_micro=price_micro(placed["price"]),
        samples=max(1, round(placed["msamples"] * 1e6)),
        samples_per_s=placed.get("samples_per_s"),
        payment_micro=int(placed["payment_micro"]),
        offers=tuple(Pin(**pin) for pin in study.parameters["offers"]),
    )


def _current(quoted: Quoted) -> None:
    """Every pinned version must be what its site offers now."""
    pinned = [pin.site for pin in quoted.offers]
    rows = Offer.objects.filter(site__name__in=pinned, state=OfferState.ACTIVE)
    now = dict(rows.values_list("site__name", "version"))
    stale = [
        f"{pin.site} offers {_version(now.get(pin.site))}, the quote pins version {pin.version}"
        for pin in quoted.offers
        if now.get(pin.site) != pin.version
    ]
    if stale:
        more = f"; and {len(stale) - SHOWN} more" if len(stale) > SHOWN else ""
        raise Refused(
            f"`quote`: {'; '.join(stale[:SHOWN])}{more}. Ask for a new one after the next round.",
            code="quote_stale",
        )


def _version(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"
