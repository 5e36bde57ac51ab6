"""Carrying a round out: its awards become leases, contracts and escrow, many at a time.

Waiting jobs that are placed and running jobs that stay where they are, which is most of a round,
are written together. Whatever else there is (a move, a site that went away, funds that do not
cover an award) goes through `assignment_carry_out` one by one, which knows all the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db.models import F

from federation.bulk import rows_among, rows_insert, rows_update
from federation.errors import Refused
from federation.machines.job import MACHINE as JOB
from federation.machines.job import JobState
from federation.machines.lease import LIVE, LeaseState
from federation.machines.site import SiteState
from federation.models import Assignment, Contract, Event, Job, Lease, OfferPool, Round, Rules, Site
from federation.selectors.plans_award import plan_of
from federation.selectors.plans_pools import gpus_on_offer, lines_of
from federation.services.contracts import reserves_of
from federation.services.escrow import Hold, Purses
from federation.services.placement import AwardTerms, assignment_carry_out, award_terms
from federation.services.rules import bond_micro, bond_rates, rules_of
from federation.services.story import BROKER


@dataclass(frozen=True, slots=True)
class Deal:
    """One award that is carried out with the others, and the contract that it makes."""

    assignment: Assignment
    job: Job
    lease_id: UUID
    terms: AwardTerms
    bond_micro: int
    sequence: int
    plan: dict[str, Any] | None = None
    contract_id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class Desk:
    """A round's awards and the rows they change, all of them locked."""

    round: Round
    now: datetime
    assignments: list[Assignment]
    online: set[UUID]  #: sites that take new leases
    leases: dict[UUID, Lease]  #: job -> its live lease
    last: dict[UUID, Contract]  #: live lease -> its newest contract
    purses: Purses
    jobs: dict[UUID, Job]
    rules: Rules
    rates: dict[UUID, int]  #: site -> rate of its bonds, parts per million
    reserves: dict[UUID, int]  #: pool -> micro-credits per GPU-hour
    lines: Mapping[UUID, OfferPool]  #: pool -> its line on offer, where a job has a model
    room: Mapping[UUID, int]  #: pool -> GPUs on offer now


def awards_carry_out(*, round: Round, now: datetime) -> None:
    """Make the assignments of a round real. Runs inside the caller's transaction."""
    desk = _desk(round, now)
    placed, prolonged, rest = [], [], []
    for assignment in desk.assignments:
        deal = _deal(assignment, desk)
        if deal is None:
            rest.append(assignment)
        elif assignment.job_id in desk.leases:
            prolonged.append(deal)
        else:
            placed.append(deal)
    _place(placed, desk)
    _prolong(prolonged, desk)
    _contract([*placed, *prolonged], desk)
    for assignment in rest:
        assignment_carry_out(assignment=assignment, now=now)


def _desk(round: Round, now: datetime) -> Desk:
    """Lock in the order of everybody else: sites, leases, contracts, jobs, purses."""
    rows = Assignment.objects.filter(round=round).select_related("pool__site__member")
    assignments = list(rows.order_by("job_id"))
    for assignment in assignments:
        assignment.round = round
    awarded = [assignment.job_id for assignment in assignments]
    rules = rules_of(round.venue, now)
    places = {a.pool.site_id for a in assignments}
    sites = Site.objects.filter(pk__in=places)
    online = [s for s in sites.select_for_update().order_by("pk") if s.state == SiteState.ONLINE]
    live = Lease.objects.filter(state__in=sorted(LIVE))
    seen = sorted(rows_among(live.order_by().values_list("pk", flat=True), "job_id", awarded))
    locked = rows_among(live.select_for_update().order_by("pk"), "pk", seen)  # by pk throughout
    leases = {lease.job_id: lease for lease in locked}
    held = sorted(lease.pk for lease in leases.values())
    contracts = Contract.objects.select_for_update().order_by("sequence", "pk")
    last = {contract.lease_id: contract for contract in rows_among(contracts, "lease_id", held)}
    asked = Job.objects.filter(venue=round.venue_id, cancel_asked_at__isnull=False, ended_at=None)
    wanted = sorted({*awarded, *asked.order_by().values_list("pk", flat=True)})
    bidders = Job.objects.select_for_update().defer("command", "setup", "env").order_by("pk")
    jobs = {job.pk: job for job in rows_among(bidders, "pk", wanted)}
    sellers = {a.pool.site.member_id for a in assignments}
    planned = {a.pool_id for a in assignments if jobs[a.job_id].model is not None}
    purses = Purses({jobs[pk].tenant_id for pk in awarded}, round, sellers)
    return Desk(
        round=round,
        now=now,
        assignments=assignments,
        online={site.pk for site in online},
        leases=leases,
        last=last,
        purses=purses,
        jobs=jobs,
        rules=rules,
        rates=bond_rates(rules, places),
        reserves=reserves_of(round),
        lines=lines_of(planned) if planned else {},
        room=gpus_on_offer({a.pool_id for a in assignments}),
    )


def _deal(assignment: Assignment, desk: Desk) -> Deal | None:
    """The contract of a plain award that can be paid; None for any other."""
    job, lease = desk.jobs[assignment.job_id], desk.leases.get(assignment.job_id)
    if not (_stays(assignment, lease) if lease else _starts(assignment, job, desk)):
        return None
    try:
        plan = None if lease else _plan(assignment, job, desk)
    except Refused:  # it is told so where awards are carried out one by one
        return None
    terms = award_terms(assignment, job, desk.round.venue, desk.now)
    price = terms.payment_micro
    if job.spent_micro + job.held_micro + price > job.max_cost_micro:
        return None
    bond = bond_micro(price, desk.rates[assignment.pool.site_id])
    if not _covered(assignment, job, price, bond, desk):
        return None
    last = desk.last.get(lease.pk) if lease else None
    return Deal(
        assignment=assignment,
        job=job,
        lease_id=lease.pk if lease else uuid4(),
        terms=terms,
        bond_micro=bond,
        sequence=last.sequence + 1 if last else 1,
        plan=plan,
    )


def _plan(assignment: Assignment, job: Job, desk: Desk) -> dict[str, Any] | None:
    return plan_of(
        job=job,
        pool=assignment.pool_id,
        gpus=assignment.gpus,
        samples_per_s=assignment.samples_per_s,
        lines=desk.lines,
    )


def _covered(assignment: Assignment, job: Job, price: int, bond: int, desk: Desk) -> bool:
    """Promise the price and the bond, or neither."""
    member, more = assignment.pool.site.member, price - job.earnest_micro
    credit = member.credit_micro
    if credit is None:
        credit = desk.rules.member_credit_micro
    if not desk.purses.take(job.tenant_id, more):
        return False
    if desk.purses.bond(member.pk, bond, credit):
        return True
    desk.purses.take(job.tenant_id, -more)  # given back
    return False


def _starts(assignment: Assignment, job: Job, desk: Desk) -> bool:
    """It waits, and its site still takes it: it may have closed since the gate."""
    waits = job.state == JobState.PENDING and assignment.pool.site_id in desk.online
    return waits and desk.room.get(assignment.pool_id, assignment.gpus) >= assignment.gpus


def _stays(assignment: Assignment, lease: Lease) -> bool:
    same = (lease.pool_id, lease.gpus) == (assignment.pool_id, assignment.gpus)
    return same and lease.revoke_asked_at is None


def _place(deals: list[Deal], desk: Desk) -> None:
    """Waiting jobs get leases."""
    now, after = desk.now, JOB.advance(JobState.PENDING, "award")
    pools = {d.assignment.pool_id: str(d.assignment.pool) for d in deals}
    rows_update(
        Job,
        (
            *("state", "attempts", "updated_at", "reason_code", "reason"),
            *("held_micro", "earnest_micro"),
        ),
        [
            (
                *(d.job.pk, after.value, d.job.attempts + 1, now, "awarded"),
                f"Awarded {d.assignment.gpus} GPU at {pools[d.assignment.pool_id]}.",
                d.job.held_micro + d.terms.payment_micro,
                0,  # earnest money has become a part of the price
            )
            for d in deals
        ],
    )
    fence = desk.round.venue.fence_s
    rows_insert(
        Lease,
        (
            *("id", "job_id", "attempt", "round_id", "site_id", "pool_id", "gpus", "fence_s"),
            *("predicted_samples_per_s", "plan", "renewed_at", "created_at"),
        ),
        (
            (
                *(d.lease_id, d.job.pk, d.job.attempts + 1, desk.round.pk),
                *(d.assignment.pool.site_id, d.assignment.pool_id, d.assignment.gpus),
                *(min(fence, d.job.max_runtime_s), d.assignment.samples_per_s, d.plan, now, now),
            )
            for d in deals
        ),
    )
    offered = LeaseState.OFFERED.value
    rows_insert(
        Event,
        ("subject", "subject_id", "event", "from_state", "to_state", "why", "actor", "at"),
        (
            (*line, BROKER, now)
            for d in deals
            for line in (
                ("job", str(d.job.pk), "award", JobState.PENDING.value, after.value, ""),
                ("lease", str(d.lease_id), "offer", "", offered, pools[d.assignment.pool_id]),
            )
        ),
    )
    _set(deals, "")


def _prolong(deals: list[Deal], desk: Desk) -> None:
    """Running jobs keep their leases under new contracts."""
    held = [(d.job.pk, d.job.held_micro + d.terms.payment_micro, 0) for d in deals]
    rows_update(Job, ("held_micro", "earnest_micro"), held)
    speeds = [(d.lease_id, d.assignment.samples_per_s) for d in deals]
    rows_update(Lease, ("predicted_samples_per_s",), speeds)
    last = [desk.last[d.lease_id] for d in deals if d.lease_id in desk.last]
    over = [(contract.pk, desk.now) for contract in last if contract.superseded_at is None]
    rows_update(Contract, ("superseded_at",), over)
    _set(deals, "prolonged")


def _contract(deals: list[Deal], desk: Desk) -> None:
    """Contracts, escrow, and the bells of the sites that have something new."""
    rows_insert(
        Contract,
        (
            *("id", "lease_id", "sequence", "round_id", "gpus", "price_micro"),
            *("contracted", "payment_micro", "ends_at", "to_end", "created_at"),
            *("reserve_micro", "bond_micro", "rules_id"),
        ),
        (
            (
                *(d.contract_id, d.lease_id, d.sequence, desk.round.pk, d.assignment.gpus),
                *(d.assignment.price_micro, d.terms.contracted, d.terms.payment_micro),
                *(d.terms.ends_at, not d.job.preemptible, desk.now),
                *(desk.reserves.get(d.assignment.pool_id, 0), d.bond_micro, desk.rules.pk),
            )
            for d in deals
        ),
    )
    holds = (
        Hold(
            *(d.contract_id, d.job.tenant_id, d.terms.payment_micro),
            *(d.assignment.pool.site.member_id, d.bond_micro, d.job.earnest_micro),
        )
        for d in deals
    )
    desk.purses.hold(holds, desk.now)
    sites = {d.assignment.pool.site_id for d in deals}
    Site.objects.filter(pk__in=sites).update(orders_version=F("orders_version") + 1)


def _set(deals: list[Deal], note: str) -> None:
    rows = [(d.assignment.pk, Assignment.Status.PLACED.value, note) for d in deals]
    rows_update(Assignment, ("status", "note"), rows)
