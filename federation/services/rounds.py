"""Write side of rounds: open, close, claim, record, publish, settle; or void, with a reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Q

from federation.bulk import rows_insert, uncollected
from federation.decision import Decision
from federation.machines.job import JobState
from federation.machines.lease import LIVE
from federation.machines.round import RoundState
from federation.models import (
    Assignment,
    Job,
    Lease,
    Pool,
    PoolPrice,
    Round,
    RoundOffer,
    Site,
    Snapshot,
    Venue,
)
from federation.services.contracts import last_laps
from federation.services.jobs import binding_cancels
from federation.services.leases import job_close, revoke_ask
from federation.services.outcomes import outcomes_tell, rounds_explain
from federation.services.placement import waiting_expire
from federation.services.probes import cells_at_gate, probes_place
from federation.services.publication import awards_carry_out
from federation.services.story import move, tell
from federation.snapshot import (
    Book,
    awards_read,
    book_build,
    outcomes_read,
    pack,
    price_micro,
    running_jobs,
    seal,
    unpack,
)

log = logging.getLogger("hanse")
MAX_CLAIMS = 3  #: workers that may try a round before it is void
AWARD_FIELDS = (
    *("job_id", "pool_id", "gpus", "samples", "samples_per_s"),
    *("price_micro", "payment_micro", "budget_micro"),
)
DECIDING = (RoundState.CLOSED, RoundState.SOLVING, RoundState.CLEARED)


@dataclass(frozen=True)
class RoundClaim:
    """The right to decide a round until its deadline. `token` guards the record."""

    round_id: UUID
    number: int
    token: UUID
    body: bytes  #: the book as it is stored

    @cached_property
    def book(self) -> dict[str, Any]:
        """The frozen book, read when it is first asked for."""
        return unpack(self.body)


def round_ensure_open(*, venue: Venue, now: datetime) -> Round | None:
    """The venue's open round; a new one when there is none and the venue is not paused."""
    current = Round.objects.filter(venue=venue, state=RoundState.OPEN).first()
    if current is not None or venue.paused:
        return current
    with transaction.atomic():
        Venue.objects.select_for_update().get(pk=venue.pk)
        if Round.objects.filter(venue=venue, state=RoundState.OPEN).exists():
            return None
        numbers = Round.objects.filter(venue=venue).order_by("-number")
        last = numbers.values_list("number", flat=True).first() or 0
        opened = Round.objects.create(
            venue=venue,
            number=last + 1,
            closes_at=now + timedelta(seconds=venue.round_s),
            created_at=now,
        )
        tell("round", opened.pk, "open", now=now, to_state=opened.state)
    return opened


def rounds_close(*, now: datetime) -> list[UUID]:
    """Freeze the book of every open round whose gate is due. Returns the rounds to be solved.

    A round waits while an earlier one of its venue is being decided, and its gate moves on while
    nobody bids: an empty round would say nothing.
    """
    due = Round.objects.filter(
        state=RoundState.OPEN, closes_at__lte=now, venue__paused=False
    ).select_related("venue")
    return [round.pk for round in due if _close(round, now)]


@uncollected()
@transaction.atomic
def _close(round: Round, now: datetime) -> bool:
    """Close one round, unless it has to wait; False = it stays open."""
    venue = Venue.objects.select_for_update().get(pk=round.venue_id)
    if Round.objects.filter(venue=venue, state__in=DECIDING).exists():
        return False
    cells = cells_at_gate(venue=venue, now=now)
    probing = probes_place(venue=venue, now=now, cells=cells)
    last_laps(venue=venue, now=now)
    book = book_build(venue=venue, now=now, cells=cells)
    _tell_left_out(round, book, probing, now)
    if book.bids:
        return _freeze(round, book, now)
    Round.objects.filter(pk=round.pk, state=RoundState.OPEN).update(
        closes_at=now + timedelta(seconds=venue.round_s)
    )
    return False


def _freeze(round: Round, book: Book, now: datetime) -> bool:
    won = move(
        round,
        "close",
        now=now,
        closed_at=now,
        bids=book.bids,
        offered_gpus=book.gpus,
    )
    if won:
        sealed = seal(book.text)
        Snapshot.objects.create(round=round, sha256=sealed.sha256, body=sealed.body, created_at=now)
        RoundOffer.objects.bulk_create(RoundOffer(round=round, offer=o) for o in book.offers)
    return won


def _tell_left_out(
    round: Round, book: Book, probing: dict[UUID, tuple[str, str]], now: datetime
) -> None:
    probed = {str(job): answer for job, answer in probing.items()}
    told = {left.job_id: probed.get(left.job_id, (left.code, left.why)) for left in book.left_out}
    outcomes_tell(number=round.number, told=told)
    for left in book.left_out:
        if left.final:
            _give_up(UUID(left.job_id), *told[left.job_id], now)


def _give_up(job_id: UUID, code: str, why: str, now: datetime) -> None:
    """End a waiting job that no later round can serve."""
    job = Job.objects.get(pk=job_id)
    if job.state == JobState.PENDING:
        job_close(job, "fail", code, why, now)


def rounds_due(*, now: datetime) -> list[UUID]:
    """Rounds that wait for a solver, or whose solver missed its deadline."""
    return list(
        Round.objects.filter(
            Q(state=RoundState.CLOSED) | Q(state=RoundState.SOLVING, claim_deadline__lt=now)
        )
        .order_by("closed_at")
        .values_list("pk", flat=True)
    )


def round_claim(*, round_id: UUID, token: UUID, now: datetime) -> RoundClaim | None:
    """Take a round to decide it; None when another worker has it. The third loss voids it."""
    round = Round.objects.select_related("venue", "snapshot").filter(pk=round_id).first()
    if round is None or round.state not in (RoundState.CLOSED, RoundState.SOLVING):
        return None
    if round.state == RoundState.SOLVING and (round.claim_deadline or now) >= now:
        return None
    if round.claims >= MAX_CLAIMS:
        round_void(
            round=round,
            code="solver_lost",
            why=f"{MAX_CLAIMS} workers in turn did not come back with a clearing.",
            now=now,
        )
        return None
    patience = timedelta(seconds=round.venue.solve_patience_s)
    taken_over = round.state == RoundState.SOLVING
    with transaction.atomic():
        held = Round.objects.filter(pk=round.pk, claims=round.claims, token=round.token)
        if not held.update(token=token, claims=round.claims + 1, claim_deadline=now + patience):
            return None
        move(
            round,
            "claim",
            now=now,
            code="taken_over" if taken_over else "",
            why="the earlier worker did not come back" if taken_over else "",
        )
    if round.snapshot.body is None:
        return None
    return RoundClaim(round.pk, round.number, token, bytes(round.snapshot.body))


def round_record(*, claim: RoundClaim, decision: Decision, solve_s: float, now: datetime) -> bool:
    """Write a decision down, if the claim still holds; False = somebody else owns the round now."""
    round = Round.objects.select_related("venue").get(pk=claim.round_id)
    if round.token != claim.token or round.state != RoundState.SOLVING:
        return False
    if decision.clearing is None:
        return round_void(
            round=round, code=decision.void_code, why=decision.void_why, now=now, token=claim.token
        )
    clearing, body = decision.clearing, pack(decision.clearing)
    with transaction.atomic():
        Venue.objects.select_for_update().get(pk=round.venue_id)
        held = Round.objects.filter(pk=round.pk, token=claim.token, state=RoundState.SOLVING)
        if not held.exists() or not move(
            round,
            "record",
            now=now,
            cleared_at=now,
            clearing=body,
            clearing_sha256=clearing["sha256"],
            welfare=clearing["welfare"],
            bound=clearing["bound"],
            gap=clearing["gap"],
            regret=clearing["regret"],
            certified=all(c["holds"] for c in clearing["certificate"]),
            solve_s=solve_s,
            traded_gpu_hours=sum(a["gpu_hours"] for a in clearing["allocation"]),
            explanations_due=bool(clearing["unplaced"]),
        ):
            return False
        _record_rows(round, claim.book, clearing)
    return True


def _record_rows(round: Round, book: dict[str, Any], clearing: dict[str, Any]) -> None:
    """Prices, awards, and what those are told that were awarded or run; the rest hear later."""
    pools = {
        str(p): p.pk for p in Pool.objects.filter(site__venue=round.venue).select_related("site")
    }
    awards = awards_read(book=book, clearing=clearing, pools=pools)
    values = attrgetter(*AWARD_FIELDS)
    rows_insert(Assignment, ("round_id", *AWARD_FIELDS), ((round.pk, *values(a)) for a in awards))
    _record_prices(round, book, clearing, pools)
    told = outcomes_read(book=book, clearing=clearing, jobs=running_jobs(book).keys())
    names = {pk: name for name, pk in pools.items()}
    for award in awards:
        why = f"Awarded {award.gpus} GPU at {names[award.pool_id]}."
        told[str(award.job_id)] = "awarded", why
    outcomes_tell(number=round.number, told=told)


def _record_prices(
    round: Round, book: dict[str, Any], clearing: dict[str, Any], pools: dict[str, UUID]
) -> None:
    traded: dict[str, float] = {}
    for line in clearing["allocation"]:
        traded[line["pool"]] = traded.get(line["pool"], 0.0) + line["gpu_hours"]
    PoolPrice.objects.bulk_create(
        PoolPrice(
            round=round,
            pool_id=pools[row["id"]],
            price_micro=price_micro(clearing["prices"][row["id"]]),
            reserve_micro=price_micro(row["reserve"]),
            gpus=row["gpus"],
            traded_gpu_hours=traded.get(row["id"], 0.0),
        )
        for row in book["pools"]
    )


def rounds_publish(*, now: datetime) -> list[UUID]:
    """Carry cleared rounds out: leases offered, prolonged, moved or asked back.

    Then the jobs that these rounds left out are told why, or those of a round whose worker died.
    """
    published = []
    cleared = Round.objects.filter(state=RoundState.CLEARED).defer("clearing")
    for round in cleared.select_related("venue"):
        try:
            done = _publish(round, now)
        except DatabaseError:
            raise  # the database is away: the next tick tries again
        except Exception as error:
            # a round always ends: what no test foresaw must not stop the market for ever
            log.exception("round %s could not be published", round.pk)
            round.refresh_from_db()
            why = f"Publishing it failed: {type(error).__name__}. Jobs stay as they were."
            Assignment.objects.filter(round=round).update(status=Assignment.Status.DROPPED)
            round_void(round=round, code="not_published", why=why, now=now)
            continue
        if done:
            published.append(round.pk)
    rounds_explain(now=now, fresh=published)
    return published


@transaction.atomic
def _publish(round: Round, now: datetime) -> bool:
    Venue.objects.select_for_update().get(pk=round.venue_id)
    if not move(round, "publish", now=now, published_at=now):
        return False
    waiting_expire(round=round)
    _stop_outbid(round, now)
    awards_carry_out(round=round, now=now)
    binding_cancels(round=round, now=now)
    return True


def _stop_outbid(round: Round, now: datetime) -> None:
    """Running jobs that bid in this round and were not awarded again give their GPUs back."""
    awarded = Assignment.objects.filter(round=round).values("job_id")
    lost = Lease.objects.filter(
        job__venue=round.venue, job__kind=Job.Kind.TRAINING, state__in=sorted(LIVE)
    ).exclude(job__in=awarded)
    sites = Site.objects.filter(pk__in=lost.values("site_id"))
    list(sites.select_for_update().order_by("pk"))  # a sync locks its site before its leases
    rows = lost.select_related("job", "pool__site", "site").order_by("pk")
    leases = list(rows.select_for_update(of=("self",)))
    if not leases:
        return  # the book need not be read
    body = Snapshot.objects.filter(round=round).values_list("body", flat=True).first()
    ran = running_jobs(unpack(body)) if body else {}
    for lease in leases:
        if str(lease.pool) == ran.get(str(lease.job_id)):
            why = lease.job.outcome_why or "Its GPUs were awarded to others in this round."
            revoke_ask(lease=lease, code="outbid", why=why, now=now)


def round_void(
    *,
    round: Round,
    code: str,
    why: str,
    now: datetime,
    token: UUID | None = None,
    actor: str = "broker",
) -> bool:
    """End a round without trade. Jobs stay in the queue; running ones are held over."""
    if token is not None and not Round.objects.filter(pk=round.pk, token=token).exists():
        return False
    return move(
        round,
        "void",
        now=now,
        actor=actor,
        code=code,
        why=why,
        ended_at=now,
        void_code=code,
        void_why=why[:1000],
    )


def snapshots_forget(*, now: datetime) -> int:
    """Drop the bodies of snapshots past their venue's retention; the hashes stay."""
    count = 0
    for venue in Venue.objects.all():
        limit = now - timedelta(days=venue.retention_days)
        count += Snapshot.objects.filter(
            round__venue=venue, created_at__lt=limit, body__isnull=False
        ).update(body=None)
    return count
