"""Reads of what the record says of a contract beside the quote that its job cites."""

from __future__ import annotations

from typing import Any

from federation.models import Assignment, Contract, EntryGroup, Job, RoundOffer
from federation.money import as_text
from federation.quoted import Compared, Line, Quoted, compared, quoted_read
from federation.selectors.figures import Figures, figures_of


def quoted_of(job: Job) -> Quoted | None:
    """What the quote that a job cites said; None when it cites none."""
    return None if job.quoted is None else quoted_read(job.quoted)


def compared_of(contract: Contract, figures: Figures) -> Compared | None:
    """A contract's figures held against its job's quote; None when that cites none.

    Nothing is read where no quote is cited. The job, site, pool and round are wanted with the
    contract.
    """
    quoted = quoted_of(contract.lease.job)
    return None if quoted is None else compared(quoted, line_of(contract, figures))


def line_of(contract: Contract, figures: Figures) -> Line:
    """A contract and its settlement as a line; read from the round that sold it."""
    lease, outcome = contract.lease, figures.outcome
    return Line(
        opened_at=contract.created_at,
        round=contract.round.number if contract.round else None,
        site=lease.site.name,
        pool=str(lease.pool),
        offer_version=_offer_version(contract),
        gpus=contract.gpus,
        price_micro=contract.price_micro,
        contracted=contract.contracted,
        payment_micro=contract.payment_micro,
        samples_per_s=_believed(contract),
        steps=contract.extensions + int(contract.to_end),
        accepted=min(outcome.accepted, contract.contracted),
        pay_micro=outcome.pay_micro,
        penalty_micro=outcome.penalty_micro,
        decided=_decided(contract, figures),
    )


def _offer_version(contract: Contract) -> int | None:
    used = RoundOffer.objects.filter(round=contract.round_id, offer__site=contract.lease.site_id)
    return used.values_list("offer__version", flat=True).first()


def _believed(contract: Contract) -> float | None:
    awards = Assignment.objects.filter(round=contract.round_id, job=contract.lease.job_id)
    return awards.values_list("samples_per_s", flat=True).first()


def _decided(contract: Contract, figures: Figures) -> bool:
    """True when a decision made the sums others than the contract's own figures make them."""
    if not figures.decided:
        return False
    own = figures_of(contract).outcome
    return (own.pay_micro, own.penalty_micro) != (
        figures.outcome.pay_micro,
        figures.outcome.penalty_micro,
    )


def quote_rebuilt(contract: Contract, figures: Figures) -> dict[str, Any]:
    """What must be stored of a settled contract and its quote, by the record."""
    found = compared_of(contract, figures)
    return {
        "quote_code": found.code if found else "",
        "quote_why": found.why if found else "",
        "quote_facts": quote_facts(contract.lease.job, found).get("quote"),
    }


def quote_stored(contract: Contract) -> dict[str, Any] | None:
    """What the settlement that stands says of the quote; None when it says nothing of any."""
    groups = EntryGroup.objects.filter(
        contract=contract, kind=EntryGroup.Kind.SETTLE, reversed_by__isnull=True
    )
    facts = groups.order_by("-created_at", "-id").values_list("facts", flat=True).first() or {}
    found: dict[str, Any] | None = facts.get("quote")
    return found


def quote_facts(job: Job, found: Compared | None) -> dict[str, Any]:
    """The part of a settlement's facts that speaks of the quote; empty when none is cited."""
    if found is None:
        return {}
    return {
        "quote": {
            "id": str(job.quote),
            "code": found.code,
            "why": found.why,
            "quoted_micro": found.quoted_micro,
            "charged_micro": found.charged_micro,
        }
    }


def quoted_shown(job: Job) -> dict[str, Any] | None:
    """What a job's quote said, as its tenant sees it: credits as decimal text."""
    quoted = quoted_of(job)
    if quoted is None:
        return None
    return {
        "id": quoted.id,
        "round": quoted.round,
        "expires_at": quoted.expires_at,
        "pool": quoted.pool,
        "gpus": quoted.gpus,
        "price": as_text(quoted.price_micro),
        "samples": quoted.samples,
        "samples_per_s": quoted.samples_per_s,
        "payment": as_text(quoted.payment_micro),
        "offers": [
            {"site": pin.site, "version": pin.version, "offer": pin.offer} for pin in quoted.offers
        ],
    }
