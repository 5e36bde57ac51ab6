"""Write side of contracts: opened with escrow and bond, held over. Their end is `settling`."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from federation.errors import Refused
from federation.machines.contract import ContractState
from federation.machines.lease import LeaseState
from federation.models import Contract, Job, Lease, PoolPrice, Round, Rules, Venue
from federation.services import ledger
from federation.services.leases import revoke_ask
from federation.services.rules import bond_micro, bond_rates, rules_of
from federation.services.settling import (
    OPEN,
    contracts_finalise,
    contracts_measure,
    contracts_settle,
)

__all__ = [
    "contract_open",
    "contracts_finalise",
    "contracts_hold_over",
    "contracts_measure",
    "contracts_settle",
    "end_expected",
    "last_laps",
    "reserves_of",
]

SAMPLES = Contract.Basis.SAMPLES
HOLDOVER_SLACK = 0.5  #: of a round: how late the next round may be before a contract is held over
END_FACTOR = 3.0  #: a contract to the job's end waits so many times the forecast for that end
END_SLACK_S = 60.0
END_LATEST_S = 366 * 86400.0  #: a speed near zero must not leave the calendar


@transaction.atomic
def contract_open(
    *,
    lease: Lease,
    round: Round | None,
    price_micro: int,
    contracted: int,
    payment_micro: int,
    ends_at: datetime | None,
    now: datetime,
    to_end: bool = False,
    basis: str = SAMPLES,
    reserve_micro: int = 0,
) -> Contract:
    """Start a contract on a lease, its price in escrow and its bond beside it; an earlier one is
    superseded. A probe's has neither rules nor bond: nobody has promised a speed.

    Raises Refused when the tenant's funds or the job's `max_cost` do not cover it, or the member's
    credit its bond; nothing is written then.
    """
    job = _job_locked(lease.job_id)
    if job.spent_micro + job.held_micro + payment_micro > job.max_cost_micro:
        raise Refused("The job's max_cost does not cover the next round.", code="max_cost")
    rules, bond = _bonded(lease, payment_micro, now) if basis == SAMPLES else (None, 0)
    last = lease.contracts.order_by("-sequence").first()
    if last is not None and last.superseded_at is None:
        Contract.objects.filter(pk=last.pk).update(superseded_at=now)
    contract = Contract.objects.create(
        lease=lease,
        sequence=last.sequence + 1 if last else 1,
        round=round,
        basis=basis,
        gpus=lease.gpus,
        price_micro=price_micro,
        contracted=contracted,
        payment_micro=payment_micro,
        reserve_micro=reserve_micro,
        bond_micro=bond,
        rules=rules,
        ends_at=ends_at,
        to_end=to_end,
        created_at=now,
    )
    ledger.escrow_hold(
        contract=contract,
        amount_micro=payment_micro,
        bond_micro=bond,
        earnest_micro=job.earnest_micro,
        key=f"hold:{contract.pk}",
        now=now,
    )
    # earnest money has become a part of the price
    changes = {"held_micro": F("held_micro") + payment_micro, "earnest_micro": 0}
    Job.objects.filter(pk=job.pk).update(**changes)
    return contract


def _job_locked(pk: UUID) -> Job:
    """A job as it is now; everybody locks it before the purses."""
    return Job.objects.select_for_update(no_key=True).get(pk=pk)


def _bonded(lease: Lease, payment_micro: int, now: datetime) -> tuple[Rules, int]:
    """The rules that stand, and the seller's bond by them and by its record."""
    rules = rules_of(lease.job.venue, now)
    return rules, bond_micro(payment_micro, bond_rates(rules, [lease.site_id])[lease.site_id])


def reserves_of(round: Round) -> dict[UUID, int]:
    """Pool -> its reserve in the book of a round, micro-credits per GPU-hour."""
    return dict(PoolPrice.objects.filter(round=round).values_list("pool_id", "reserve_micro"))


def end_expected(rest: int, speed: float, venue: Venue, now: datetime) -> datetime:
    """When a job with `rest` samples left should long have ended, by its speed in samples/s."""
    forecast = rest / speed if speed > 0 else 0.0
    wait = END_FACTOR * forecast + END_SLACK_S + 2 * venue.round_s
    return now + timedelta(seconds=min(wait, END_LATEST_S))


def contracts_hold_over(*, now: datetime, limit: int = 500) -> list[Contract]:
    """Prolong contracts whose round is over although no later round has decided about them.

    A void round, a slow solver or the broker's own absence must not make a site work unpaid, nor
    stop a job. The terms stay; a tenant who cannot pay the prolongation has the job stopped.
    """
    late = (
        Contract.objects.filter(
            state__in=OPEN,
            superseded_at__isnull=True,
            lease__state__in=[LeaseState.ACTIVE, LeaseState.SILENT],
            lease__revoke_asked_at__isnull=True,
            lease__job__kind=Job.Kind.TRAINING,
        )
        .filter(Q(ends_at__lt=now) | Q(to_end=True, delivered__gte=F("contracted")))
        .select_related("lease__job__venue", "lease__site__member", "round")
        .defer("round__clearing")
    )
    done = []
    for contract in late.order_by("created_at")[:limit]:
        job = contract.lease.job
        slack = timedelta(seconds=job.venue.round_s * HOLDOVER_SLACK)
        if not contract.to_end and contract.ends_at is not None and contract.ends_at + slack > now:
            continue
        try:
            with transaction.atomic():
                if _prolong(contract, now):
                    done.append(contract)
        except Refused as refusal:
            with transaction.atomic():
                revoke_ask(lease=contract.lease, code=refusal.code, why=refusal.why, now=now)
    return done


def _prolong(contract: Contract, now: datetime) -> bool:
    """What happens to a contract whose time, or work, is over. Raises Refused to stop the job."""
    job = contract.lease.job
    if not contract.to_end:
        return _hold_over(contract, now)
    overdue = contract.ends_at is not None and contract.ends_at < now
    if job.samples_done >= job.samples:
        if overdue:
            raise Refused("It has trained all its samples and does not end.", code="work_done")
        return False  # it only has to end
    if contract.delivered >= contract.contracted:
        return _hold_over(contract, now)
    rows = Contract.objects.filter(pk=contract.pk)
    if job.preemptible:  # slower than forecast: it bids again
        rows.update(to_end=False, ends_at=now)
        return False
    speed = contract.lease.measured_samples_per_s or 0.0
    rest = job.samples - job.samples_done
    rows.update(ends_at=end_expected(rest, speed, job.venue, now))
    return False


@transaction.atomic
def last_laps(*, venue: Venue, now: datetime) -> list[Contract]:
    """Let running jobs with less than a round of work left finish at their present rate.

    A gang holds its GPUs for a whole round, so a short rest of work is worth less than the round
    costs: bid again, it would be outbid and stranded for good. Its contract now covers the rest,
    and the book no longer holds it.
    """
    running = (
        Contract.objects.filter(
            state=ContractState.RUNNING,
            superseded_at__isnull=True,
            to_end=False,
            lease__state=LeaseState.ACTIVE,
            lease__revoke_asked_at__isnull=True,
            lease__job__venue=venue,
            lease__job__preemptible=True,
            basis=SAMPLES,
        )
        .select_related("lease__job__venue", "lease__site__member", "round")
        .defer("round__clearing")
    )
    due = []
    for contract in running:
        lease = contract.lease
        speed = lease.measured_samples_per_s or lease.predicted_samples_per_s or 0.0
        rest = lease.job.samples - lease.job.samples_done
        if rest <= speed * venue.round_s:
            due.append((contract, rest, speed))
    # all of them before the first purse: who settles one has its job and waits for a purse
    jobs = Job.objects.select_for_update(no_key=True).order_by("pk")
    list(jobs.filter(pk__in=[c.lease.job_id for c, _, _ in due]).values_list("pk", flat=True))
    done = []
    for contract, rest, speed in due:
        try:
            with transaction.atomic():
                if _finish(contract, rest, speed, now):
                    done.append(contract)
        except Refused:
            continue  # it bids again, as far as its money goes
    return done


def _finish(contract: Contract, rest: int, speed: float, now: datetime) -> bool:
    open_work = contract.contracted - contract.delivered
    more = max(0, rest - open_work)
    pay = -(-contract.payment_micro * more // max(contract.contracted, 1))
    ends_at = end_expected(rest, speed, contract.lease.job.venue, now)
    return _enlarge(contract, more, pay, ends_at=ends_at, to_end=True, now=now)


def _hold_over(contract: Contract, now: datetime) -> bool:
    """One more period on the same terms, but never more work than there is left."""
    job = contract.lease.job
    periods = contract.extensions + 1
    rest = max(0, job.samples - job.samples_done)
    covered = max(0, contract.contracted - contract.delivered)
    work = min(max(contract.contracted // periods, 1), max(0, rest - covered))
    pay = contract.payment_micro * work // max(contract.contracted, 1)
    ends_at = now + timedelta(seconds=job.venue.round_s)
    if contract.to_end and contract.ends_at is not None:
        ends_at = max(contract.ends_at, ends_at)
    return _enlarge(contract, work, pay, ends_at=ends_at, to_end=contract.to_end, now=now)


def _enlarge(
    contract: Contract, work: int, pay: int, *, ends_at: datetime, to_end: bool, now: datetime
) -> bool:
    """Add work at the same rate to a contract, its price to the escrow, and to the bond in
    proportion."""
    job = _job_locked(contract.lease.job_id)
    if job.spent_micro + job.held_micro + pay > job.max_cost_micro:
        raise Refused("The job's max_cost does not cover more time.", code="max_cost")
    number = contract.extensions + 1
    bond = pay * contract.bond_micro // max(contract.payment_micro, 1)
    # only while it is open: what is held after its settlement nobody would give back
    still = Contract.objects.filter(
        pk=contract.pk,
        extensions=contract.extensions,
        state__in=OPEN,
        superseded_at__isnull=True,
    )
    won = still.update(
        extensions=number,
        contracted=F("contracted") + work,
        payment_micro=F("payment_micro") + pay,
        bond_micro=F("bond_micro") + bond,
        ends_at=ends_at,
        to_end=to_end,
    )
    if not won:
        return False
    ledger.escrow_hold(
        contract=contract,
        amount_micro=pay,
        bond_micro=bond,
        key=f"hold:{contract.pk}:{number}",
        now=now,
    )
    Job.objects.filter(pk=job.pk).update(held_micro=F("held_micro") + pay)
    return True
