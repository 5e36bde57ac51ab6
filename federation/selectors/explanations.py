"""Why a published round came out as it did: its curves, and one job's explanation.

A published round never changes, so what was worked out of its documents is kept under its id and
the digest of its clearing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache

from economics.curves import Cleared, curves, public_curves, read_cleared, without_merit
from economics.curves.document import MOST_COLUMNS
from economics.errors import EconomicsError
from economics.explanations import explain
from federation.errors import NotFound
from federation.models import Assignment, Job, Round, Venue
from federation.selectors.rounds import book_of, clearing_of
from federation.snapshot import pack, unpack

KEPT_S = 24 * 3600  #: seconds a document stays in the cache after it was made
ALL, OWN_POOLS, PUBLIC = "all", "own_pools", "public"


@dataclass(frozen=True, slots=True)
class Sight:
    """How much of a round somebody may see beyond what is public."""

    everything: bool = False
    members: frozenset[str] = frozenset()  #: whose pools, by the member's name in the book


def round_published(venue: Venue, number: int) -> Round:
    """A round whose outcome is out. Raises NotFound, with `not_published` before that."""
    rows = Round.objects.filter(venue=venue, number=number).select_related("venue", "snapshot")
    round = rows.defer("clearing", "snapshot__body").first()
    if round is None:
        raise NotFound("There is no such round.")
    if round.published_at is None:
        raise NotFound(f"Round {number} has no published outcome.", code="not_published")
    return round


def round_curves(round: Round, sight: Sight) -> dict[str, Any]:
    """The round's `hanse.curves/1`, as far as somebody may see it. Raises NotFound.

    Everybody: prices, supply, demand in blocks of several tenants. A member: every step at its own
    pools, but not whose. An operator: all of it.
    """
    kept = _curves_kept(round)
    if sight.everything:
        return {"round": round.number, "scope": ALL, **kept["full"]}
    own = {row["id"]: row for row in kept["full"]["pools"] if row["site"] in sight.members}
    pools = [
        without_merit(own[row["id"]]) if row["id"] in own else row
        for row in kept["public"]["pools"]
    ]
    scope = OWN_POOLS if sight.members else PUBLIC
    return {"round": round.number, "scope": scope, **kept["public"], "pools": pools}


def job_explained(job: Job, number: int | None) -> dict[str, Any]:
    """The job's row of `hanse.explanations/1` in a round, its newest one when None.

    With the price intervals of its pools, as the public may see them. Raises NotFound.
    """
    number = _newest_round(job) if number is None else number
    round = round_published(job.venue, number)
    key = f"explained:{round.pk}:{round.clearing_sha256}:{job.pk}"
    told: dict[str, Any] | None = cache.get(key)
    if told is None:
        told = _explained(job, round)
        cache.set(key, told, KEPT_S)
    shown = [offer["pool"] for offer in told["pools"]]
    return {"round": round.number, "job": told, "intervals": _intervals(round, shown)}


def _explained(job: Job, round: Round) -> dict[str, Any]:
    cleared = _cleared(round)
    if str(job.pk) not in cleared.job_at:
        raise NotFound(f"The job did not bid in round {round.number}.", code="did_not_bid")
    return explain(cleared, str(job.pk))


def _newest_round(job: Job) -> int:
    """The last published round that said something of the job."""
    awards = Assignment.objects.filter(job=job, round__published_at__isnull=False)
    awarded = awards.order_by("-round__number").values_list("round__number", flat=True).first()
    told = [number for number in (awarded, job.outcome_round) if number is not None]
    if not told:
        raise NotFound("No round has dealt with this job yet.", code="did_not_bid")
    return max(told)


def _intervals(round: Round, pools: Collection[str]) -> list[dict[str, Any]]:
    """Supporting prices of some pools, by pool; null where too few tenants bid to tell."""
    rows = _curves_kept(round)["public"]["pools"]
    return [
        {"pool": row["id"], "price": row["price"], "interval": row["interval"]}
        for row in rows
        if row["id"] in pools
    ]


def _curves_kept(round: Round) -> dict[str, Any]:
    """{full, public}: the curves with everything in them, and without any single bid."""
    key = f"curves:{round.pk}:{round.clearing_sha256}"
    body: bytes | None = cache.get(key)
    if body is not None:
        return unpack(body)
    cleared = _cleared(round)
    try:
        full = curves(cleared, merit=cleared.book.market.columns <= MOST_COLUMNS)
    except EconomicsError as error:
        raise NotFound(str(error), code="not_explained") from error
    kept = {"full": full, "public": public_curves(cleared, full)}
    cache.set(key, pack(kept), KEPT_S)
    return kept


def _cleared(round: Round) -> Cleared:
    book, clearing = book_of(round), clearing_of(round)
    if book is None or clearing is None:
        why = f"The book of round {round.number} is not kept any longer."
        raise NotFound(why, code="not_kept")
    try:
        return read_cleared(book, clearing)
    except EconomicsError as error:
        raise NotFound(str(error), code="not_explained") from error
