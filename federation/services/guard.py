"""Claims above what was measured, and what a site's settled contracts say of it.

A claim that lies above the belief raises an alarm and is not planned on. It is confirmed by a lease
made after the alarm that reaches it: a contract's, or a probe that the site serves free of charge,
for who claims more than was seen bears the cost of showing it. What was measured before a confirmed
claim counts no more. Docs: "What keeps offers true".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models import Q

from federation.affinity.belief import NOISE, Belief, with_claim
from federation.errors import NotFound
from federation.models import Alarm, Forgotten, JobClass, Lease, Offer, OfferAffinity, Pool, Venue
from federation.selectors.affinity import Cell, Claim, Matrix, claims, current_offers
from federation.selectors.unproven import unproven_claims
from federation.services.alarms import Concern, alarm_close, alarm_raise
from federation.services.story import tell

MIN_LINES = 2  #: progress lines before a lease's speed counts
CONFIRMED = "measurement"  #: who closes the alarm of a claim that was reached


def claims_review(*, venue: Venue, now: datetime, cells: Matrix | None = None) -> list[Alarm]:
    """Hold every claim on offer against what was measured; returns the alarms that are new.

    Runs at each gate, before the book is frozen, so that no book ever holds such a claim. A claim
    is left aside when it lies above its posterior, or above what the leases alone allow where it
    was raised after them or the cell has lastingly shifted since it was made; and when its pool got
    other hardware and nothing was measured of it since. It is heard again once it is confirmed or
    lowered to what was measured. `cells`: the matrix of the venue's offers, where it was read
    already.
    """
    offers = list(current_offers(venue, now))
    known = {_cell(alarm): alarm for alarm in open_claims(venue)}
    raised, stated = [], set()
    for claim in claims(offers, cells):
        stated.add(claim.cell)
        alarm = known.get(claim.cell)
        if not claim.belief.exceeded_by(claim.declared):
            if alarm is not None:
                why = "What is claimed now lies within what was measured."
                alarm_close(alarm=alarm, actor="broker", why=why, now=now)
        elif alarm is not None or _doubtful(claim):
            alarm, new = alarm_raise(concern=_concern(claim, alarm), now=now)
            raised += [alarm] if new else []
    for cell, declared in unproven_claims(venue, offers, known):
        stated.add(cell)
        alarm, new = alarm_raise(concern=_unproven(cell, declared, known.get(cell)), now=now)
        raised += [alarm] if new else []
    _forget(known, stated, {offer.site_id for offer in offers}, now)
    return raised


def _doubtful(claim: Claim) -> bool:
    joint = with_claim(claim.belief, claim.declared)
    return (
        joint.exceeded_by(claim.declared)
        or _was_raised(claim)
        or _was_outlived(claim)
        or _never_reached(claim)
    )


def _was_outlived(claim: Claim) -> bool:
    """True when the cell was found at another speed since the claim was made."""
    since = _another_since(claim.cell)
    return (
        since is not None and Offer.objects.filter(pk=claim.offer_id, created_at__lt=since).exists()
    )


def _never_reached(claim: Claim) -> bool:
    """True when the claim is of other hardware than the pool had, and no lease has reached it."""
    pool, _, _ = claim.cell
    changes = Forgotten.objects.filter(pool=pool, cause=Forgotten.Cause.HARDWARE)
    since = changes.order_by("-since").values_list("since", flat=True).first()
    confirmed = _confirmed_since(claim.cell)
    return since is not None and (confirmed is None or confirmed < since)


def _was_raised(claim: Claim) -> bool:
    """True when the newest lease that was measured ran under a lower claim, or under none."""
    pool, job_class, gpus = claim.cell
    lease = measured_leases(claim.cell).order_by("-created_at", "-pk").first()
    if lease is None:
        return False
    earlier = Offer.objects.filter(site__pools=pool, created_at__lte=lease.created_at)
    then = earlier.order_by("-version").values_list("pk", flat=True).first()
    if then == claim.offer_id:
        return False
    rows = OfferAffinity.objects.filter(offer=then, pool=pool, job_class=job_class, gpus=gpus)
    said = rows.values_list("samples_per_s", flat=True).first()
    return said is None or said < claim.declared


def measured_leases(cell: Cell) -> Any:
    """Leases of a cell whose speed counts."""
    pool, job_class, gpus = cell
    return Lease.objects.filter(
        pool=pool,
        gpus=gpus,
        job__job_class=job_class,
        measured_samples_per_s__gt=0,
        progress_lines__gte=MIN_LINES,
    )


def _concern(claim: Claim, alarm: Alarm | None) -> Concern:
    """The alarm of a claim above what leases showed."""
    belief = claim.belief
    figures = {
        "measured": belief.speed(),
        "sd_log": belief.sd_log,
        "noise_log": belief.noise_log,
        "leases": belief.n,
    }
    why = (
        f"{belief.n} leases showed {belief.speed():.6g}. The market plans with those until a lease "
        "reaches the claim."
    )
    return _about(claim.cell, claim.declared, figures, why, alarm)


def _unproven(cell: Cell, declared: float, alarm: Alarm | None) -> Concern:
    """The alarm of a claim that was not put to the test since its pool got other hardware."""
    why = (
        "its pool got GPUs of another kind, and nothing was measured on them. The market does not "
        "plan with it until a lease or a probe has shown it."
    )
    return _about(cell, declared, {"noise_log": NOISE, "leases": 0}, why, alarm)


def _about(
    cell: Cell, declared: float, shown: dict[str, Any], why: str, alarm: Alarm | None
) -> Concern:
    """A claim and why it waits; a probe that was made for it stands only while the claim does."""
    pool, job_class, gpus = cell
    where = Pool.objects.select_related("site").get(pk=pool)
    what = JobClass.objects.get(pk=job_class)
    figures = {"gpus": gpus, "claimed": declared, **shown}
    if alarm is not None and alarm.figures.get("claimed") == declared:
        figures |= {key: alarm.figures[key] for key in ("probe",) if key in alarm.figures}
    said = f"{declared:.6g} samples/s are claimed for {what} on {gpus} GPU at {where}"
    return Concern(
        kind=Alarm.Kind.CLAIM,
        about=f"{where} {what} x{gpus}",
        why=f"{said}; {why}",
        figures=figures,
        site=where.site,
        pool=where,
        job_class=what,
    )


def _forget(known: dict[Cell, Alarm], stated: set[Cell], offering: set[Any], now: datetime) -> None:
    """Close the alarms of claims that their sites no longer make."""
    for cell, alarm in known.items():
        if cell not in stated and alarm.site_id in offering:
            why = "The site no longer claims a speed for it."
            alarm_close(alarm=alarm, actor="broker", why=why, now=now)


def open_claims(venue: Venue) -> Iterable[Alarm]:
    """Claims that wait for a lease that reaches them."""
    rows = Alarm.objects.filter(
        kind=Alarm.Kind.CLAIM, closed_at__isnull=True, site__venue=venue, pool__isnull=False
    )
    return rows.select_related("site", "pool__site", "job_class").order_by("created_at", "id")


def _cell(alarm: Alarm) -> Cell:
    assert alarm.pool_id is not None  # noqa: S101 - `open_claims` and the callers saw to it
    assert alarm.job_class_id is not None  # noqa: S101
    return alarm.pool_id, alarm.job_class_id, int(alarm.figures["gpus"])


def claims_confirm(*, now: datetime) -> list[Alarm]:
    """Close the alarms of claims that a lease made since then has reached."""
    waiting = Alarm.objects.filter(
        kind=Alarm.Kind.CLAIM,
        closed_at__isnull=True,
        pool__isnull=False,
        job_class__isnull=False,
    )
    confirmed = []
    for alarm in waiting.select_related("site"):
        claimed, noise = float(alarm.figures["claimed"]), float(alarm.figures["noise_log"])
        cell = _cell(alarm)
        first = max(alarm.created_at, _another_since(cell) or alarm.created_at)
        since = measured_leases(cell).filter(created_at__gte=first)
        speeds = since.values_list("measured_samples_per_s", flat=True)
        best = max((speed for speed in speeds if speed), default=0.0)
        if best and Belief(0.0, 0.0, 1, noise).confirmed_by(best, claimed):
            why = f"A lease ran at {best:.6g} samples/s; {claimed:.6g} were claimed."
            if alarm_close(alarm=alarm, actor=CONFIRMED, why=why, now=now):
                since.update(fitted_lines=0)  # the cell is fitted anew, from them alone
                confirmed.append(alarm)
    return confirmed


def measured_since(cell: Cell) -> datetime | None:
    """From when on a cell's leases count; None = all.

    Since its newest confirmed claim was made, or since the pool was found to be another.
    """
    moments = [_confirmed_since(cell), _another_since(cell)]
    return max((moment for moment in moments if moment is not None), default=None)


def _another_since(cell: Cell) -> datetime | None:
    """Since when the pool has its hardware, or the cell its speed of today."""
    pool, job_class, gpus = cell
    rows = Forgotten.objects.filter(
        Q(job_class=job_class) | Q(job_class=None), Q(gpus=gpus) | Q(gpus=None), pool=pool
    )
    return rows.order_by("-since").values_list("since", flat=True).first()


def _confirmed_since(cell: Cell) -> datetime | None:
    pool, job_class, gpus = cell
    rows = Alarm.objects.filter(
        kind=Alarm.Kind.CLAIM, pool=pool, job_class=job_class, closed_by=CONFIRMED
    ).order_by("-created_at")
    for created_at, figures in rows.values_list("created_at", "figures"):
        if int(figures["gpus"]) == gpus:
            return created_at
    return None


def claim_check_request(
    *, pool: Pool, job_class: JobClass, actor: str, now: datetime
) -> list[Alarm]:
    """Ask for one more probe of the claims of a class on a pool, for a site or an operator.

    It runs at the next gate at which a job of the class waits and GPUs are free, on the site's own
    account. Raises NotFound when no claim waits there.
    """
    waiting = list(
        Alarm.objects.filter(
            kind=Alarm.Kind.CLAIM, closed_at__isnull=True, pool=pool, job_class=job_class
        )
    )
    if not waiting:
        raise NotFound(f"No claim of {job_class} on {pool} waits for a measurement.")
    for alarm in waiting:
        alarm.figures = {key: value for key, value in alarm.figures.items() if key != "probe"}
        alarm.save(update_fields=["figures"])
        why = f"{alarm.about}: one more probe"
        tell("site", pool.site_id, "claim_check", now=now, actor=actor, why=why)
    return waiting


def claim_probed(*, alarm: Alarm, probe: str) -> None:
    """Write down that this version of a claim has had its probe."""
    alarm.figures = {**alarm.figures, "probe": probe}
    alarm.save(update_fields=["figures"])
