"""Each task: call one service, log its facts, enqueue what they ask for. No rule lives here."""

from __future__ import annotations

import time
import uuid

import structlog
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from federation.decision import decide
from federation.models import Venue
from federation.services import affinity, contracts, jobs, offers, rounds, syncs

log = structlog.get_logger("hanse")


@shared_task
def tick_rounds() -> None:
    """Open, close and publish what is due; hand closed rounds to a solver; settle paid ones."""
    now = timezone.now()
    for venue in Venue.objects.filter(paused=False):
        rounds.round_ensure_open(venue=venue, now=now)
    for round_id in rounds.rounds_close(now=now):
        log.info("round.closed", round=str(round_id))
    for round_id in rounds.rounds_due(now=now):
        solve_round.delay(str(round_id))
    rounds_out()
    for round_id in rounds.rounds_settle(now=timezone.now()):
        log.info("round.settled", round=str(round_id))


def rounds_out() -> None:
    for round_id in rounds.rounds_publish(now=timezone.now()):
        log.info("round.published", round=str(round_id))


@shared_task
def solve_round(round_id: str) -> None:
    """Claim, decide with no database open, record; then publish at once."""
    claim = rounds.round_claim(round_id=uuid.UUID(round_id), token=uuid.uuid4(), now=timezone.now())
    if claim is None:
        return
    started = time.monotonic()
    decision = decide(claim.book)
    took = time.monotonic() - started
    kept = rounds.round_record(claim=claim, decision=decision, solve_s=took, now=timezone.now())
    log.info(
        "round.decided",
        round=round_id,
        number=claim.number,
        kept=kept,
        void=decision.void_code,
        seconds=round(took, 3),
    )
    rounds_out()


@shared_task
def tick_clocks() -> None:
    """The broker's own pulse, silent sites, fences, deadlines."""
    now = timezone.now()
    gap = settings.PULSE_GAP_S
    syncs.pulse(name=syncs.TICKS, now=now, gap_s=gap)
    for site_id in syncs.sites_silence(now=now, gap_s=gap):
        log.warning("site.silent", site=str(site_id))
    for lease_id in syncs.leases_fence(now=now, gap_s=gap):
        log.warning("lease.fenced", lease=str(lease_id))
    for offer_id in offers.offers_expire(now=now):
        log.info("offer.expired", offer=str(offer_id))
    for job_id in jobs.jobs_expire(now=now):
        log.info("job.expired", job=str(job_id))


@shared_task
def tick_contracts() -> None:
    """Hold contracts over, measure the finished ones, pay them."""
    now = timezone.now()
    for contract in contracts.contracts_hold_over(now=now):
        log.info("contract.held_over", contract=str(contract.pk))
    contracts.contracts_measure(now=now)
    for contract in contracts.contracts_settle(now=now):
        log.info("contract.settled", contract=str(contract.pk), paid_micro=contract.paid_micro)


@shared_task
def tick_affinity() -> None:
    """Fold new measurements into the affinities."""
    for pool, job_class, speed in affinity.affinity_refit(now=timezone.now()):
        log.info("affinity.refit", pool=pool, job_class=job_class, samples_per_s=round(speed, 3))


@shared_task
def tick_housekeeping() -> None:
    """Retention."""
    forgotten = rounds.snapshots_forget(now=timezone.now())
    if forgotten:
        log.info("snapshots.forgotten", count=forgotten)
