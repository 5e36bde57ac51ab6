"""What a round said of each job: written with the awards, or right after, job by job in bulk."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Q

from federation.bulk import rows_update
from federation.models import Assignment, Job, Round, Snapshot, Venue
from federation.snapshot import outcomes_read, unpack

log = logging.getLogger("hanse")
Outcome = tuple[str, str]  #: a code for a machine, a sentence for the tenant
AT_ONCE = 10_000  #: jobs told in one transaction
LEFT_BEHIND = timedelta(minutes=1)  #: after which nobody else is thought to be telling
FIELDS = ("outcome_round", "outcome_code", "outcome_why")
_DIFFERS = (
    "outcome_round IS NULL OR outcome_round <> {outcome_round} "
    "OR outcome_code <> {outcome_code} OR outcome_why <> {outcome_why}"
)
_NOT_NEWER = "outcome_round IS NULL OR outcome_round <= {outcome_round}"


def outcomes_tell(*, number: int, told: Mapping[str, Outcome], late: bool = False) -> int:
    """Write what round `number` said of jobs, by the text of their ids; how many rows changed.

    Rows that say so already are left alone, and with `late` those that a later round has told.
    """
    rows = [(job, number, code[:64], why[:1000]) for job, (code, why) in sorted(told.items())]
    only = f"({_DIFFERS}) AND ({_NOT_NEWER})" if late else _DIFFERS
    return rows_update(Job, FIELDS, rows, only=only)


def rounds_explain(*, now: datetime, fresh: Collection[UUID] = ()) -> list[UUID]:
    """Tell the jobs that cleared rounds left out why. Returns the rounds that are through.

    `fresh` are the rounds that the caller has just published; others are left to their publishers
    until those had time enough. Prices and awards do not wait for this. It may stop anywhere and
    be repeated: what was written is not written again, and a later round's word stands.
    """
    done = []
    left = Q(pk__in=fresh) | Q(cleared_at__lte=now - LEFT_BEHIND)
    due = Round.objects.filter(left, explanations_due=True).order_by("cleared_at")
    for round in due:
        try:
            _explain(round)
        except DatabaseError:
            raise  # the database is away: the next tick goes on
        except Exception:
            # what no test foresaw must not be tried again at every tick for ever
            log.exception("round %s could not be explained", round.pk)
        Round.objects.filter(pk=round.pk).update(explanations_due=False)
        done.append(round.pk)
    return done


def _explain(round: Round) -> None:
    body = Snapshot.objects.filter(round=round).values_list("body", flat=True).first()
    if body is None or round.clearing is None:
        return  # its retention is over
    told = outcomes_read(book=unpack(body), clearing=unpack(round.clearing))
    for job in Assignment.objects.filter(round=round).values_list("job_id", flat=True):
        told.pop(str(job), None)  # told with its award
    rows = iter(sorted(told.items()))
    while part := dict(islice(rows, AT_ONCE)):
        with transaction.atomic():
            Venue.objects.select_for_update().get(pk=round.venue_id)  # one writer of many jobs
            outcomes_tell(number=round.number, told=part, late=True)
