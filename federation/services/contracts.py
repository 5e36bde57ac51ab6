"""Write side of contracts: hold, hold over, measure, settle."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from economics.settlement import settle
from federation.errors import Refused
from federation.machines.contract import ContractState
from federation.machines.lease import LIVE, LeaseState
from federation.models import Contract, Job, Lease, Round, Venue
from federation.services import ledger
from federation.services.leases import revoke_ask
from federation.services.story import move

OPEN = (ContractState.HELD, ContractState.RUNNING)
HOLDOVER_SLACK = 0.5  #: of a round: how late the next round may be before a contract is held over
END_FACTOR = 3.0  #: a contract to the job's end waits so many times the forecast for that end
END_SLACK_S = 60.0
END_LATEST_S = 366 * 86400.0  #: a speed near zero must not leave the calendar


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
    basis: str = Contract.Basis.SAMPLES,
) -> Contract:
    """Start a contract on a lease and hold its price in escrow; an earlier one is superseded.

    Runs inside the caller's transaction. Raises Refused when the tenant's funds or the job's
    `max_cost` do not cover it.
    """
    job = Job.objects.get(pk=lease.job_id)
    if job.spent_micro + job.held_micro + payment_micro > job.max_cost_micro:
        raise Refused("The job's max_cost does not cover the next round.", code="max_cost")
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
        ends_at=ends_at,
        to_end=to_end,
        created_at=now,
    )
    ledger.escrow_hold(
        contract=contract, amount_micro=payment_micro, key=f"hold:{contract.pk}", now=now
    )
    Job.objects.filter(pk=job.pk).update(held_micro=F("held_micro") + payment_micro)
    return contract


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
            basis=Contract.Basis.SAMPLES,
        )
        .select_related("lease__job__venue", "lease__site__member", "round")
        .defer("round__clearing")
    )
    done = []
    for contract in running:
        lease = contract.lease
        speed = lease.measured_samples_per_s or lease.predicted_samples_per_s or 0.0
        rest = lease.job.samples - lease.job.samples_done
        if rest > speed * venue.round_s:
            continue
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
    """Add work at the same rate to a contract, its price to the escrow."""
    job = Job.objects.get(pk=contract.lease.job_id)
    if job.spent_micro + job.held_micro + pay > job.max_cost_micro:
        raise Refused("The job's max_cost does not cover more time.", code="max_cost")
    number = contract.extensions + 1
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
        ends_at=ends_at,
        to_end=to_end,
    )
    if not won:
        return False
    ledger.escrow_hold(
        contract=contract, amount_micro=pay, key=f"hold:{contract.pk}:{number}", now=now
    )
    Job.objects.filter(pk=job.pk).update(held_micro=F("held_micro") + pay)
    return True


def _complete() -> Q:
    """All the reports up to the highest one seen are on record, the end among them."""
    return Q(lease__reports_stored=F("lease__reports_highest"))


def _measurable(now: datetime) -> QuerySet[Contract]:
    later = Contract.objects.filter(
        lease=OuterRef("lease"), sequence__gt=OuterRef("sequence")
    ).exclude(state=ContractState.HELD)
    over = ~Q(lease__state__in=sorted(LIVE))
    rows = Contract.objects.filter(state__in=OPEN).select_related("lease__job__venue")
    return rows.filter(
        (over & _complete() & Q(lease__end_seq=F("lease__reports_highest")))
        | (over & Q(lease__end_seq__isnull=True))  # fenced or withdrawn: nothing more will count
        | (Q(superseded_at__isnull=False) & Exists(later) & _complete())
        | Q(superseded_at__isnull=False, lease__booked_sequence__gt=F("sequence"))
    )


def contracts_measure(*, now: datetime, limit: int = 1000) -> list[Contract]:
    """Close the books of contracts to which no further work can be added."""
    rows = _measurable(now).order_by("created_at")[:limit]
    return [c for c in rows if move(c, "measure", now=now)] + _measure_overdue(now)


def _measure_overdue(now: datetime) -> list[Contract]:
    """Contracts whose last reports never came within the venue's window."""
    rows = Contract.objects.filter(state__in=OPEN).select_related("lease__job__venue")
    rows = rows.filter(Q(superseded_at__isnull=False) | Q(lease__ended_at__isnull=False))
    done = []
    for contract in rows.order_by("created_at")[:1000]:
        ended = contract.superseded_at or contract.lease.ended_at
        window = timedelta(seconds=contract.lease.job.venue.settle_after_s)
        if (
            ended is not None
            and ended + window <= now
            and move(contract, "measure", now=now, code="reports_missing", why="the window is over")
        ):
            done.append(contract)
    return done


def contracts_settle(*, now: datetime, limit: int = 1000) -> list[Contract]:
    """Pay what was delivered, at most what was contracted; refund the rest of the escrow."""
    due = (
        Contract.objects.filter(state=ContractState.MEASURED)
        .select_related("lease__job__venue", "lease__job__tenant", "lease__site__member", "round")
        .defer("round__clearing")
    )
    return [c for c in due.order_by("created_at")[:limit] if _settle(c, now)]


def _settle(contract: Contract, now: datetime) -> bool:
    paid = settle(
        payment_micro=contract.payment_micro,
        contracted=contract.contracted,
        delivered=contract.delivered,
    )
    with transaction.atomic():
        won = move(
            contract,
            "settle",
            now=now,
            settled_at=now,
            paid_micro=paid.pay_micro,
            refunded_micro=paid.refund_micro,
        )
        if not won:
            return False
        ledger.escrow_settle(
            contract=contract, pay_micro=paid.pay_micro, refund_micro=paid.refund_micro, now=now
        )
        job = contract.lease.job
        Job.objects.filter(pk=job.pk).update(
            held_micro=F("held_micro") - contract.payment_micro,
            spent_micro=F("spent_micro") + paid.pay_micro,
            updated_at=now,
        )
        if job.parent_id is not None:  # a probe is paid for by the job that needs it
            Job.objects.filter(pk=job.parent_id).update(
                held_micro=F("held_micro") - contract.payment_micro,
                spent_micro=F("spent_micro") + paid.pay_micro,
            )
    return True
