"""What a site should do now: leases to run, leases to give back, attempts it may forget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Q

from federation.machines.contract import ContractState
from federation.machines.lease import LIVE, LeaseState
from federation.machines.offer import OfferState
from federation.models import Contract, Lease, Offer, Site
from federation.services.syncs import AttemptSeen, journal_of

ENDED = "ended"


@dataclass(frozen=True, slots=True)
class LeaseWanted:
    """A lease that should run, with the contract under which its work is booked now."""

    lease: Lease
    contract: Contract
    samples_done: int  #: by earlier attempts
    samples_wanted: int


@dataclass(frozen=True, slots=True)
class RevokeWanted:
    lease_id: UUID
    code: str
    why: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Orders:
    wanted: tuple[LeaseWanted, ...]
    revokes: tuple[RevokeWanted, ...]
    forget: tuple[UUID, ...]
    ask_offer: bool


def orders_for_site(
    *, site: Site, boot: str, attempts: Iterable[AttemptSeen], offer_digest: str, now: datetime
) -> Orders:
    """All orders for a site, given what its agent has. Marks new leases as delivered, and to whom.

    An active lease that the agent does not list is not sent again: its journal may be lost and
    the job may still be running, so only the fence can tell.
    """
    listed = {a.lease_id: a for a in attempts}
    journal = journal_of(boot)
    Lease.objects.filter(
        site=site, state=LeaseState.OFFERED, delivered_at__isnull=True, revoke_asked_at__isnull=True
    ).update(delivered_at=now, delivered_to=journal)
    # the agent counts its fence from the sync that brings the lease, however late that is
    fetched = Lease.objects.filter(site=site, state=LeaseState.OFFERED, delivered_to=journal)
    fetched.exclude(pk__in=listed).update(renewed_at=now)
    live = list(
        Lease.objects.filter(site=site, state__in=sorted(LIVE))
        .filter(Q(state=LeaseState.OFFERED, delivered_to=journal) | Q(pk__in=listed))
        .select_related("job__job_class", "job__tenant", "pool")
        .order_by("created_at", "id")
    )
    contracts = _current_contracts(live)
    wanted = [
        _wanted(lease, contracts[lease.pk])
        for lease in live
        if lease.revoke_asked_at is None and lease.pk in contracts
    ]
    return Orders(
        wanted=tuple(wanted),
        revokes=tuple(_revokes(live, listed)),
        forget=tuple(_forget(site, listed)),
        ask_offer=_offer_missing(site, offer_digest),
    )


def _current_contracts(leases: list[Lease]) -> dict[UUID, Contract]:
    rows = Contract.objects.filter(lease__in=leases).order_by("sequence")
    return {contract.lease_id: contract for contract in rows}


def _wanted(lease: Lease, contract: Contract) -> LeaseWanted:
    done = max(0, lease.job.samples_done - lease.samples)
    return LeaseWanted(lease, contract, done, max(1, lease.job.samples - done))


def _revokes(live: list[Lease], listed: dict[UUID, AttemptSeen]) -> Iterable[RevokeWanted]:
    known = {lease.pk for lease in live}
    for lease in live:
        if lease.revoke_asked_at is not None:
            yield RevokeWanted(lease.pk, lease.revoke_code, lease.revoke_why, lease.job.grace_s)
    for lease_id, seen in listed.items():
        if lease_id not in known and seen.state != ENDED:
            yield RevokeWanted(
                lease_id, "superseded", "This attempt is over for the broker.", grace_s=0.0
            )


def _forget(site: Site, listed: dict[UUID, AttemptSeen]) -> list[UUID]:
    """Attempts that are over and whose last report is on record."""
    ended = [lease_id for lease_id, seen in listed.items() if seen.state == ENDED]
    open_contracts = Contract.objects.filter(
        lease=OuterRef("pk"), state__in=[ContractState.HELD, ContractState.RUNNING]
    )
    done = (
        Lease.objects.filter(pk__in=ended, site=site)
        .exclude(state__in=sorted(LIVE))
        .filter(
            Q(reports_stored=F("end_seq"), reports_highest=F("end_seq"))
            | ~Exists(open_contracts)  # settled without a report that never came
        )
    )
    known = set(Lease.objects.filter(pk__in=ended, site=site).values_list("pk", flat=True))
    forgotten = set(done.values_list("pk", flat=True)) | (set(ended) - known)
    return sorted(forgotten)


def _offer_missing(site: Site, digest: str) -> bool:
    return not Offer.objects.filter(
        site=site, digest=digest, state__in=[OfferState.ACTIVE, OfferState.PAUSED]
    ).exists()
