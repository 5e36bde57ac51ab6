"""Each task: call one service, log its facts, enqueue what they ask for. No rule lives here."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

import structlog
from celery import group
from django.conf import settings
from django.utils import timezone

from broker.celery import app
from broker.queues import STUDIES, solve_queue
from broker.solving.apart import decide_apart, study_apart
from broker.solving.fan_out import FanOut
from broker.solving.supervisor import Solver, SolverFailed, own_solver
from federation.affinity.coldstart.tables import Row, read_table
from federation.models import Venue
from federation.selectors.frozen import dues, frozen
from federation.services import (
    affinity,
    conduct,
    contracts,
    credits,
    epochs,
    fits,
    jobs,
    offers,
    priors,
    records,
    rounds,
    samples,
    settling,
    studies,
    syncs,
)

log = structlog.get_logger("hanse")
PRIORS_S = 600.0  #: after which a run of the priors is given up; the next begins where it began
SLACK_S = 60.0  #: beyond a solver's own limit, before the worker's process is given up


@app.task
def tick_rounds() -> None:
    """Open, close and publish what is due; hand closed rounds to a solver; settle paid ones."""
    now = timezone.now()
    for venue in Venue.objects.filter(paused=False):
        rounds.round_ensure_open(venue=venue, now=now)
    for round_id in rounds.rounds_close(now=now):
        log.info("round.closed", round=str(round_id))
    hand_out_rounds(rounds.rounds_due(now=now))
    rounds_out()
    for round_id in settling.rounds_settle(now=timezone.now()):
        log.info("round.settled", round=str(round_id))


def hand_out_rounds(round_ids: list[UUID]) -> None:
    """Send each round to the queue of its venue."""
    for due in dues(round_ids):
        solve_round.apply_async(
            (str(due.round_id),),
            queue=solve_queue(due.venue, count=settings.SOLVE_QUEUES, pins=settings.SOLVE_PINS),
            time_limit=due.patience_s + SLACK_S,
            expires=max(10 * settings.TICK_S, 30),
        )


def rounds_out() -> None:
    for round_id in rounds.rounds_publish(now=timezone.now()):
        log.info("round.published", round=str(round_id))


@app.task
def solve_round(round_id: str) -> None:
    """Claim, have it decided with no database open, record; then publish at once."""
    solver = warm_solver()
    claim = rounds.round_claim(round_id=UUID(round_id), token=uuid.uuid4(), now=timezone.now())
    if claim is None:
        return
    started = time.monotonic()
    due = frozen(claim.round_id)
    crew = FanOut(claim.round_id, limit_s=due.limit_s, hand_out=hand_out_studies)
    try:
        decision = decide_apart(solver, due, crew)
    finally:
        crew.leave()
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


def warm_solver() -> Solver:
    """This process's solver, started: a cold start costs no round its patience."""
    solver = own_solver(settings.SOLVE_MEMORY_MB)
    with contextlib.suppress(SolverFailed):  # the errand itself will say so, and be ended by it
        solver.ready()
    return solver


@app.task
def tick_studies() -> None:
    """Hand out again what was lost; complete reports and epochs whose last part has come in."""
    now = timezone.now()
    for epoch in epochs.epochs_gather(now=now):
        log.info("epoch.proposed", epoch=str(epoch.pk), rounds=epoch.rounds)
    for report in studies.reports_gather(now=now):
        log.info("study.gathered", study=str(report))
    hand_out_studies(studies.studies_due(now=now))


def hand_out_studies(study_ids: Iterable[UUID]) -> None:
    """Fan out: one message for each study, taken by whichever worker is free."""
    asked = [run_study.s(str(study_id)) for study_id in study_ids]
    if asked:
        group(asked).apply_async(queue=STUDIES)


@app.task(time_limit=studies.LONG_S + SLACK_S)
def run_study(study_id: str) -> None:
    """Claim a study, have it answered, keep the answer; hand out what comes next."""
    solver = warm_solver()
    claim = studies.study_claim(
        study_id=UUID(study_id),
        token=uuid.uuid4(),
        now=timezone.now(),
        at_once=settings.STUDIES_AT_ONCE,
    )
    if claim is None:
        return
    crew = FanOut(
        claim.round_id, limit_s=claim.limit_s, hand_out=hand_out_studies, study_id=claim.study_id
    )
    try:
        answered = study_apart(solver, claim, crew)
    finally:
        crew.leave()
    log.info("study.answered", study=study_id, kind=claim.kind, kept=answered.kept)
    hand_out_studies(answered.next)


@app.task
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
    for job_id in jobs.cancels_carry_out(now=now):
        log.info("job.cancelled", job=str(job_id))
    jobs.earnests_release(now=now)


@app.task
def tick_contracts() -> None:
    """Hold contracts over, measure the finished ones, pay them; close those past objection."""
    now = timezone.now()
    for contract in contracts.contracts_hold_over(now=now):
        log.info("contract.held_over", contract=str(contract.pk))
    contracts.contracts_measure(now=now)
    for contract in contracts.contracts_settle(now=now):
        log.info("contract.settled", contract=str(contract.pk), paid_micro=contract.paid_micro)
    final = contracts.contracts_finalise(now=now)
    if final:
        log.info("contracts.final", count=len(final))


@app.task
def tick_affinity() -> None:
    """Fold new measurements into the affinities, settled contracts into the sites' records."""
    now = timezone.now()
    for pool, job_class, speed in affinity.affinity_refit(now=now):
        log.info("affinity.refit", pool=pool, job_class=job_class, samples_per_s=round(speed, 3))
    for record in records.records_refit(now=now):
        log.info("record.refit", site=str(record.site_id), score=round(record.score, 3))
    changed = [refit_model.s(model) for model in fits.models_due(now=now)]
    if changed:
        group(changed).apply_async(queue=STUDIES)


@app.task
def refit_model(model: int) -> None:
    """Let the throughput model of one class and pool read the steps that were measured since."""
    fit = fits.waiting_refit(model=model, now=timezone.now())
    if fit is not None:
        log.info("model.refit", pool=fit.pool, job_class=fit.job_class, samples=fit.samples)


def speed_tables() -> list[Row]:
    """Rows of the tables that the settings name; one that cannot be read is left out and told."""
    rows: list[Row] = []
    for path in settings.SPEED_TABLES:
        try:
            rows += read_table(Path(path).read_text(encoding="utf-8"), path)
        except (OSError, ValueError) as error:
            log.warning("priors.bad_table", path=path, why=str(error))
    return rows


@app.task(time_limit=PRIORS_S)
def tick_priors() -> None:
    """Make some of the priors anew, if what they are learnt from has changed."""
    made = priors.priors_refit(now=timezone.now(), table=speed_tables())
    if made is not None:
        log.info("priors.made", classes=made.classes, cells=made.cells, left=made.left)
        for name, why in made.left_out:
            log.warning("priors.left_out", job_class=name, why=why)


@app.task
def tick_housekeeping() -> None:
    """Retention; credits issued and faded; the watch over conduct."""
    now = timezone.now()
    for venue in Venue.objects.all():
        credits.contributions_issue(venue=venue, now=now)
        credits.credits_decay(venue=venue, now=now)
        for alarm in conduct.conduct_review(venue=venue, now=now):
            log.warning("alarm.raised", kind=alarm.kind, about=alarm.about)
    dropped_samples = samples.samples_forget(now=now)
    if dropped_samples:
        log.info("samples.forgotten", count=dropped_samples)
    forgotten = rounds.snapshots_forget(now=now)
    if forgotten:
        log.info("snapshots.forgotten", count=forgotten)
    dropped = studies.studies_forget(now=now)
    if dropped:
        log.info("studies.forgotten", count=dropped)
